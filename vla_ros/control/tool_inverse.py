"""Inverse kinematics of the tool: damped inverses, position before rotation.

A wished twist is converted to joint velocities by task priority with damped inverses: the position first, the rotation
with the remaining degrees of freedom, and any others do not move, so that the posture stays near the present one
(Siciliano and Slotine 1991, "A general framework for managing multiple tasks in highly redundant robotic
systems"). An arm with fewer than six joints reaches every position within its range, and the rotation as far as
possible.

An inverse is damped where a singular value s falls below e: s / e² in place of 1 / s (numerical filtering,
Maciejewski and Klein 1988, "Numerical filtering for the operation of robotic manipulators through kinematically
singular configurations"). It is continuous, never more than 1 / e, and goes to 0 with s: near a singularity the tool
slows down, the joints do not speed up.
"""

import numpy as np

_NEAR_POSITION = 0.05  # singular values below this share of the arm's length are damped, m/rad
_NEAR_ROTATION = 0.1  # and of the rotation below this
_FREE = 0.01  # singular values of the position below this share of the length are left to the rotation
_MISSED = 1e-3  # m and rad, error without additional damping


class Inverse:
    """Of an arm with n joints and a Jacobian (6, n).

    Attributes:
        length: m, of the arm; its singular values are compared with it.
    """

    length: float

    def way(self, jacobian: np.ndarray, left: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """(n,) displacement of the joints for a (6,) displacement of the tool, m and rad.

        The part of it that the arm cannot do would distort the part that it can, the more so near a singularity, so the
        inverse is damped in proportion (after Sugihara 2011, "Solvability-unconcerned inverse kinematics by the
        Levenberg-Marquardt method"). Otherwise an arm would swing back and forth before a target out of reach.
        """
        found = self.resolve(jacobian, left, low, high)
        missed = left - jacobian @ found
        position, rotation = np.linalg.norm(missed[:3]), np.linalg.norm(missed[3:])
        if position < _MISSED and rotation < _MISSED:
            return found
        return self.resolve(jacobian, left, low, high, (position * self.length, rotation))

    def resolve(
        self, jacobian: np.ndarray, twist: np.ndarray, low: np.ndarray, high: np.ndarray,
        more: tuple[float, float] = (0.0, 0.0),
    ) -> np.ndarray:
        """(n,) velocities, or displacements, of the joints for a (6,) twist, or displacement, of the tool.

        A joint that would leave `low` to `high` (n,) stops there, and the others make up for it where they can.
        `more`: damping to add for position and rotation, squares of singular values.
        """
        least = np.sqrt([(_NEAR_POSITION * self.length) ** 2 + more[0], _NEAR_ROTATION**2 + more[1]])
        free, found = np.ones(len(low), dtype=bool), np.zeros(len(low))
        for _ in low:
            left = twist - jacobian[:, ~free] @ found[~free]
            found[free] = _prioritised(jacobian[:, free], left, _FREE * self.length, *least)
            over = free & ((found > high) | (found < low))
            if not over.any():
                break
            found[over] = np.clip(found, low, high)[over]
            free &= ~over
        return found


def _prioritised(jacobian: np.ndarray, twist: np.ndarray, free: float, least: float, turning: float) -> np.ndarray:
    """(m,) of (6, m) and (6,), the position before the rotation, damped below `least` and `turning`."""
    inverse, null = _damped(jacobian[:3], least, free)
    found = inverse @ twist[:3]
    rest, _ = _damped(jacobian[3:] @ null, turning, free)
    return found + null @ (rest @ (twist[3:] - jacobian[3:] @ found))


def _damped(matrix: np.ndarray, least: float, free: float) -> tuple[np.ndarray, np.ndarray]:
    """The damped inverse (m, 3) of (3, m), and the projector (m, m) onto what it leaves free: directions whose singular
    values are below `free`, weighted by how far below."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    gain, taken = s / np.maximum(s * s, least * least), np.minimum(s / free, 1.0) ** 2
    return v.T @ (gain[:, None] * u.T), np.eye(matrix.shape[1]) - v.T @ (taken[:, None] * v)
