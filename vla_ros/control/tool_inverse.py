"""How the joints move for the tool to move: damped inverses, the position first.

The way from a wished twist to joint velocities is that of task priority with damped inverses: the position first, the
rotation with what freedom that leaves, and the rest of the freedom rests, so that the posture stays near the present
one (Siciliano and Slotine 1991, "A general framework for managing multiple tasks in highly redundant robotic
systems"). An arm of fewer than six joints meets every position that it can reach, and of the rotation what is left.

An inverse is damped where a singular value s falls below e: s / e² in place of 1 / s (numerical filtering,
Maciejewski and Klein 1988, "Numerical filtering for the operation of robotic manipulators through kinematically
singular configurations"). It is continuous, never more than 1 / e, and goes to 0 with s: near a singularity the tool
slows down, the joints do not speed up.
"""

import numpy as np

_NEAR_POSITION = 0.05  # singular values below this share of the arm's length are damped, m/rad
_NEAR_ROTATION = 0.1  # and of the rotation below this
_FREE = 0.01  # singular values of the position below this share of the length are left to the rotation
_MISSED = 1e-3  # m and rad that the arm may miss without being damped for it


class Inverse:
    """Of an arm with n joints and a Jacobian (6, n).

    Attributes:
        length: m, of the arm: what its singular values are compared with.
    """

    length: float

    def way(self, jacobian: np.ndarray, left: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """(n,) how far the joints go for a (6,) displacement of the tool, m and rad.

        What the arm cannot do of it bends the way it can go, the more the less singular values hold against it: they
        are damped by as much (after Sugihara 2011, "Solvability-unconcerned inverse kinematics by the
        Levenberg-Marquardt method"). Otherwise an arm before a target out of its reach would swing to and fro.
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
        """(n,) what the joints contribute to a (6,) twist, or displacement, of the tool.

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
    """The damped inverse (m, 3) of (3, m), and the projector (m, m) onto what it leaves free: directions whose
    singular values are below `free`, the more the further below."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    gain, taken = s / np.maximum(s * s, least * least), np.minimum(s / free, 1.0) ** 2
    return v.T @ (gain[:, None] * u.T), np.eye(matrix.shape[1]) - v.T @ (taken[:, None] * v)
