from types import SimpleNamespace

import numpy as np
import pytest

from vla_ros.core.robot import Camera, CommandGroup, Joint, RobotSpec
from vla_ros.messages.observation import JOINT_STATES, NotReady, ObservationBuilder
from vla_ros.messages.stamps import set_stamp

SECOND = 1_000_000_000
ROBOT = RobotSpec(
    name="test",
    cameras=(Camera("front", "front", 4, 3), Camera("wrist", "wrist", 2, 2)),
    joints=(Joint("a", -1, 1, velocity=1, acceleration=1), Joint("b", -1, 1, velocity=1, acceleration=1)),
    groups=(CommandGroup("arm", "arm", "joint_state", ("a", "b")),),
)
SIZES = {camera.name: (camera.height, camera.width) for camera in ROBOT.cameras}


def stamped(stamp, **fields):
    header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0))
    return set_stamp(SimpleNamespace(header=header, **fields), round(stamp * SECOND))


def image(camera, stamp, grey):
    height, width = SIZES[camera]
    data = bytes([grey]) * (height * width * 3)
    return stamped(stamp, height=height, width=width, step=3 * width, encoding="rgb8", is_bigendian=0, data=data)


def joints(stamp, value):
    return stamped(stamp, name=["b", "a"], position=[-value, value])


def builder(**options):
    made = ObservationBuilder(ROBOT, **options)
    for stamp in (1.0, 1.1):
        made.add("front", image("front", stamp, round(stamp * 100)))
        made.add("wrist", image("wrist", stamp + 0.01, round(stamp * 100)))
        made.add(JOINT_STATES, joints(stamp + 0.02, stamp / 10))
    return made


def test_an_observation_has_the_newest_of_every_stream():
    observation = builder().build(2 * SECOND - SECOND // 2, "touch the red cube")
    assert observation.stamp_ns == 1_120_000_000
    assert observation.stamps_ns == {"front": 1_100_000_000, "wrist": 1_110_000_000, JOINT_STATES: 1_120_000_000}
    assert observation.images["front"].shape == (3, 4, 3) and (observation.images["front"] == 110).all()
    np.testing.assert_allclose(observation.state, [0.11, -0.11])
    assert observation.instruction == "touch the red cube"


def test_nothing_after_the_instant_is_used():
    observation = builder().build(1_105_000_000)
    assert observation.stamps_ns == {"front": 1_100_000_000, "wrist": 1_010_000_000, JOINT_STATES: 1_020_000_000}
    assert observation.stamp_ns == 1_100_000_000


def test_order_of_arrival_does_not_matter():
    late = ObservationBuilder(ROBOT)
    for stamp in (1.1, 1.0, 1.05):
        late.add("front", image("front", stamp, round(stamp * 100)))
        late.add("wrist", image("wrist", stamp, 0))
        late.add(JOINT_STATES, joints(stamp, 0.0))
    assert late.build(2 * SECOND - SECOND // 2).images["front"][0, 0, 0] == 110
    assert late.build(1_060_000_000).images["front"][0, 0, 0] == 105


def test_missing_and_stale_streams_are_named_with_their_age():
    made = ObservationBuilder(ROBOT, max_age=0.5)
    made.add("front", image("front", 1.0, 0))
    made.add(JOINT_STATES, joints(5.0, 0.0))
    with pytest.raises(NotReady) as caught:
        made.build(1_750_000_000)
    assert caught.value.streams == ("front", "wrist", JOINT_STATES)
    said = str(caught.value)
    assert "front: 0.750 s old, expected at most 0.500 s" in said
    assert "wrist: no message yet" in said
    assert "joint_states: joints a, b: 3.250 s ahead" in said
    assert set(made.problems(1_750_000_000)) == {"front", "wrist", JOINT_STATES}


def test_the_age_limit_is_inclusive_and_can_be_off():
    made = builder(max_age=0.5)
    assert made.problems(1_600_000_000) == {}
    assert set(made.problems(1_600_000_001)) == {"front"}
    assert builder(max_age=None).problems(10**6 * SECOND) == {}


@pytest.mark.parametrize(
    ("stream", "message", "said"),
    [
        ("front", stamped(1.2, height=3, width=4, encoding="nv99"), "front: image: encoding 'nv99'"),
        ("front", stamped(1.2, format="jpeg", data=b"nonsense"), "front: compressed image"),
    ],
)
def test_a_message_that_cannot_be_read_is_refused_until_a_good_one_comes(stream, message, said):
    made = builder()
    made.add(stream, message)
    with pytest.raises(NotReady, match=said) as caught:
        made.build(1_300_000_000)
    assert caught.value.streams == (stream,)
    made.add(stream, image("front", 1.25, 1))
    assert made.build(1_300_000_000).stamps_ns[stream] == 1_250_000_000


def test_history_is_bounded_and_reaches_back_far_enough():
    made = ObservationBuilder(ROBOT, max_age=None, history=0.5)
    for tick in range(1000):
        for camera in ROBOT.camera_names:
            made.add(camera, image(camera, tick * 0.01, tick % 256))
        made.add(JOINT_STATES, joints(tick * 0.01, 0.0))
    newest = 9_990_000_000
    assert made.build(newest - SECOND // 2).stamp_ns == newest - SECOND // 2
    with pytest.raises(NotReady):
        made.build(newest - SECOND)
    assert all(len(stamps) <= 52 for stamps in made._stamps.values())


def test_a_repeated_stamp_replaces_and_does_not_pile_up():
    made = builder()
    for grey in range(50):
        made.add("front", image("front", 1.2, grey))
    assert len(made._stamps["front"]) <= 3
    assert made.build(1_300_000_000).images["front"][0, 0, 0] == 49


def test_after_clear_nothing_is_left():
    made = builder()
    made.clear()
    assert set(made.problems(1_100_000_000)) == {"front", "wrist", JOINT_STATES}


def test_bag_and_live_give_the_same_bytes():
    """The same messages as rclpy delivers them and as a bag reader does."""
    msg = pytest.importorskip("sensor_msgs.msg", reason="needs the ROS messages")
    serialization = pytest.importorskip("rclpy.serialization", reason="needs rclpy")
    from rosbags.typesys import Stores, get_typestore

    from vla_ros.messages.images import compressed_image_message, image_message
    from vla_ros.messages.joints import joint_state_message

    rng = np.random.default_rng(0)
    front = image_message(msg.Image, rng.integers(0, 255, (3, 4, 3), np.uint8), SECOND)
    wrist = compressed_image_message(msg.CompressedImage, rng.integers(0, 255, (2, 2, 3), np.uint8), SECOND)
    state = joint_state_message(msg.JointState, ["b", "a"], rng.normal(size=2), SECOND)
    store = get_typestore(Stores.ROS2_KILTED)
    live, bag = ObservationBuilder(ROBOT), ObservationBuilder(ROBOT)
    for stream, message in (("front", front), ("wrist", wrist), (JOINT_STATES, state)):
        live.add(stream, message)
        kind = f"sensor_msgs/msg/{type(message).__name__}"
        # rclpy may leave padding at the end of what it serialises; the bag's reader wants none.
        read = serialization.deserialize_message(serialization.serialize_message(message), type(message))
        bag.add(stream, store.deserialize_cdr(store.serialize_cdr(_rosbags(store, kind, read), kind), kind))
    one, other = live.build(SECOND), bag.build(SECOND)
    assert one.state.tobytes() == other.state.tobytes()
    for camera in ROBOT.camera_names:
        assert one.images[camera].tobytes() == other.images[camera].tobytes()
    assert (one.stamp_ns, one.stamps_ns) == (other.stamp_ns, other.stamps_ns)


def _rosbags(store, kind, message):
    """An rclpy message as the bag reader's class of the same name."""
    header = store.types["std_msgs/msg/Header"](
        store.types["builtin_interfaces/msg/Time"](message.header.stamp.sec, message.header.stamp.nanosec), ""
    )
    fields = {}
    for name in message.get_fields_and_field_types():
        value = getattr(message, name)
        fields[name] = np.asarray(value) if hasattr(value, "typecode") else value
    return store.types[kind](**(fields | {"header": header}))
