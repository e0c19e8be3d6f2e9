"""The way out of a singularity in the direction of the target: for example a stretched arm that should move straight
inwards.

There no joint moves the tool along the wished direction u at first order, and a damped inverse does not move. At second
order the tool moves by 1/2 e' H e if the joints move by e, where H is the derivative of J' u: among the directions that
do not move the tool otherwise, the one with the greatest eigenvalue is taken if that is positive. For a target out of
reach none is positive, so the arm stays at rest.
"""

import numpy as np

from vla_ros.control.tool_arm import ToolArm
from vla_ros.control.tool_pose import PoseArm

_SINGULAR = 0.015  # singular values below this fraction of the arm's length hardly move the tool
_CURVED = 0.01  # eigenvalues below this fraction of the length count as zero
_STEP = 1e-4  # rad or m, of the derivative
_LEANS = 1e-3  # fraction of the length: a larger slope in joint space shows to which side the arm is already bent


def way_out(
    arm: ToolArm | PoseArm, position: np.ndarray, jacobian: np.ndarray, left: np.ndarray,
    room: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """(n,) of length 1, direction of the joints that brings the tool nearer; zeros if there is none.

    Args:
        position: (J,) the last command.
        jacobian: (6, n) there.
        left: (3,) m, remaining displacement of the tool.
        room: (n,) down and up to each joint's limit.
    """
    none, towards = np.zeros(jacobian.shape[1]), left / np.linalg.norm(left)
    _, lengths, ways = np.linalg.svd(jacobian[:3])
    blocked = ways[: len(lengths)][lengths > _SINGULAR * arm.length]
    if len(blocked) == 3:
        return none
    curvature = np.empty((len(none), len(none)))
    for k, column in enumerate(arm.columns):
        moved = position.copy()
        moved[column] += _STEP
        curvature[k] = (arm.placed(moved)[2] - jacobian)[:3].T @ towards / _STEP
    free = np.eye(len(none)) - blocked.T @ blocked
    values, found = np.linalg.eigh(free @ (curvature + curvature.T) @ free / 2)
    if values[-1] < _CURVED * arm.length:
        return none
    out, slope = found[:, -1], found[:, -1] @ jacobian[:3].T @ towards
    if abs(slope) > _LEANS * arm.length:
        return out * np.sign(slope)
    ends = [np.where(out * sign < 0, -room[0], room[1])[np.abs(out) > 0.1].min() for sign in (1, -1)]
    return out if ends[0] >= ends[1] else -out
