"""The arm that carries the tool: where the tool is, and how the joints move it (pinocchio over the robot's URDF)."""

from pathlib import Path

import numpy as np

from vla_ros.control.kinematics import MOVING, Kinematics, TreeJoint
from vla_ros.control.limits import Limits
from vla_ros.control.tool_inverse import Inverse
from vla_ros.control.urdf import MOST_BYTES
from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import read_bytes
from vla_ros.core.missing import what_to_install
from vla_ros.core.tool import Tool

_LONGEST = 100.0  # m of links


class ToolArm(Inverse):
    """Kinematics of the tool and the joints that move it.

    Attributes:
        columns: (n,) int, which of the limits' J joints move the tool, from the base on.
        names: of these joints.
        lower, upper, fastest, acceleration: (n,) their limits, rad or m (per s, per s²).
        instead: joints that the tool is commanded in place of: none here, since joints are commanded.
        together: columns that brake together (`Limiter.together`), so that the tool stays on its path.
    """

    adrift = False  # see `PoseArm`

    def __init__(self, tool: Tool, source: str | Path, limits: Limits) -> None:
        """`source`: a URDF file, or the text itself. Raises InputError if they do not fit, or without pinocchio."""
        try:
            import pinocchio  # imported here: robots without end-effector actions do not need it
        except ImportError as error:
            raise InputError(f"tool: {what_to_install(error) or error}") from None
        tree = Kinematics(source)
        self.tool, self.names = tool, _between(tree, tool, limits)
        self.columns = np.array([limits.names.index(name) for name in self.names])
        self.instead, self.together = (), ((self.columns, np.inf),)
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
        chain = joints_between(tree, tool)
        self.length = sum(float(np.linalg.norm(joint.origin[:3, 3])) for joint in chain) or 1.0  # m
        if not self.length <= _LONGEST:
            raise InputError(f"tool: {self.length:.4g} m of links from {tool.frame} to {tool.link}, expected at most "
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


def joints_between(tree: Kinematics, tool: Tool) -> list[TreeJoint]:
    """The joints from `frame` to `link`. Raises InputError if there is no such chain."""
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
    moving = [joint for joint in joints_between(tree, tool) if joint.kind in MOVING]
    for joint in moving:
        if joint.mimic is not None or joint.name not in limits.names:
            raise InputError(f"tool: the URDF's joint {shown(joint.name)} moves it and is "
                             f"{'a mimic joint' if joint.mimic else 'not in the robot file'}, expected joints of the "
                             f"robot file only: {list(limits.names)}")
        if limits.discrete[limits.names.index(joint.name)]:
            raise InputError(f"tool: joint {joint.name} moves it and is discrete, expected one that moves smoothly")
    if not moving:
        raise InputError(f"tool: no joint moves link {shown(tool.link)} in {shown(tool.frame)}, expected at least one")
    return tuple(joint.name for joint in moving)
