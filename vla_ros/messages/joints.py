"""`sensor_msgs/JointState` to arrays in the order of the robot file, and back."""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.messages.stamps import set_stamp


def joint_positions(
    message: Any, names: Sequence[str], what: str = "joint state", partial: bool = False
) -> np.ndarray:
    """(J,) float64 positions of the joints `names`, rad or m.

    Joints that the robot file does not know are left aside. With `partial`, joints that the message lacks are NaN.

    Raises:
        InputError: a joint is missing, is duplicated or has no finite position.
    """
    there = list(message.name)
    positions = message.position
    if len(there) != len(positions):
        raise InputError(f"{what}: {len(there)} names and {len(positions)} positions, expected as many")
    index = {name: i for i, name in enumerate(there)}
    result = np.full(len(names), np.nan)
    for j, name in enumerate(names):
        if name not in index:
            if partial:
                continue
            raise InputError(f"{what}: joint {name!r} is missing, got {there}")
        result[j] = positions[index[name]]
    if len(index) != len(there):
        twice = sorted({name for name in there if there.count(name) > 1} & set(names))
        if twice:
            raise InputError(f"{what}: joint {twice[0]!r} is duplicated")
    bad = [j for j in np.flatnonzero(~np.isfinite(result)) if names[j] in index]
    if bad:
        raise InputError(f"{what}: joint {names[bad[0]]!r} is at {result[bad[0]]}, expected a finite position")
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
