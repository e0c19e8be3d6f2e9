"""`sensor_msgs/JointState` and odometry to arrays in the order of the robot file, and back."""

import math
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.joint_states import joint_fault
from vla_ros.core.stream import BaseState, Stream
from vla_ros.messages.stamps import set_stamp

_PROPER = 0.01  # tolerance of the length of a quaternion
TWIST = {  # axis of a base -> field of a geometry_msgs/Twist, and its component
    "x": ("linear", "x"), "y": ("linear", "y"), "z": ("linear", "z"),
    "roll": ("angular", "x"), "pitch": ("angular", "y"), "yaw": ("angular", "z"),
}  # fmt: skip


def measured(stream: Stream, message: Any) -> tuple[Sequence[str], Sequence[float]]:
    """Our names and the values of a message of a state stream: joints in rad or m, which may lack positions; for
    odometry the velocities of a base, m/s and rad/s along and about its own axes."""
    if isinstance(stream, BaseState):
        names, axes = zip(*stream.axes, strict=True)
        return names, velocities(message.twist.twist, axes)
    return stream.joints(message.name), message.position


def base_pose(message: Any) -> tuple[float, float, float]:
    """x and y, m, and yaw, rad, of an odometry's pose in its own frame; yaw is NaN if its quaternion is invalid, for
    example not filled in by the driver."""
    place, turned = message.pose.pose.position, message.pose.pose.orientation
    length = math.hypot(turned.x, turned.y, turned.z, turned.w)
    if not abs(length - 1.0) < _PROPER:
        return place.x, place.y, math.nan
    up = 1.0 - 2.0 * (turned.y * turned.y + turned.z * turned.z)
    return place.x, place.y, math.atan2(2.0 * (turned.w * turned.z + turned.x * turned.y), up)


def velocities(twist: Any, axes: Sequence[str]) -> list[float]:
    """m/s and rad/s of a geometry_msgs/Twist along and about `axes`, keys of TWIST."""
    return [float(getattr(getattr(twist, vector), name)) for vector, name in map(TWIST.__getitem__, axes)]


def joint_positions(message: Any, names: Sequence[str], what: str = "joint state") -> np.ndarray:
    """(J,) float64 positions of the joints `names`, rad or m.

    From one message with all of them, such as a command; measured ones are merged (`core.joint_states`). Other joints
    are ignored.

    Raises:
        InputError: a joint is missing, is duplicated or has no finite position.
    """
    there = list(message.name)
    if fault := joint_fault(there, message.position):
        raise InputError(f"{what}: {fault}")
    found = dict(zip(there, message.position, strict=False))
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"{what}: joint {missing[0]!r} is missing, got {there}")
    result = np.array([found[name] for name in names], dtype=np.float64)
    for j in np.flatnonzero(~np.isfinite(result)):
        raise InputError(f"{what}: joint {names[j]!r} is at {result[j]}, expected a finite position")
    return result


def joint_state_message(
    JointState: type, names: Sequence[str], positions: np.ndarray, stamp: int = 0, velocities: np.ndarray | None = None
) -> Any:
    """A JointState (the class given) from (J,) positions in rad or m; `stamp` in ns, velocities in rad/s or m/s."""
    message = set_stamp(JointState(), stamp)
    message.name = list(names)
    message.position = array("d", positions)
    if velocities is not None:
        message.velocity = array("d", velocities)
    return message
