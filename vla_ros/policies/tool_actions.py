"""Actions that are poses of a tool, or differences of its pose, and states that contain it, as a policy file describes
them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from vla_ros.control.kinematics import MOVING, Kinematics
from vla_ros.core.chunk import Part, Space, Targets
from vla_ros.core.errors import InputError, shown
from vla_ros.core.rotations import SIZES, check_form, from_matrix
from vla_ros.core.tool import pose_names
from vla_ros.policies.dimension import Dimension

SPACES = {"pose": Space.END_EFFECTOR_POSE, "delta": Space.END_EFFECTOR_DELTA}
# Of the seven dimensions of an end effector's difference: m, rad, and an opening (1: open).
END_EFFECTOR = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
NO_TOOL = (
    "its actions are differences of the end effector's pose: `tool` of a policy file says how (frame, rotation), or, "
    "if they are joints, overrides.space: joint_position"
)


@dataclass(frozen=True)
class ToolActions:
    """Which of the policy's action dimensions are the tool's: x, y, z, then the rotation; m and rad except for `scale`
    and
    `offset` of the dimensions.

    Attributes:
        space: "pose", or "delta": difference to the row before; for the first row, to the pose at the observation.
        rotation: form of the rotation, see below.
        frame: link of the robot's URDF in whose frame the values are; for differences it may be the tool's own link.
        first: index, from 0, of the first dimension of the tool in `actions`, which has `joint: null` for all of them.
    """

    space: str
    rotation: str
    frame: str
    first: int = 0

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise InputError(f"space {shown(self.space)}, expected one of {sorted(SPACES)}")
        check_form(self.rotation)

    @property
    def columns(self) -> range:
        return range(self.first, self.first + 3 + SIZES[self.rotation])

    def check(self, actions: Sequence[Dimension]) -> None:
        """Raises InputError unless these action dimensions leave room for the tool's."""
        check_room("tool", "actions", self.columns, actions)

    def part(self, rows: np.ndarray, actions: Sequence[Dimension]) -> Part:
        """The tool's part of (H, A) actions; `actions` gives the policy's units."""
        values = np.stack([actions[i].to_robot(rows[:, i]) for i in self.columns], axis=-1)
        return Part(pose_names(self.rotation), values, SPACES[self.space], "", self.frame)

    def named(self, actions: Sequence[Dimension]) -> list[Dimension]:
        """The same, but the tool's dimensions have the names of a pose's columns as joint."""
        names = dict(zip(self.columns, pose_names(self.rotation), strict=True))
        return [replace(d, joint=names.get(i, d.joint)) for i, d in enumerate(actions)]

    def to_policy(self, rows: np.ndarray, actions: Sequence[Dimension]) -> np.ndarray:
        """(..., 3 + n) in m and rad to the policy's units, given by `actions`: the inverse of `part`."""
        return np.stack([actions[i].to_policy(rows[..., k]) for k, i in enumerate(self.columns)], axis=-1)


@dataclass(frozen=True)
class ToolState:
    """Which of the policy's state dimensions are the tool's pose, by forward kinematics from the measured joints.

    Attributes:
        urdf: file of the robot's URDF.
        link: link of the URDF whose frame is the tool's.
        frame: link of the URDF in whose frame the pose is.
        rotation: form of the rotation, see above.
        first: index, from 0, of the first dimension of the tool in `state`: x, y, z, then the rotation, in m and rad
            before `scale` and `offset` are applied; `state` has `joint: null` for all of them.
    """

    urdf: str
    link: str
    frame: str
    rotation: str
    first: int = 0

    def __post_init__(self) -> None:
        check_form(self.rotation)

    @property
    def columns(self) -> range:
        return range(self.first, self.first + 3 + SIZES[self.rotation])

    def check(self, state: Sequence[Dimension], joints: Sequence[str]) -> None:
        """Raises InputError unless these state dimensions leave room, and the joints say where the tool is."""
        check_room("tool_state", "state", self.columns, state)
        tree = _tree(self.urdf)
        above = {joint.child: joint for joint in tree.joints}
        for link in (self.link, self.frame):
            if link not in above and link != tree.root:
                raise InputError(f"tool_state: link {shown(link)}, expected one of {self.urdf}: "
                                 f"{shown(sorted({tree.root, *above}))}")
        link = self.link
        while link != self.frame:
            if link not in above:
                raise InputError(f"tool_state: frame {shown(self.frame)} does not carry link {shown(self.link)}")
            joint = above[link]
            if joint.kind in MOVING and joint.name not in joints:
                raise InputError(f"tool_state: joint {shown(joint.name)} of {self.urdf} moves it, expected one of the "
                                 f"policy file's: {list(joints)}")
            link = joint.parent

    def pose(self, positions: np.ndarray, joints: Sequence[str], state: Sequence[Dimension]) -> np.ndarray:
        """(..., 3 + n), in the policy's units, given by `state`, from (..., J) joint positions, rad or m."""
        known = {name: positions[..., i] for i, name in enumerate(joints)}
        found = _tree(self.urdf).pose(self.link, self.frame, known)
        values = np.concatenate([found[..., :3, 3], from_matrix(found[..., :3, :3], self.rotation)], axis=-1)
        return np.stack([state[i].to_policy(values[..., n]) for n, i in enumerate(self.columns)], axis=-1)


def differences(rows: np.ndarray) -> list[Targets]:
    """(B, H, A) differences of an end effector's pose that no policy file's `tool` describes."""
    width = rows.shape[-1]
    names = END_EFFECTOR if width == len(END_EFFECTOR) else tuple(f"action_{i}" for i in range(width))
    return [Targets((Part(names, row, Space.END_EFFECTOR_DELTA),)) for row in rows]


@cache
def _tree(urdf: str) -> Kinematics:
    return Kinematics(urdf)


def check_room(what: str, where: str, columns: range, dimensions: Sequence[Dimension]) -> None:
    """Raises InputError unless these columns are dimensions of no joint."""
    taken = [dimensions[i].joint for i in columns if 0 <= i < len(dimensions) and dimensions[i].joint is not None]
    if columns.start < 0 or columns.stop > len(dimensions) or taken:
        words = f", of which {taken} are joints" if taken else ""
        raise InputError(f"{what}: dimensions {columns.start} to {columns.stop - 1} of `{where}`, which has "
                         f"{len(dimensions)}{words}; expected dimensions of `{where}` that are `joint: null`")
    for i in columns:
        if dimensions[i].mode != "absolute" or dimensions[i].linkage:
            said = "a linkage" if dimensions[i].linkage else f"mode {dimensions[i].mode}"
            why = "" if what == "path" else ": `space` of `tool` says whether actions are differences"
            raise InputError(f"{what}: {where}[{i}] has {said}, expected scale and offset at most{why}")
