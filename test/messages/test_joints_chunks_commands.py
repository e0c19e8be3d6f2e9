from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from vla_ros.core.chunk import ActionChunk, MalformedChunk, Part, Space, Targets
from vla_ros.core.errors import InputError
from vla_ros.core.robot import CommandGroup
from vla_ros.messages.chunks import chunk_message, read_chunk
from vla_ros.messages.commands import CommandWriter, ToolWriter, read_command
from vla_ros.messages.joints import joint_positions, joint_state_message
from vla_ros.messages.stamps import set_stamp, stamp_ns

NAMES = ("a", "b")


def joint_state(names, positions):
    return SimpleNamespace(name=names, position=positions)


def test_positions_come_in_the_robots_order():
    message = joint_state(["b", "other", "a"], [2.0, 9.0, 1.0])
    np.testing.assert_array_equal(joint_positions(message, NAMES), [1.0, 2.0])


@pytest.mark.parametrize(
    ("names", "positions", "said"),
    [
        (["a"], [1.0], "'b' is missing"),
        (["a", "b"], [1.0, float("nan")], "'b' is at nan"),
        (["a", "b"], [float("inf"), 1.0], "'a' is at inf"),
        (["a", "b", "a"], [1.0, 2.0, 3.0], "'a' is duplicated"),
        (["a", "b"], [1.0], "2 names and 1 positions"),
        ([], [], "'a' is missing"),
    ],
)
def test_a_bad_joint_state_is_refused_by_name(names, positions, said):
    with pytest.raises(InputError, match=said):
        joint_positions(joint_state(names, positions), NAMES)


def message_stub():
    return SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0), frame_id=""))


def test_stamps_are_exact_to_the_nanosecond():
    message = set_stamp(message_stub(), 1_234_567_890_123_456_789)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1_234_567_890, 123_456_789)
    assert stamp_ns(message) == stamp_ns(message.header) == stamp_ns(message.header.stamp) == 1_234_567_890_123_456_789


def test_joint_state_message():
    message = joint_state_message(message_stub, NAMES, np.array([1.0, 2.0]), stamp=5, velocities=np.array([0.0, 3.0]))
    assert (message.name, list(message.position), list(message.velocity)) == (["a", "b"], [1.0, 2.0], [0.0, 3.0])
    assert stamp_ns(message) == 5


JOINTS = Part(NAMES, np.arange(6.0).reshape(3, 2))
BASE = Part(("x", "yaw", "a"), np.arange(9.0).reshape(3, 3), Space.END_EFFECTOR_DELTA, "base", "base_link")
CHUNK = ActionChunk(
    stamp_ns=7_000_000_001, step_dt=0.1, targets=Targets((JOINTS, BASE)), instruction_id=9,
    sequence=4, session=2**63, inference_time=0.02,
)  # fmt: skip


def same(part, other):
    np.testing.assert_array_equal(part.data, other.data)
    return (part.names, part.space, part.group, part.frame) == (other.names, other.space, other.group, other.frame)


def test_a_chunk_survives_the_message():
    chunk = read_chunk(chunk_message(message_stub, SimpleNamespace, CHUNK))
    assert all(map(same, chunk.targets.parts, CHUNK.targets.parts)) and chunk.duration == pytest.approx(0.3)
    for field in ("stamp_ns", "step_dt", "instruction_id", "sequence", "session", "inference_time"):
        assert getattr(chunk, field) == getattr(CHUNK, field)


def test_a_chunk_survives_the_ros_message():
    msg = pytest.importorskip("vla_ros.msg", reason="needs the built messages")
    chunk = read_chunk(chunk_message(msg.ActionChunk, msg.ActionPart, CHUNK))
    assert all(map(same, chunk.targets.parts, CHUNK.targets.parts)) and chunk.session == 2**63
    assert [int(space) for space in Space] == [
        msg.ActionPart.SPACE_JOINT_POSITION,
        msg.ActionPart.SPACE_END_EFFECTOR_POSE,
        msg.ActionPart.SPACE_END_EFFECTOR_DELTA,
        msg.ActionPart.SPACE_JOINT_DELTA,
        msg.ActionPart.SPACE_BASE_PATH,
    ]


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"data": [0.0, 1.0, float("nan"), 3.0, 4.0, 5.0]}, "non_finite", "a, row 1: nan"),
        ({"data": [0.0] * 5}, "shape", "5 numbers"),
        ({"horizon": 0, "data": []}, "shape", "0 numbers"),
        ({"names": ["a", "a"]}, "names", "'a' is duplicated"),
        ({"names": ["x", "a"], "group": "base"}, "space", "group 'base' and frame '' in joint space"),
        ({"frame_id": "world"}, "space", "frame 'world' in joint space"),
        ({"names": ["b", "c"], "group": "base", "space": 2}, "names", "'b' is duplicated"),
        ({"names": [], "data": []}, "names", "a part without names"),
        ({"parts": []}, "names", "no parts"),
        ({"data": [0.0] * 4}, "shape", "4 numbers, expected horizon 3 x 2 names"),
        ({"horizon": 4_000_000_000}, "shape", "6 numbers, expected horizon 4000000000 x 2"),
        ({"space": 17}, "space", "space 17"),
        ({"step_dt": 0.0}, "step_dt", "step_dt 0.0"),
        ({"step_dt": float("nan")}, "step_dt", "step_dt nan"),
        ({"step_dt": float("inf")}, "step_dt", "step_dt inf"),
    ],
)
def test_a_malformed_chunk_is_refused_with_a_reason(change, reason, said):
    other = Part(("b", "c"), np.zeros((3, 2)), Space.END_EFFECTOR_DELTA, "base")
    message = chunk_message(message_stub, SimpleNamespace, replace(CHUNK, targets=Targets((JOINTS, other))))
    for name, value in change.items():
        setattr(message.parts[0] if hasattr(message.parts[0], name) else message, name, value)
    with pytest.raises(MalformedChunk, match=said) as caught:
        read_chunk(message)
    assert caught.value.reason == reason


def empty_message(interface):
    return SimpleNamespace(data=None) if interface == "float64_multi_array" else message_stub()


ALL = ("joint_trajectory", "joint_state", "float64_multi_array", "follow_joint_trajectory", "gripper_command",
       "parallel_gripper_command")  # fmt: skip


def trajectory_point():
    return SimpleNamespace(time_from_start=SimpleNamespace(sec=0, nanosec=0))


@pytest.mark.parametrize("interface", ALL)
def test_a_command_is_read_back(interface):
    group = CommandGroup("arm", "topic", interface, NAMES)
    writer = CommandWriter(group, empty_message(interface), trajectory_point, period=0.02)
    for tick in (1, 2):
        braking = np.array([[0.6, tick], [0.65, tick]])
        message = writer.fill(np.array([0.5, tick]), tick * 20_000_000, braking)
        np.testing.assert_array_equal(read_command(group, message), [0.5, tick])
        if interface != "float64_multi_array":
            assert stamp_ns(message) == tick * 20_000_000


@pytest.mark.parametrize("interface", ALL)
def test_a_command_has_the_driver_s_names(interface):
    group = CommandGroup("arm", "topic", interface, tuple(f"left_{name}" for name in NAMES), prefix="left_")
    writer = CommandWriter(group, empty_message(interface), trajectory_point)
    message = writer.fill(np.array([0.5, 0.25]), 0)
    if interface != "float64_multi_array":
        assert getattr(message, "joint_names" if interface == "joint_trajectory" else "name") == list(NAMES)
    np.testing.assert_array_equal(read_command(group, message), [0.5, 0.25])


def path(message):
    """[(ms, first position)] of a trajectory, which has no velocities."""
    assert not any(hasattr(point, "velocities") for point in message.points)
    times = [point.time_from_start for point in message.points]
    return [(t.sec * 1000 + t.nanosec // 10**6, p.positions[0]) for t, p in zip(times, message.points, strict=True)]


@pytest.mark.parametrize("stamped", [False, True])
def test_a_trajectory_ends_with_the_way_on_which_the_robot_brakes(stamped):
    group = CommandGroup("arm", "topic", "joint_trajectory", NAMES)
    writer = CommandWriter(group, empty_message(group.interface), trajectory_point, 0.02, 0.5, stamped)
    at, braking = np.array([0.5, 0.0]), np.array([[0.6, 0.0], [0.65, 0.0]])
    message = writer.fill(at, 7_000_000_000, braking)
    assert stamp_ns(message) == (7_000_000_000 if stamped else 0)
    end = [(500, 0.65)] if stamped else []  # a stamped one must not be over when it arrives
    assert path(message) == [(20, 0.5), (40, 0.6), (60, 0.65), *end]
    assert path(writer.fill(at, 8)) == [(20, 0.5)] + ([(500, 0.5)] if stamped else [])
    many = path(writer.fill(at, 8, np.linspace([0.5, 0.0], [2.5, 0.0], 201)[1:]))
    assert 40 < len(many) <= 51 and many[0] == (20, 0.5) and many[-1] == (4020, 2.5)  # of 200 rows some
    assert all(position == pytest.approx(0.5 + (ms - 20) / 2000) for ms, position in many)
    later = writer.fill(at, 8, braking, reach_in=1.5)
    assert path(later) == [(1500, 0.5), (1520, 0.6), (1540, 0.65)]


def test_of_a_trajectory_the_first_point_that_is_not_its_start_counts():
    group = CommandGroup("arm", "topic", "joint_trajectory", NAMES)

    def message(*times):
        points = [
            SimpleNamespace(time_from_start=SimpleNamespace(sec=0, nanosec=t), positions=[float(t), 0.0]) for t in times
        ]
        return SimpleNamespace(joint_names=NAMES, points=points)

    assert [read_command(group, message(*times))[0] for times in [(0, 2, 3), (2, 3), (0,)]] == [2, 2, 0]


@pytest.mark.parametrize("interface", ALL)
def test_a_command_in_ros_messages(interface):
    from importlib import import_module

    pytest.importorskip("trajectory_msgs.msg", reason="needs the ROS messages")
    from trajectory_msgs.msg import JointTrajectoryPoint

    from vla_ros.messages.commands import COMMAND_TYPES

    package, _, name = COMMAND_TYPES[interface].split("/")
    group = CommandGroup("arm", "topic", interface, NAMES)
    writer = CommandWriter(group, getattr(import_module(f"{package}.msg"), name)(), JointTrajectoryPoint)
    np.testing.assert_array_equal(read_command(group, writer.fill(np.array([0.5, 0.25]), 10)), [0.5, 0.25])


def test_bad_commands_name_the_group():
    group = CommandGroup("arm", "topic", "joint_trajectory", NAMES)
    with pytest.raises(InputError, match="arm: trajectory without points"):
        read_command(group, SimpleNamespace(joint_names=["a", "b"], points=[]))
    point = trajectory_point()
    point.positions = [0.0, float("nan")]
    with pytest.raises(InputError, match="arm: joint 'b' is at nan"):
        read_command(group, SimpleNamespace(joint_names=["a", "b"], points=[point]))
    forward = CommandGroup("arm", "topic", "float64_multi_array", NAMES)
    with pytest.raises(InputError, match="arm: 2 names and 3 positions"):
        read_command(forward, SimpleNamespace(data=[1.0, 2.0, 3.0]))


def vector(names: str) -> SimpleNamespace:
    return SimpleNamespace(**dict.fromkeys(names, 0.0))


def test_a_tool_is_commanded_by_a_pose_or_a_twist():
    header = SimpleNamespace(frame_id="", stamp=SimpleNamespace(sec=0, nanosec=0))
    pose = SimpleNamespace(header=header, pose=SimpleNamespace(position=vector("xyz"), orientation=vector("xyzw")))
    message = ToolWriter(pose, "base").fill(np.arange(7.0), 20_000_000)
    assert (message.header.frame_id, stamp_ns(message)) == ("base", 20_000_000)
    assert vars(message.pose.position) == {"x": 0.0, "y": 1.0, "z": 2.0}
    assert vars(message.pose.orientation) == {"x": 3.0, "y": 4.0, "z": 5.0, "w": 6.0}
    twist = SimpleNamespace(header=header, twist=SimpleNamespace(linear=vector("xyz"), angular=vector("xyz")))
    message = ToolWriter(twist, "base").fill(np.arange(6.0), 0)
    assert vars(message.twist.linear)["y"] == 1.0 and vars(message.twist.angular)["x"] == 3.0
    group = CommandGroup("arm", "topic", "pose_stamped", NAMES)
    with pytest.raises(InputError, match="command for arm: interface pose_stamped says nothing of joints"):
        read_command(group, pose)
