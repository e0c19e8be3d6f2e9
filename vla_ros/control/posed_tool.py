"""A robot with a command group of poses or twists: from joint states to the tool's pose, from commands to messages."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vla_ros.control.joint_states import MeasuredJoints
from vla_ros.control.limits import Limits
from vla_ros.control.settings import Command
from vla_ros.control.tool_arm import ToolArm
from vla_ros.control.tool_pose import PoseArm, tool_limits
from vla_ros.core.errors import InputError, shown
from vla_ros.core.robot import RobotSpec
from vla_ros.core.rotations import from_matrix, to_matrix
from vla_ros.core.tool import TOOL_COLUMNS, Tool

_GAIN = 2.0  # 1/s, gain from the distance between measured and commanded pose to the twist

TakeJoints = Callable[[int, Sequence[str], Sequence[float], int], None]  # of Executor.joint_state


class PosedTool:
    """Converts between the messages of such a robot and an executor whose columns are the tool's.

    Attributes:
        arm, limits: for the executor.
    """

    def __init__(self, robot: RobotSpec, source: str | Path, limits: Limits, future_tolerance: float) -> None:
        """`limits`: of all joints. `source`: a URDF file or the text itself, not used if the tool's pose has a topic.
        Raises InputError if they do not fit."""
        group = robot.tool_group
        what = f"command group {group.name}: interface {group.interface}"
        self._chain = None
        if not robot.tool.pose_topic:
            if not source:
                raise InputError(f"{what} needs the robot's URDF, by the parameter urdf, robot_description or "
                                 "robot_description_topic: the tool's pose comes from the joint states (or from "
                                 "`pose_topic` of the tool)")
            self._chain = ToolArm(robot.tool, source, limits)
            if sorted(self._chain.names) != sorted(group.joints):
                raise InputError(f"{what} commands {list(group.joints)}, expected the joints that move the tool, "
                                 f"{list(self._chain.names)}")
        self.limits = tool_limits(robot, group, limits)
        self.arm = PoseArm(robot.tool, self.limits, group.joints, group.interface == "twist_stamped")
        self._joints = MeasuredJoints(limits.names, future_tolerance)
        self._others = set(limits.names) - set(group.joints)
        self._values = np.full(len(TOOL_COLUMNS), np.nan)  # the newest of the tool's columns
        self._twist = ToolTwist(robot.tool, 1.0 / robot.control_rate) if group.interface == "twist_stamped" else None

    def joint_state(
        self, stamp_ns: int, names: Sequence[str], position: Sequence[float], now_ns: int, take: TakeJoints
    ) -> None:
        """A message of joint states, rad or m; `take` gets the tool's columns, stamped with its oldest joint, and the
        other joints."""
        others = [(name, value) for name, value in zip(names, position, strict=False) if name in self._others]
        if others:
            take(stamp_ns, *map(list, zip(*others, strict=True)), now_ns)
        if self._chain is None:
            return
        self._joints.update(stamp_ns, names, position, now_ns)
        columns, measured = self._chain.columns, self._joints.position
        if np.isfinite(measured[columns]).all() and any(name not in self._others for name in names):
            self._placed(int(self._joints.stamps_ns[columns].min()), *self._chain.pose(measured), now_ns, take)

    def pose(
        self, stamp_ns: int, frame: str, place: Sequence[float], turned: Sequence[float], now_ns: int, take: TakeJoints
    ) -> None:
        """A message of `pose_topic`: position in m, quaternion x, y, z, w. Raises InputError for another frame, and for
        values that are not a pose."""
        if frame != self.arm.tool.frame:
            raise InputError(f"a pose in frame {shown(frame)}, expected the tool's {self.arm.tool.frame!r}")
        if not np.isfinite(place).all():
            raise InputError(f"a pose at {list(place)}, expected finite numbers")
        rotation = to_matrix(np.array(turned, dtype=np.float64), "quaternion_xyzw")
        self._placed(stamp_ns, np.array(place, dtype=np.float64), rotation, now_ns, take)

    def _placed(
        self, stamp_ns: int, place: np.ndarray, rotation: np.ndarray, now_ns: int, take: TakeJoints
    ) -> None:
        self._values = self.arm.values(place, rotation, self._values)
        take(stamp_ns, TOOL_COLUMNS, self._values.tolist(), now_ns)

    def missing(self, now_ns: int, timeout: float) -> str:
        """The joints of the arm without a position at most `timeout` s old, in words; "" if there are none."""
        return self._joints.stale(now_ns, timeout) if self._chain else ""

    def values(self, command: Command, measured: np.ndarray) -> np.ndarray:
        """Values for the tool's message: (7,) position in m and quaternion x, y, z, w, or (6,) m/s and rad/s.

        `measured`: (J,) of all columns.
        """
        place, rotation, jacobian = self.arm.placed(command.position)
        if self._twist is None:
            return np.concatenate([place, from_matrix(rotation, "quaternion_xyzw")])
        away = np.zeros(6)
        if command.following and np.isfinite(measured[self.arm.columns]).all():
            at, turned = self.arm.pose(measured)
            away = np.concatenate([place - at, self.arm.turn(turned, rotation)])
        speeds = jacobian @ command.velocity[self.arm.columns]
        wish = speeds + _GAIN * away if command.following else np.zeros(6)
        return self._twist.next(command.stamp_ns, wish, command.interval)

    @property
    def at_rest(self) -> bool:
        """The last message asked for no motion; always true for poses."""
        return self._twist is None or self._twist.at_rest

    def brake(self, stamp_ns: int, passed: float) -> np.ndarray:
        """(6,) the twist while there is no command and the robot is not `at_rest`; `passed`: s since the last one.
        """
        return self._twist.next(stamp_ns, np.zeros(6), passed)

    def halt(self) -> np.ndarray:
        """(6,) the twist that ends the commands of a robot that is not `at_rest`."""
        return self._twist.halt()


class ToolTwist:
    """A sequence of twists, each as near to a wish as the tool's speed and acceleration limits allow."""

    def __init__(self, tool: Tool, period: float) -> None:
        """`period`: s between two, of the first one after rest."""
        self._speeds = np.array([tool.velocity, tool.rotation_velocity])
        self._changes = np.array([tool.acceleration, tool.rotation_acceleration])
        self._period, self._last_ns, self._twist = period, 0, np.zeros(6)

    @property
    def at_rest(self) -> bool:
        return not self._twist.any()

    def halt(self) -> np.ndarray:
        """(6,) zeros, whatever the last twist was."""
        self._twist = np.zeros(6)
        return self._twist

    def next(self, stamp_ns: int, wish: np.ndarray, passed: float) -> np.ndarray:
        """(6,) m/s and rad/s for the time `stamp_ns`; calling it again for the same time gives the same.

        `passed`: s since the last one (stamps change when ROS time is set).
        """
        if stamp_ns == self._last_ns:
            return self._twist
        passed = self._period if self.at_rest else max(passed, 0.0)
        change = _shortened(_shortened(wish, self._speeds) - self._twist, self._changes * passed)
        self._last_ns, self._twist = stamp_ns, self._twist + change
        return self._twist


def _shortened(twist: np.ndarray, most: np.ndarray) -> np.ndarray:
    """(6,) with the lengths of its two halves within `most` (2,)."""
    lengths = np.linalg.norm(twist.reshape(2, 3), axis=1)
    return twist * np.repeat(np.minimum(1.0, most / np.maximum(lengths, 1e-12)), 3)
