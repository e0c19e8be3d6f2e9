"""`sensor_msgs/JointState` to arrays in the order of the robot file, and back."""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.messages.stamps import set_stamp


def joint_positions(message: Any, names: Sequence[str], what: str = "joint state", partial: bool = False) -> np.ndarray:
    """(J,) float64 positions of the joints `names`, rad or m.

    Joints that the robot file does not know are ignored. With `partial`, joints that the message lacks are NaN.

    Raises:
        InputError: a joint is missing, is duplicated or has no finite position.
    """
    there = list(message.name)
    positions = message.position
    if len(there) != len(positions):
        raise InputError(f"{what}: {len(there)} names and {len(positions)} positions, expected as many")
    index = {name: i for i, name in enumerate(there)}
    missing = [name for name in names if name not in index]
    if missing and not partial:
        raise InputError(f"{what}: joint {missing[0]!r} is missing, got {there}")
    result = np.array([positions[index[name]] if name in index else np.nan for name in names], dtype=np.float64)
    if len(index) != len(there):
        twice = sorted({name for name in there if there.count(name) > 1} & set(names))
        if twice:
            raise InputError(f"{what}: joint {twice[0]!r} is duplicated")
    for j in np.flatnonzero(~np.isfinite(result)):
        if names[j] in index:
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
