"""The arm that carries the tool: where the tool is, and how the joints move it (pinocchio over the robot's URDF).

The way from a wished twist to joint velocities is that of task priority with damped inverses: the position first, the
rotation with what freedom that leaves, and the rest of the freedom rests, so that the posture stays near the present
one (Siciliano and Slotine 1991, "A general framework for managing multiple tasks in highly redundant robotic
systems"). An arm of fewer than six joints meets every position that it can reach, and of the rotation what is left.

An inverse is damped where a singular value s falls below e: s / e² in place of 1 / s (numerical filtering,
Maciejewski and Klein 1988, "Numerical filtering for the operation of robotic manipulators through kinematically
singular configurations"). It is continuous, never more than 1 / e, and goes to 0 with s: near a singularity the tool
slows down, the joints do not speed up.
"""

from pathlib import Path

import numpy as np

from vla_ros.control.kinematics import MOVING, Kinematics
from vla_ros.control.limits import Limits
from vla_ros.control.urdf import MOST_BYTES
from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import read_bytes
from vla_ros.core.missing import what_to_install
from vla_ros.core.tool import Tool

_NEAR_POSITION = 0.05  # singular values below this share of the arm's length are damped, m/rad
_NEAR_ROTATION = 0.1  # and of the rotation below this
_FREE = 0.01  # singular values of the position below this share of the length are left to the rotation
_LONGEST = 100.0  # m of links
_MISSED = 1e-3  # m and rad that the arm may miss without being damped for it


class ToolArm:
    """Kinematics of the tool and the joints that move it.

    Attributes:
        columns: (n,) int, which of the limits' J joints move the tool, from the base on.
        names: of these joints.
        lower, upper, fastest, acceleration: (n,) their limits, rad or m (per s, per s²).
    """

    def __init__(self, tool: Tool, source: str | Path, limits: Limits) -> None:
        """`source`: a URDF file, or the text itself. Raises InputError where they do not fit, or without pinocchio."""
        try:
            import pinocchio  # here: robots that take no end-effector actions do without it
        except ImportError as error:
            raise InputError(f"tool: {what_to_install(error) or error}") from None
        tree = Kinematics(source)
        self.tool, self.names = tool, _between(tree, tool, limits)
        self.columns = np.array([limits.names.index(name) for name in self.names])
        text = str(source) if "<robot" in str(source) else read_bytes(source, "URDF", MOST_BYTES).decode("utf-8")
        try:
            self._model = pinocchio.buildModelFromXML(text)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"tool: pinocchio does not read the URDF: {' '.join(str(error).split())[:300]}") from None
        self._pin, self._data = pinocchio, self._model.createData()
        body = pinocchio.FrameType.BODY  # a joint may have a link's name
        self._link, self._frame = (self._model.getFrameId(name, body) for name in (tool.link, tool.frame))
        joints = [self._model.joints[self._model.getJointId(name)] for name in self.names]
        self._velocities = np.array([joint.idx_v for joint in joints])
        self._places = [(joint.idx_q, joint.nq == 2) for joint in joints]  # cosine and sine of a continuous joint
        self._rest = pinocchio.neutral(self._model)
        self.lower, self.upper = limits.lower[self.columns], limits.upper[self.columns]
        self.fastest, self.acceleration = limits.velocity[self.columns], limits.acceleration[self.columns]
        self._length = sum(float(np.linalg.norm(joint.origin[:3, 3])) for joint in _chain(tree, tool)) or 1.0  # m
        if not self._length <= _LONGEST:
            raise InputError(f"tool: {self._length:.4g} m of links from {tool.frame} to {tool.link}, expected at most "
                             f"{_LONGEST:g} m: a URDF is in m")

    def pose(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(3,) m and the (3, 3) rotation of the tool in its `frame`, for (J,) positions of the robot, rad or m."""
        q = self._rest.copy()
        for value, (place, continuous) in zip(position[self.columns], self._places, strict=True):
            if continuous:
                q[place], q[place + 1] = np.cos(value), np.sin(value)
            else:
                q[place] = value
        self._pin.computeJointJacobians(self._model, self._data, q)
        self._pin.updateFramePlacements(self._model, self._data)
        found = self._data.oMf[self._frame].actInv(self._data.oMf[self._link])
        return np.array(found.translation), np.array(found.rotation)

    def turn(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(3,) rotation vector, rad in the frame of both, that takes one (3, 3) rotation to another."""
        return self._pin.log3(second @ first.T)

    def placed(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`pose`, and the (6, n) Jacobian: m/s and rad/s of the tool, along and about the axes of `frame`."""
        place, rotation = self.pose(position)
        world = self._pin.getFrameJacobian(
            self._model, self._data, self._link, self._pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
        )[:, self._velocities]
        turn = np.array(self._data.oMf[self._frame].rotation).T
        return place, rotation, np.concatenate([turn @ world[:3], turn @ world[3:]])

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
        return self.resolve(jacobian, left, low, high, (position * self._length, rotation))

    def resolve(
        self, jacobian: np.ndarray, twist: np.ndarray, low: np.ndarray, high: np.ndarray,
        more: tuple[float, float] = (0.0, 0.0),
    ) -> np.ndarray:
        """(n,) what the joints contribute to a (6,) twist, or displacement, of the tool.

        A joint that would leave `low` to `high` (n,) stops there, and the others make up for it where they can.
        `more`: damping to add for position and rotation, squares of singular values.
        """
        least = np.sqrt([(_NEAR_POSITION * self._length) ** 2 + more[0], _NEAR_ROTATION**2 + more[1]])
        free, found = np.ones(len(low), dtype=bool), np.zeros(len(low))
        for _ in low:
            left = twist - jacobian[:, ~free] @ found[~free]
            found[free] = _prioritised(jacobian[:, free], left, _FREE * self._length, *least)
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


def _chain(tree: Kinematics, tool: Tool) -> list:
    """The joints from `frame` to `link`. Raises InputError where there is no such way."""
    above = {joint.child: joint for joint in tree.joints}
    for name in (tool.link, tool.frame):
        if name not in above and name != tree.root:
            known = shown(sorted({tree.root, *above}))
            raise InputError(f"tool: link {shown(name)}, expected one of the URDF's: {known}")
    found, link = [], tool.link
    while link != tool.frame:
        if link not in above:
            raise InputError(f"tool: frame {shown(tool.frame)} does not carry link {shown(tool.link)}, expected one "
                             f"between the URDF's root {shown(tree.root)} and it")
        found.insert(0, above[link])
        link = above[link].parent
    return found


def _between(tree: Kinematics, tool: Tool, limits: Limits) -> tuple[str, ...]:
    """Names of the moving joints between frame and tool. Raises InputError for one that is not the robot's own."""
    moving = [joint for joint in _chain(tree, tool) if joint.kind in MOVING]
    for joint in moving:
        if joint.mimic is not None or joint.name not in limits.names:
            raise InputError(f"tool: the URDF's joint {shown(joint.name)} moves it and is "
                             f"{'a mimic joint' if joint.mimic else 'not in the robot file'}, expected joints of the "
                             f"robot file alone: {list(limits.names)}")
        if limits.discrete[limits.names.index(joint.name)]:
            raise InputError(f"tool: joint {joint.name} moves it and is discrete, expected one that glides")
    if not moving:
        raise InputError(f"tool: no joint moves link {shown(tool.link)} in {shown(tool.frame)}, expected at least one")
    return tuple(joint.name for joint in moving)
