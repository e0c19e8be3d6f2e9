"""Actions that are poses of a tool, or differences of its pose, as a policy file says them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.core.chunk import Part, Space
from vla_ros.core.errors import InputError, shown
from vla_ros.core.rotations import SIZES, check_form
from vla_ros.core.tool import pose_names
from vla_ros.policies.dimension import Dimension

SPACES = {"pose": Space.END_EFFECTOR_POSE, "delta": Space.END_EFFECTOR_DELTA}


@dataclass(frozen=True)
class ToolActions:
    """Which of the policy's action dimensions are the tool's: x, y, z in m, then the rotation.

    Attributes:
        space: "pose", or "delta": a row's difference to the row before, of the first row to the observed pose.
        rotation: form of the rotation, of `core.rotations`.
        frame: link of the robot's URDF in whose frame they are; of differences also the tool's own link.
        first: number of the first of them; where they stand, `actions` has dimensions without a joint.
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
        columns = self.columns
        taken = [actions[i].joint for i in columns if 0 <= i < len(actions) and actions[i].joint is not None]
        if self.first < 0 or columns.stop > len(actions) or taken:
            words = f", of which {taken} are joints" if taken else ""
            raise InputError(f"tool: dimensions {columns.start} to {columns.stop - 1} of {len(actions)} actions{words};"
                             " expected dimensions of `actions` that are `joint: null`")

    def part(self, rows: np.ndarray) -> Part:
        """The tool's part of (H, A) actions in the policy's units."""
        values = rows[:, self.columns.start : self.columns.stop]
        return Part(pose_names(self.rotation), values, SPACES[self.space], "", self.frame)
