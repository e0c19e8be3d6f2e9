"""A base's commands and odometry: written and read, live and in observations."""

from types import SimpleNamespace

import numpy as np
import pytest
from control.robots import driving

from vla_ros.core.command_group import CommandGroup
from vla_ros.core.errors import InputError
from vla_ros.messages.commands import BaseWriter, read_command
from vla_ros.messages.joints import base_pose
from vla_ros.messages.observation import NotReady, ObservationBuilder
from vla_ros.messages.stamps import NS, set_stamp, stamp_ns

GROUP = CommandGroup("base", "cmd_vel", "base_twist", ("spin", "left"), axes=("yaw", "y"), odometry="odom")


def vector(**values: float) -> SimpleNamespace:
    return SimpleNamespace(**{"x": 0.0, "y": 0.0, "z": 0.0} | values)


def twist(x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(linear=vector(x=x, y=y), angular=vector(z=yaw))


def odometry(at: float, x: float, yaw: float) -> SimpleNamespace:
    header = SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0))
    return set_stamp(SimpleNamespace(header=header, twist=SimpleNamespace(twist=twist(x=x, yaw=yaw))), round(at * NS))


def test_a_twist_has_its_axes_alone_and_is_read_back():
    writer = BaseWriter(GROUP, twist())
    assert writer.moving and writer.fill(np.zeros(2), 5) and not writer.moving
    message = writer.fill(np.array([0.5, -0.2]), 7)
    assert writer.moving
    assert vars(message.linear) == {"x": 0.0, "y": -0.2, "z": 0.0}
    assert vars(message.angular) == {"x": 0.0, "y": 0.0, "z": 0.5}
    np.testing.assert_array_equal(read_command(GROUP, message), [0.5, -0.2])
    with pytest.raises(InputError, match=r"command for base: velocities \[nan, 0.0\], expected finite numbers"):
        read_command(GROUP, twist(yaw=float("nan")))


def test_a_twist_of_six_axes_is_read_back():
    axes = ("pitch", "x", "z", "roll", "y", "yaw")
    group = CommandGroup("hand", "hand", "base_twist", tuple("abcdef"), axes=axes, odometry="odom")
    message = BaseWriter(group, twist()).fill(np.arange(6.0), 5)
    assert vars(message.linear) == {"x": 1.0, "y": 4.0, "z": 2.0}
    assert vars(message.angular) == {"x": 3.0, "y": 0.0, "z": 5.0}
    np.testing.assert_array_equal(read_command(group, message), np.arange(6.0))


@pytest.mark.parametrize("kind", ["Twist", "TwistStamped"])
def test_in_ros_messages(kind):
    messages = pytest.importorskip("geometry_msgs.msg", reason="needs the ROS messages")
    message = BaseWriter(GROUP, getattr(messages, kind)()).fill(np.array([0.5, -0.2]), 7 * NS)
    np.testing.assert_array_equal(read_command(GROUP, message), [0.5, -0.2])
    assert kind == "Twist" or stamp_ns(message) == 7 * NS


@pytest.mark.parametrize(("turned", "yaw"), [
    ({"z": np.sin(0.4), "w": np.cos(0.4)}, 0.8), ({"z": 1.002}, np.pi), ({}, np.nan), ({"z": 2.0, "w": 2.0}, np.nan),
    ({"w": np.nan}, np.nan),
])  # fmt: skip
def test_a_quaternion_that_is_none_is_no_direction(turned, yaw):
    pose = SimpleNamespace(position=vector(x=1.0, y=2.0), orientation=vector(**{"w": 0.0} | turned))
    said = base_pose(SimpleNamespace(pose=SimpleNamespace(pose=pose)))
    assert said == pytest.approx((1.0, 2.0, yaw), nan_ok=True, abs=1e-2)


def test_odometry_is_state_and_a_base_that_nobody_commands_stands():
    made = ObservationBuilder(driving(), names=["joint_states", "command/base", "command/arm"])
    header = SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=0))
    made.add("joint_states", SimpleNamespace(header=header, name=["turn"], position=[0.3]))
    with pytest.raises(NotReady, match="joints x.vel, theta.vel: never seen"):
        made.build(NS)
    made.add("joint_states/odom", odometry(1.0, 0.2, -0.4))
    made.add("joint_states/odom", odometry(1.1, float("nan"), 0.1))  # what is not finite is no measurement
    seen = made.build(NS + NS // 5)
    assert seen.state.tolist() == [0.3, 0.2, 0.1]
    assert seen.values["command/arm"].tolist() == [0.3] and seen.values["command/base"].tolist() == [0.0, 0.0]
    made.add("command/base", twist(x=0.4, yaw=0.1), stamp=NS)
    assert made.build(NS + NS // 5).values["command/base"].tolist() == [0.4, 0.1]
