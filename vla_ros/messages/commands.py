"""Joint commands: the interfaces of a command group, written and read."""

from array import array
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from vla_ros.core.command_group import INTERFACES, CommandGroup
from vla_ros.core.errors import InputError
from vla_ros.messages.joints import TWIST, joint_positions, velocities
from vla_ros.messages.stamps import NS, is_stamped, set_stamp

COMMAND_TYPES = INTERFACES  # interface -> ROS type of its topic
MOST_POINTS = 50  # of a trajectory that is sent every period; if braking takes more periods, some are left out


class CommandWriter:
    """One group's command message, made once and refilled at every control tick.

    A trajectory has a point for the tick and one for each period of braking after it, so that a controller that gets
    the next message late, or never, slows the robot down within its limits.

    Args:
        group: its joints, in its order.
        message: a fresh message of the type that `COMMAND_TYPES` gives for the group's interface.
        new_point: makes a fresh `trajectory_msgs/JointTrajectoryPoint`, for a joint_trajectory group.
        period: s, the control period.
        horizon: s; how far ahead the last point of a stamped trajectory is, so that it arrives before it is over.
        stamped: False: the stamp of a trajectory is zero, which means "start now" whatever the two clocks say.
    """

    def __init__(
        self,
        group: CommandGroup,
        message: Any,
        new_point: Callable[[], Any] | None = None,
        period: float = 0.01,
        horizon: float = 0.0,
        stamped: bool = True,
    ) -> None:
        self.group, self.message, self._new_point = group, message, new_point
        self._period_ns, self._horizon_ns = round(period * NS), round(horizon * NS)
        self._stamped = stamped or group.interface != "joint_trajectory"
        self._points: list[Any] = []
        if group.interface == "joint_trajectory":
            message.joint_names = group.driver_joints
        elif group.interface != "float64_multi_array":
            message.name = group.driver_joints

    def fill(
        self, positions: np.ndarray, stamp: int, braking: np.ndarray | None = None, reach_in: float = 0.0
    ) -> Any:
        """The message.

        Args:
            positions: (G,) rad or m, of this group's joints.
            stamp: the tick's time, ns; a Float64MultiArray has no field for it.
            braking: (K, G) positions of the periods after that, in which the robot comes to rest.
            reach_in: s from the stamp (or the arrival) to `positions`, if more than one period.
        """
        if self.group.interface == "float64_multi_array":
            self.message.data = array("d", positions)
            return self.message
        if self.group.interface == "joint_trajectory":
            path = positions[None] if braking is None else np.concatenate([positions[None], braking])
            self.message.points = self._path(path, max(self._period_ns, round(reach_in * NS)))
        else:
            self.message.position = array("d", positions)
        return set_stamp(self.message, stamp if self._stamped else 0)

    def _path(self, path: np.ndarray, first_ns: int) -> list[Any]:
        """Without velocities: a controller refuses a last point with a velocity, and zeros would stop it at every
        point."""
        every = -(-len(path) // MOST_POINTS)
        chosen = [0, *range(len(path) - 1, 0, -every)[::-1]]  # the last one among them
        times = [first_ns + self._period_ns * k for k in chosen]
        if self._stamped and times[-1] < self._horizon_ns:
            chosen, times = [*chosen, chosen[-1]], [*times, self._horizon_ns]
        while len(self._points) < len(chosen):
            self._points.append(self._new_point())
        points = self._points[: len(chosen)]
        for point, k, at_ns in zip(points, chosen, times, strict=True):
            point.time_from_start.sec, point.time_from_start.nanosec = divmod(at_ns, NS)
            point.positions = array("d", path[k])
        return points


class BaseWriter:
    """The message of a group that drives a base, refilled at every control tick.

    Args:
        message: a fresh Twist or TwistStamped, whose numbers are along and about the base's own axes.

    Attributes:
        moving: the last message asked for motion; True before the first one.
    """

    def __init__(self, group: CommandGroup, message: Any) -> None:
        self.group, self.message, self.moving = group, message, True
        self._stamped = is_stamped(type(message))
        twist = message.twist if self._stamped else message
        self._places = [(getattr(twist, vector), name) for vector, name in map(TWIST.__getitem__, group.axes)]

    def fill(self, values: np.ndarray, stamp: int) -> Any:
        """(G,) m/s and rad/s of this group's dimensions, for the instant `stamp`, ns."""
        self.moving = bool(values.any())
        for (vector, name), value in zip(self._places, values, strict=True):
            setattr(vector, name, float(value))
        return set_stamp(self.message, stamp) if self._stamped else self.message


class ToolWriter:
    """The message of a group that is commanded by the tool, refilled at every control tick.

    Args:
        message: a fresh PoseStamped or TwistStamped.
        frame: of its numbers.
    """

    def __init__(self, message: Any, frame: str) -> None:
        self.message = message
        message.header.frame_id = frame

    def fill(self, values: np.ndarray, stamp: int) -> Any:
        """(7,) position in m and quaternion x, y, z, w, or (6,) m/s and rad/s, for the time `stamp`, ns."""
        numbers = [float(value) for value in values]
        if len(numbers) == 7:
            place, turned = self.message.pose.position, self.message.pose.orientation
            turned.x, turned.y, turned.z, turned.w = numbers[3:]
        else:
            place, turned = self.message.twist.linear, self.message.twist.angular
            turned.x, turned.y, turned.z = numbers[3:]
        place.x, place.y, place.z = numbers[:3]
        return set_stamp(self.message, stamp)


def read_command(group: CommandGroup, message: Any) -> np.ndarray:
    """(G,) positions in rad or m that a command message asks for, in the order of `group.joints`; of a base (G,)
    velocities in m/s and rad/s.

    Of a trajectory, the first point that is not at time zero counts. Raises
    InputError that names the group.
    """
    what = f"command for {group.name}"
    if group.of_tool:
        raise InputError(f"{what}: interface {group.interface} says nothing of joints, expected one that commands them")
    if group.of_base:
        values = np.array(velocities(getattr(message, "twist", message), group.axes))
        if not np.isfinite(values).all():
            raise InputError(f"{what}: velocities {values.tolist()}, expected finite numbers")
        return values
    if group.interface == "joint_trajectory":
        if not message.points:
            raise InputError(f"{what}: trajectory without points, expected one or more")
        times = [point.time_from_start for point in message.points]
        first = next((i for i, time in enumerate(times) if time.sec or time.nanosec), -1)
        message = SimpleNamespace(name=message.joint_names, position=message.points[first].positions)
    elif group.interface == "float64_multi_array":
        message = SimpleNamespace(name=group.driver_joints, position=message.data)
    return joint_positions(message, group.driver_joints, what)
