"""Further sensors: what is decoded, what is refused, and which messages belong to an observation."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import sensors
from bags.factory import NS, header, joints, kind
from bags.factory import image as image_bytes

from vla_ros.bags.definitions import standard_store
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import Stream
from vla_ros.messages.decoders import decoder_of
from vla_ros.messages.observation import JOINT_STATES, NotReady, ObservationBuilder, message_stamp
from vla_ros.messages.selection import rows_at


@pytest.fixture
def robot(tmp_path, monkeypatch) -> RobotSpec:
    monkeypatch.syspath_prepend(str(sensors.install_decoder(tmp_path / "site")))
    return sensors.robot()


def read(data, typename):
    return standard_store().deserialize_cdr(data, typename)


def image(ns, k):
    return read(image_bytes(ns, k), "sensor_msgs/msg/Image")


def state(ns, values=(0.25, -0.5)):
    return read(joints(ns, values), "sensor_msgs/msg/JointState")


def decode(message, robot=None, **fields):
    stream = Stream(**({"name": "it", "topic": "it", "type": message.__msgtype__} | fields))
    assert not any(bad for bad, _ in stream.faults())
    return decoder_of(stream, robot or sensors.robot())(message)


def scan(ranges):
    return kind("sensor_msgs/msg/LaserScan")(
        header=header(NS), angle_min=0.0, angle_max=1.0, angle_increment=0.1, time_increment=0.0, scan_time=0.1,
        range_min=0.1, range_max=30.0, ranges=np.array(ranges, np.float32), intensities=np.zeros(0, np.float32),
    )  # fmt: skip


def cloud(points, height=1, padding=0, order="<"):
    """(M, 3) points, with an intensity in between and `padding` bytes behind each row."""
    points = np.asarray(points, float)
    layout = np.dtype({"names": ["x", "y", "i", "z"], "formats": [order + "f4", order + "f4", "u1", order + "f8"],
                       "offsets": [0, 4, 8, 12], "itemsize": 20})  # fmt: skip
    rows = np.zeros(len(points), layout)
    rows["x"], rows["y"], rows["z"] = points.T
    width = len(points) // height
    data = np.zeros((height, width * 20 + padding), np.uint8)
    data[:, : width * 20] = np.frombuffer(rows.tobytes(), np.uint8).reshape(height, -1)
    field = kind("sensor_msgs/msg/PointField")
    fields = [field(name=n, offset=o, datatype=t, count=1) for n, o, t in
              (("x", 0, 7), ("y", 4, 7), ("i", 8, 2), ("z", 12, 8))]  # fmt: skip
    return kind("sensor_msgs/msg/PointCloud2")(
        header=header(NS), height=height, width=width, fields=fields, is_bigendian=order == ">", point_step=20,
        row_step=width * 20 + padding, data=data.ravel(), is_dense=False,
    )  # fmt: skip


def test_fields_of_a_message_by_their_paths():
    (value,) = decode(sensors.imu(NS, 3), select=("linear_acceleration.x", "linear_acceleration.y")).values()
    assert value.dtype == np.float32 and value.tolist() == [1.0, np.float32(-9.81)]
    effort = kind("sensor_msgs/msg/JointState")(
        header=header(NS), name=["b", "a"], position=np.zeros(2), velocity=np.zeros(0), effort=np.array([2.0, 1.0])
    )
    assert decode(effort, select=("effort[a]", "effort[0]"))["it"].tolist() == [1.0, 2.0]
    covariance = decode(sensors.imu(NS, 3), select=("orientation_covariance",), shape=(3, 3))["it"]
    assert covariance.shape == (3, 3)
    assert decode(sensors.joy(NS, 3), select=("buttons",), shape=(2,), dtype="int64")["it"].tolist() == [1, 3]
    assert decode(sensors.text("grasp"), dtype="string")["it"].tolist() == ["grasp"]
    assert decode(sensors.truth(True), dtype="bool")["it"].tolist() == [True]


def test_ranges_without_a_return():
    value = decode(scan([1.0, np.inf, -np.inf, np.nan]), shape=(4,))["it"]
    np.testing.assert_array_equal(value, np.array([1.0, 30.0, 0.1, 0.0], np.float32))
    with pytest.raises(InputError, match=r"value \[1\] is inf, expected a finite number"):
        decode(scan([1.0, np.inf]), select=("ranges",), shape=(2,))


def test_depth_is_in_mm_whatever_the_encoding():
    wanted = sensors.distances(3)
    assert np.array_equal(decode(sensors.depth(NS, 3), dtype="uint16", shape=(24, 32, 1))["it"], wanted)
    metres = (wanted[..., 0] / 1000).astype(np.float32)
    metres[0, :5] = [np.nan, np.inf, -1.0, 100.0, 0.0]
    message = sensors.depth(NS, 3)
    message.encoding, message.step, message.data = "32FC1", 128, np.frombuffer(metres.tobytes(), np.uint8)
    value = decode(message, dtype="uint16", shape=(24, 32, 1))["it"]
    assert value[0, :5, 0].tolist() == [0, 0, 0, 65535, 0] and np.array_equal(value[1:], wanted[1:])
    with pytest.raises(InputError, match="image of 32x24 pixels, the robot file says 64x48"):
        decode(sensors.depth(NS, 3), dtype="uint16", shape=(48, 64, 1))
    message = image(NS, 3)
    with pytest.raises(InputError, match="encoding 'rgb8', expected 16UC1"):
        decode(message, dtype="uint16", shape=(24, 32, 1))


@pytest.mark.parametrize(("height", "padding", "order"), [(1, 0, "<"), (4, 12, ">")])
def test_points_are_thinned_evenly_and_counted(height, padding, order):
    points = np.arange(36, dtype=float).reshape(12, 3)
    points[0, 1] = np.nan  # 11 finite ones: every third is kept
    found = decode(cloud(points, height, padding, order), points=5)
    assert found["it_count"].tolist() == [4] and found["it_count"].dtype == np.int64
    assert np.array_equal(found["it"][:4], points[1::3]) and not found["it"][4].any()
    assert found["it"].dtype == np.float32 and found["it"].shape == (5, 3)
    few = decode(cloud(points[:2]), points=5, select=("z", "i"))
    assert few["it_count"].tolist() == [2] and few["it"].tolist() == [[2, 0], [5, 0], [0, 0], [0, 0], [0, 0]]
    none = cloud(np.zeros((0, 3)))
    for _ in range(2):
        found = decode(none, points=5)
        assert found["it_count"].tolist() == [0] and not found["it"].any()
        none.fields, none.point_step = [], 0


@pytest.mark.parametrize("spoil", [lambda fields: setattr(fields[1], "count", 3),
                                   lambda fields: setattr(fields[2], "name", "y")])
def test_a_field_of_several_values_is_no_coordinate(spoil):
    message = cloud(np.ones((4, 3)))
    spoil(message.fields)
    with pytest.raises(InputError, match="point cloud: field 'y' has several values, expected one"):
        decode(message, points=5)


@pytest.mark.parametrize(
    ("message", "fields", "said"),
    [
        (sensors.imu(NS, 1, "arm"), {"select": ["angular_velocity.z"], "frame": "base"},
         "frame 'arm', the robot file says 'base'"),
        (sensors.truth(True), {"dtype": "bool", "frame": "base"}, "frame None, the robot file says 'base'"),
        (sensors.numbers([1.0, 2.0]), {"shape": [3]}, r"shape \[2\], the robot file says \[3\]"),
        (sensors.numbers([1.0, np.nan]), {"shape": [2]}, r"value \[1\] is nan, expected a finite number"),
        (sensors.numbers([1e300, 0.0]), {"shape": [2]}, r"value \[0\] is inf, expected a finite number"),
        (sensors.numbers([1.0, 2.0]), {"shape": [2], "dtype": "int64"}, "float64 values, the robot file says int64"),
        (sensors.joy(NS, 2**31 - 1), {"select": ["buttons"], "shape": [3], "dtype": "int64"}, r"shape \[2\]"),
        (sensors.truth(True), {}, "bool values, the robot file says float32"),
        (sensors.imu(NS, 1), {"select": ["angular_velocity"]}, "angular_velocity is a .*Vector3, expected numbers"),
        (sensors.imu(NS, 1), {"select": ["speed.x"]}, "speed.x: .*has no attribute 'speed'"),
        (sensors.imu(NS, 1), {"select": ["orientation_covariance[9]"]}, "out of bounds"),
        (cloud(np.zeros((2, 3))), {"points": 4, "select": ["x", "colour"]}, "no field 'colour'"),
        (sensors.imu(NS, 1), {}, "no decoder of sensor_msgs/msg/Imu: select fields"),
        (sensors.imu(NS, 1), {"decoder": "mine"}, "decoder 'mine', expected an installed one"),
    ],
)  # fmt: skip
def test_what_is_no_value_of_the_stream_is_refused(message, fields, said):
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    with pytest.raises(InputError, match=said):
        decode(message, **fields)


@pytest.mark.parametrize(
    ("value", "fields", "said"),
    [
        (np.array([70_000], np.uint32), {"dtype": "uint16", "shape": (1, 1, 1)}, "uint32 values that uint16"),
        (np.array([2**63], np.uint64), {"dtype": "int64"}, "uint64 values that int64 does not hold"),
        ([[1.0], [1.0, 2.0]], {"points": 3, "shape": (3, 2)}, "inhomogeneous"),
        ([[1.0, 2.0]], {"points": 3}, r"points of shape \(2,\), the robot file says \(3,\)"),
    ],
)
def test_what_a_decoder_of_a_package_must_not_give(monkeypatch, value, fields, said):
    point = SimpleNamespace(name="mine", dist=None, load=lambda: lambda message, stream: value)
    monkeypatch.setattr("vla_ros.messages.decoders.entry_points", lambda group: [point])
    with pytest.raises(InputError, match=said):
        decode(sensors.text("anything"), decoder="mine", **fields)


def test_a_decoder_of_an_installed_package(robot):
    found = decoder_of(robot.stream("markers"), robot)(sensors.poses(NS, 4))
    assert found["markers_count"].tolist() == [3]  # of four, one at NaN
    assert decoder_of(robot.stream("markers"), robot)(sensors.poses(NS, 0))["markers_count"].tolist() == [0]
    assert np.array_equal(found["markers"], np.array([[0, 4 / 3, 0.5], [1, 4 / 3, 0.5], [2, 4 / 3, 0.5]], np.float32))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "front"}, "stream 'front' is duplicated"),
        ({"name": "state"}, "stream state: expected a name"),
        ({"name": "a/b"}, "expected a name of letters"),
        ({"type": "sensor_msgs/Imu"}, "type 'sensor_msgs/Imu', expected package/msg/Name"),
        ({"dtype": "float64"}, "dtype 'float64', expected one of"),
        ({"dtype": "uint8"}, "colour: see `cameras`"),
        ({"type": "sensor_msgs/msg/Image"}, "expected uint16 for depth images"),
        ({"max_age": 0}, "max_age 0.0 s, expected above zero"),
        ({"slop": 0.1}, "slop 0.1 s, expected zero or more, and `with` a stream"),
        ({"with": "rear"}, "with 'rear', expected a camera or sensor"),
        ({"max_age": None, "paces": True}, "expected neither paces nor"),
        ({"window": {"count": 1, "rate": 10}}, "window: count 1, rate 10.0 Hz: expected two values or more"),
        ({"window": {"count": 4, "rate": 10}, "points": 3}, "window, expected none together with points"),
        ({"within": "front"}, "streams.0..within: unknown field, expected some of .*'with'"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(change, said):
    row = {"name": "imu", "topic": "imu", "type": "sensor_msgs/msg/Imu", "select": ["angular_velocity.z"]}
    with pytest.raises(InputError, match=said):
        RobotSpec.from_dict(sensors.robot_row([row | change]))


# Which messages


def streams(*names):
    return tuple(sensors.robot().stream(name) for name in names)


def test_a_window_is_filled_by_the_last_value_not_after_each_instant():
    (shake,) = streams("shake")  # 5 values, 20 ms apart
    times = [0, 10, 39, 41, 80, 85]
    stamps = {"shake": [time * 1_000_000 for time in times]}
    assert rows_at(stamps, [shake], 85_000_000) == {"shake": (0, 1, 3, 3, 5)}
    assert rows_at(stamps, [shake], 79_000_000) == {"shake": None}  # its first value would be before all


def test_a_group_is_chosen_at_the_newest_instant_at_which_all_are_there():
    pair = streams("front", "depth")
    stamps = {"front": [0, 33, 66, 100], "depth": [2, 36, 90, 112]}  # ms; within 10 ms of each other
    stamps = {name: [time * 1_000_000 for time in times] for name, times in stamps.items()}
    chosen = {t: rows_at(stamps, pair, t * 1_000_000) for t in (0, 2, 34, 36, 99, 100, 112)}
    assert chosen == {
        0: {"front": None, "depth": None},
        2: {"front": (0,), "depth": (0,)},
        34: {"front": (0,), "depth": (0,)},  # the image of 33 has no depth yet
        36: {"front": (1,), "depth": (1,)},
        99: {"front": (1,), "depth": (1,)},  # neither has the one of 66, nor that depth an image
        100: {"front": (3,), "depth": (2,)},
        112: {"front": (3,), "depth": (2,)},
    }


def test_a_group_is_observed_together(robot):
    made = ObservationBuilder(robot, names=["front", "depth"])
    for k, (at, depth_at) in enumerate([(1.0, 1.003), (1.1, 1.103), (1.2, None)]):
        made.add("front", image(round(at * NS), k))
        if depth_at:
            made.add("depth", sensors.depth(round(depth_at * NS), k))
    made.add(JOINT_STATES, state(round(1.2 * NS)))
    observation = made.build(round(1.25 * NS))
    assert observation.stamps_ns == {"front": 1_100_000_000, "depth": 1_103_000_000}
    assert np.array_equal(observation.values["depth"], sensors.distances(1))
    assert made.paced == ["front", "depth"] and ObservationBuilder(robot, names=["imu"]).paced == []
    # who asks for one of the two gets the same one
    assert made.build(round(1.25 * NS), names=["front"]).stamps_ns["front"] == 1_100_000_000
    made.clear()
    made.add("front", image(NS, 0))
    made.add("depth", sensors.depth(NS + NS // 2, 0))
    made.add(JOINT_STATES, state(NS))
    assert made.problems(NS + NS // 2) == {
        "front": "no message at the same instant as one of depth",
        "depth": "no message at the same instant as one of front",
    }
    made.add("depth", sensors.depth(NS + 1_000_000, 0))
    made.add(JOINT_STATES, state(2 * NS))
    made.add("front", image(2 * NS, 0))
    assert made.problems(2 * NS)["front"] == "1.000 s old where it is together with depth, expected at most 0.500 s"


def test_a_stale_sensor_is_refused_by_name_and_by_its_own_limit(robot):
    robot = replace(robot, streams=tuple(replace(s, max_age=2.0) if s.name == "imu" else s for s in robot.streams))
    made = ObservationBuilder(robot, max_age=0.5, names=["imu", "keys"])
    made.add(JOINT_STATES, state(10 * NS))
    made.add("imu", sensors.imu(8 * NS, 1))
    made.add("keys", sensors.joy(9 * NS, 1))
    assert made.problems(10 * NS) == {"keys": "1.000 s old, expected at most 0.500 s"}
    with pytest.raises(NotReady, match="imu: frame 'arm', the robot file says 'base'") as caught:
        made.add("imu", sensors.imu(9 * NS, 1, "arm"))
        made.add("keys", sensors.joy(10 * NS, 1))
        made.build(10 * NS)
    assert caught.value.streams == ("imu",)
    made.add("imu", sensors.imu(10 * NS, 2))
    assert set(made.build(10 * NS).values) == {"imu", "keys"}


def test_what_is_published_once_holds_for_good_and_survives_a_jump_of_the_clock(robot):
    made = ObservationBuilder(robot, max_age=0.5, names=["mass", JOINT_STATES])
    assert made.problems(NS)["mass"] == "no message yet"
    made.add("mass", sensors.numbers([1.0, 2.0]), stamp=1_000 * NS)
    made.clear()
    made.add(JOINT_STATES, state(5 * NS))
    observation = made.build(5 * NS)
    assert observation.values["mass"].tolist() == [1.0, 2.0] and observation.stamp_ns == 5 * NS


def test_stamps_are_of_the_header_or_of_receipt(robot):
    assert message_stamp(robot.stream("imu"), sensors.imu(7, 1), 99) == 7
    assert message_stamp(robot.stream("pressed"), sensors.truth(True), 99) == 99
    trajectory = kind("trajectory_msgs/msg/JointTrajectory")(header=header(0), joint_names=["a"], points=[])
    assert message_stamp(robot.stream("command/arm"), trajectory, 99) == 99  # zero: now


def test_a_command_that_nobody_gives_is_the_state(robot):
    made = ObservationBuilder(robot, names=["command/hand"])
    made.add(JOINT_STATES, state(NS, (0.25, -0.5)))
    assert made.build(NS).values["command/hand"].tolist() == [-0.5]
    made.add("command/hand", sensors.numbers([0.75]), stamp=NS)
    assert made.build(NS).values["command/hand"].tolist() == [0.75]
    made.add(JOINT_STATES, state(3 * NS, (0.25, 1.0)))
    assert made.build(3 * NS).values["command/hand"].tolist() == [1.0]  # that command is over


def test_the_state_is_merged_joint_by_joint_over_all_topics():
    left, right = "joint_states/left/joint_states", "joint_states/right"
    spec = RobotSpec.from_dict(sensors.robot_row([]) | {"joint_state_topic": ["left/joint_states", "right"]})
    assert spec.state_streams == (left, right)
    made = ObservationBuilder(spec, names=[JOINT_STATES], history=1.0)
    full = state(NS)

    def add(topic, at, velocity=(), **positions):
        message = replace(state(round(at * NS)), name=list(positions), position=np.array(list(positions.values())),
                          velocity=np.array(velocity))  # fmt: skip
        made.add(topic, message)

    def seen(at):
        observation = made.build(round(at * NS))
        return observation.state.tolist(), observation.stamps_ns[JOINT_STATES] / NS, observation.stamp_ns / NS

    assert made.problems(NS) == {JOINT_STATES: "joints a, b: never seen"}
    add(left, 1.0, a=0.25, wheel=7.0)
    made.add(right, replace(full, name=["b"], position=np.zeros(0), velocity=np.ones(1)))  # it is no position
    assert made.problems(NS) == {JOINT_STATES: "joint b: never seen (others are there: 'wheel')"}
    add(right, 0.9, b=-0.5)
    assert seen(1.0) == ([0.25, -0.5], 0.9, 1.0)
    add(left, 1.2, b=-0.75, a=0.5)  # both topics have b: the youngest value counts
    add(right, 1.1, b=9.0)  # it comes late
    assert seen(1.2) == ([0.5, -0.75], 1.2, 1.2)
    assert seen(1.15) == ([0.25, 9.0], 1.0, 1.1)  # and belongs where it was measured
    add(left, 1.9, a=float("nan"), b=-0.8)
    with pytest.raises(NotReady, match="^joint_states: joint a: 0.700 s old, limit 0.5 s$"):
        made.build(round(1.9 * NS))
    for fault, said in (({"position": np.zeros(3)}, "2 names and 3 positions"), ({"name": ["a", "a"]}, "'a' is dup")):
        with pytest.raises(InputError, match=said):
            made.add(left, replace(full, **{"name": ["a", "b"], "position": np.zeros(2), **fault}))
    assert seen(1.7) == ([0.5, -0.75], 1.2, 1.2)
