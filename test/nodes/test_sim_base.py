"""What the simulator's node does for a robot with a base: commands that cease, frames, and what its file may say."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mujoco", reason="MuJoCo is not installed")

from geometry_msgs.msg import TwistStamped
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_ros.control.kinematics import Kinematics
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.commands import BaseWriter, CommandWriter
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.sim import leading
from vla_ros.nodes.sim.frames import Frames
from vla_ros.nodes.sim.streams import Commands, check_stamps
from vla_ros.sim.description import urdf
from vla_ros.sim.room_world import FOLDED, RoomWorld
from vla_ros.sim.tasks import SuccessTracker, Task
from vla_ros.sim.wordings import TaskKind

ROBOT = RobotSpec.load("lekiwi_sim")


class Node:
    """Keeps what is subscribed to and published."""

    def __init__(self) -> None:
        self.takes, self.said = {}, []
        self.get_logger = lambda: SimpleNamespace(warning=print, info=print)
        self.get_clock = lambda: SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=1))

    def create_subscription(self, kind, topic, take, qos):
        self.takes[topic] = take

    def create_publisher(self, kind, topic, qos):
        said = self.said
        return SimpleNamespace(publish=lambda message: said.append((topic, message)), get_subscription_count=lambda: 1)


@pytest.fixture(scope="module")
def world():
    return RoomWorld()


def test_a_base_that_is_commanded_no_more_stands_after_half_a_second(world):
    node = Node()
    commands = Commands(node, ROBOT, world)
    arm, gripper, base = ROBOT.groups
    start = world.joint_positions()

    def drive() -> None:
        node.takes[base.topic](BaseWriter(base, TwistStamped()).fill(np.array([0.1, -0.2, 0.3]), 1))

    drive()
    assert np.array_equal(commands.apply(start), start)  # nothing before every group was commanded
    for group in (arm, gripper):
        writer = CommandWriter(group, JointTrajectory(), JointTrajectoryPoint)
        positions = FOLDED[[ROBOT.joint_names.index(name) for name in group.joints]]
        node.takes[group.topic](writer.fill(positions, 1))
    found = np.array([commands.apply(start) for _ in range(60)])
    np.testing.assert_allclose(found[:50, 6:], np.tile([0.1, -0.2, 0.3], (50, 1)))
    assert not found[50:, 6:].any()
    np.testing.assert_allclose(found[:, :6], np.tile(FOLDED, (60, 1)))
    drive()
    np.testing.assert_allclose(commands.apply(start)[6:], [0.1, -0.2, 0.3])


def test_frames_lead_from_the_room_to_the_sensors(world):
    pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed")
    node = Node()
    world.reset(3)
    frames = Frames(node, Kinematics(urdf(world.model, ROBOT.name)))
    names = ROBOT.joint_names[:6]
    for _ in range(3):  # every third period
        frames.publish(dict(zip(names, world.joint_positions(), strict=False)), 5, world.base_pose())
    parents, places = {}, {}
    for _, message in node.said:
        for row in message.transforms:
            parents[row.child_frame_id] = row.header.frame_id
            shift = row.transform.translation
            places[row.child_frame_id] = shift.x, shift.y, shift.z
    for sensor in ("lidar", "imu", "front_camera", "left_camera"):
        assert parents[sensor] == "base_link"
    assert parents["base_link"] == "odom" and parents["base"] == "base_link" and parents["wrist_camera"] == "hand"
    np.testing.assert_allclose(places["base_link"], [*world.base_pose()[:2], 0.0])
    ends = {parent for parent in parents.values() if parent not in parents}
    assert ends == {"odom"}  # one tree
    tip = Kinematics(urdf(world.model, ROBOT.name)).pose(
        "tip", "base_link", dict(zip(names, world.joint_positions()[:6, None], strict=True)))[0, :3, 3]
    x, y, yaw = world.base_pose()
    expected = world.tip_position() - [x, y, 0.0]
    turned = [np.cos(yaw) * tip[0] - np.sin(yaw) * tip[1], np.sin(yaw) * tip[0] + np.cos(yaw) * tip[1], tip[2]]
    np.testing.assert_allclose(turned, expected, atol=1e-5)


def test_an_expert_that_takes_over_drives_the_base(monkeypatch):
    heard, asked = [], []
    monkeypatch.setattr(leading, "subscribe_bounded", lambda node, kind, topic, take, qos: heard.append(take))
    node, room = Node(), RoomWorld(3)
    done = SimpleNamespace(done=lambda: True)
    node.create_client = lambda kind, name: SimpleNamespace(
        service_is_ready=lambda: True, call_async=lambda request: asked.append(request.data) or done
    )
    led = leading.Leading(node, room, patience=0.5, lead=3.0)
    task = Task(TaskKind.DRIVE, "red")
    led.begin(task)
    before = SuccessTracker(task, room).distance()
    for k in range(400):
        led.steer((k + 1) * 10_000_000, 1)
        if asked == [True]:
            heard[0](ExecutorStatus(state=ExecutorStatus.TAKEN_OVER))
        command = node.said[-1][1]
        assert list(command.name) == list(room.joint_names)
        assert asked or np.abs(command.position[6:]).max() < 1e-3
        room.step(np.array(command.position))
    assert asked[:2] == [True, False] and SuccessTracker(task, room).distance() < before - 0.3


@pytest.mark.parametrize("group, changes, said", [
    ("base", {"interface": "base_twist"}, "group base has interface base_twist,.* expected base_twist_stamped"),
    ("arm", {"interface": "float64_multi_array"}, "group arm has interface float64_multi_array,.* expected joint_"),
    ("gripper", {"stamp": "zero"}, "group gripper has stamp zero,.* expected now"),
])  # fmt: skip
def test_lockstep_refuses_commands_without_the_stamp_of_their_time(group, changes, said):
    check_stamps(ROBOT)
    groups = tuple(replace(one, **changes) if one.name == group else one for one in ROBOT.groups)
    with pytest.raises(InputError, match=f"^robot lekiwi_sim: command {said}"):
        check_stamps(replace(ROBOT, groups=groups))
