"""The way out of a singularity in whose direction the tool is wanted: a stretched arm that is asked straight inwards.

There no joint moves the tool along the wished direction u at first, and a damped inverse stands still. At second order
it moves by 1/2 e' H e for joints that go by e, H being the derivative of J' u: of the directions that leave the tool
where it is otherwise, the one of the greatest eigenvalue is taken, if that is positive. For a target beyond the reach
none is, so the arm rests as before.
"""

import numpy as np

from vla_ros.control.tool_arm import ToolArm
from vla_ros.control.tool_pose import PoseArm

_SINGULAR = 0.015  # singular values below this share of the arm's length move the tool as good as not
_CURVED = 0.01  # eigenvalues below this share of the length are none
_STEP = 1e-4  # rad or m, of the derivative
_LEANS = 1e-3  # share of the length: a slope in joint space that says which way the arm is bent already


def way_out(
    arm: ToolArm | PoseArm, position: np.ndarray, jacobian: np.ndarray, left: np.ndarray,
    room: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """(n,) of length 1, how the joints go for the tool to come nearer; zeros where there is no way out.

    Args:
        position: (J,) the last command.
        jacobian: (6, n) there.
        left: (3,) m that the tool should go.
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
