"""A command group of the robot file: what is commanded on one topic, and by which messages."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vla_ros.core.joint import AXES
from vla_ros.core.stream import JOINT_STATE

INTERFACES = {  # of a command group -> type of the messages on its topic
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "float64_multi_array": "std_msgs/msg/Float64MultiArray",
    "joint_state": JOINT_STATE,
    "follow_joint_trajectory": JOINT_STATE,
    "gripper_command": JOINT_STATE,
    "parallel_gripper_command": JOINT_STATE,
    "pose_stamped": "geometry_msgs/msg/PoseStamped",
    "twist_stamped": "geometry_msgs/msg/TwistStamped",
    "base_twist": "geometry_msgs/msg/Twist",
    "base_twist_stamped": "geometry_msgs/msg/TwistStamped",
}
OF_TOOL = ("pose_stamped", "twist_stamped")  # of groups whose controller moves the tool itself
OF_BASE = ("base_twist", "base_twist_stamped")  # of groups that drive a base: their joints are velocities
ACTIONS = {  # of groups commanded by goals of an action; the topic repeats the commands
    "follow_joint_trajectory": "control_msgs/action/FollowJointTrajectory",
    "gripper_command": "control_msgs/action/GripperCommand",
    "parallel_gripper_command": "control_msgs/action/ParallelGripperCommand",
}
GRIPPERS = ("gripper_command", "parallel_gripper_command")
COMMAND_STAMPS = ("zero", "now")


@dataclass(frozen=True)
class CommandGroup:
    """Joints that are commanded through one topic, or through an action if the robot offers only that."""

    name: str  # used in messages; the stream of its commands is command/NAME
    topic: str = ""  # of the commands; default with an action: ACTION/command
    interface: str = ""  # one of INTERFACES
    joints: tuple[str, ...] = ()  # names of joints of this file; each joint belongs to one group
    action: str = ""  # name of the action; only for the interfaces ACTIONS
    # Of joint_trajectory: "zero" (start now) or "now" (the time of the command); default: zero, in simulated time now.
    stamp: str = ""
    prefix: str = ""  # what comes before the driver's joint names to make the names in this file
    max_effort: float = 0.0  # N or N m, only for GRIPPERS; 0: the controller's own
    # Only for OF_BASE: the axis of each of `joints`: "x" (m/s, forwards), "y" (to the left), "z" (up), "roll", "pitch",
    # "yaw" (rad/s, about them).
    axes: tuple[str, ...] = ()
    odometry: str = ""  # only for OF_BASE: topic of nav_msgs/Odometry with the measured velocities

    @property
    def of_tool(self) -> bool:
        """Its joints are moved by the tool's pose or twist, not one by one."""
        return self.interface in OF_TOOL

    @property
    def of_base(self) -> bool:
        """Its joints are velocities of a base."""
        return self.interface in OF_BASE

    def __post_init__(self) -> None:
        if self.action and not self.topic:
            object.__setattr__(self, "topic", f"{self.action}/command")

    @property
    def driver_joints(self) -> list[str]:
        """What the driver calls the joints."""
        return [name.removeprefix(self.prefix) for name in self.joints]

    def faults(self) -> Iterator[tuple[bool, str]]:
        """Pairs of (whether this fault is present, its description)."""
        interface = self.interface
        yield not all(name.startswith(self.prefix) and name != self.prefix for name in self.joints), (
            f"joints {list(self.joints)}, expected names that begin with the prefix {self.prefix!r}"
        )
        yield interface not in INTERFACES, f"interface {interface!r}, expected one of {tuple(INTERFACES)}"
        yield interface in ACTIONS and not self.action, f"interface {interface} without `action`, expected its name"
        yield interface not in ACTIONS and bool(self.action), (
            f"action {self.action!r} with interface {interface}, expected one of {tuple(ACTIONS)}"
        )
        yield not self.joints, "joints: none, expected one or more"
        yield not self.topic, "topic: none, expected the one that the controller listens to"
        yield bool(re.search(r"(^|/)(e_stop|instruction|action_chunk|status|clock)$", self.topic)), (
            f"topic {self.topic!r} is one of the nodes' own"
        )
        yield bool(self.stamp) and (self.stamp not in COMMAND_STAMPS or interface != "joint_trajectory"), (
            f"stamp {self.stamp!r} with interface {interface}, expected one of {COMMAND_STAMPS}, with "
            "joint_trajectory alone"
        )
        one = interface in GRIPPERS
        yield one and len(self.joints) != 1, f"joints {list(self.joints)}, expected one with {interface}"
        yield not 0 <= self.max_effort < np.inf or bool(self.max_effort and not one), (
            f"max_effort {self.max_effort}, expected zero or more, and only with {' or '.join(GRIPPERS)}"
        )
        yield from self._base_faults()

    def _base_faults(self) -> Iterator[tuple[bool, str]]:
        what = f"interface {self.interface}"
        if not self.of_base:
            bad = [f"{name} {getattr(self, name)!r}" for name in ("axes", "odometry") if getattr(self, name)]
            yield bool(bad), f"{', '.join(bad)} with {what}, expected one of {OF_BASE}"
            return
        fits = len(set(self.axes)) == len(self.axes) == len(self.joints) and set(self.axes) <= AXES.keys()
        yield not fits, f"axes {list(self.axes)}, expected one of {list(AXES)} for each of {list(self.joints)}"
        yield not self.odometry, f"{what} without `odometry`, expected the topic of the base's measured velocities"
        yield bool(self.prefix), f"prefix {self.prefix!r} with {what}, expected none: its message has no names"
