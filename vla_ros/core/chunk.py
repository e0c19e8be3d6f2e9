"""A chunk of actions: targets over an interval of time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from vla_ros.core.errors import InputError


class Space(IntEnum):
    """What the columns of a part mean; the values equal the constants of ActionPart.msg."""

    JOINT_POSITION = 0
    END_EFFECTOR_POSE = 1
    END_EFFECTOR_DELTA = 2
    JOINT_DELTA = 3
    BASE_PATH = 4


JOINT_SPACES = (Space.JOINT_POSITION, Space.JOINT_DELTA)
PATH = ("x", "y", "yaw")  # columns of BASE_PATH, m and rad, relative to the pose of the base at the stamp
SPATIAL = (Space.END_EFFECTOR_POSE, Space.END_EFFECTOR_DELTA)  # with the columns of `core.tool.pose_names`


@dataclass(frozen=True)
class Part:
    """Targets of one kind: of some joints, of an end effector, of a base."""

    names: tuple[str, ...]  # of the d columns; joint names in joint space
    data: np.ndarray  # (H, d) float64, rad or m in joint space
    space: Space = Space.JOINT_POSITION  # what the columns are
    group: str = ""  # the command group that they are for; "" in joint space, where the joint names identify it
    frame: str = ""  # of spatial values (REP-103); "" in joint space


@dataclass(frozen=True)
class Targets:
    """What a policy asks for: parts with the same number of rows H. A joint in no part keeps its last command."""

    parts: tuple[Part, ...]

    @property
    def horizon(self) -> int:
        return len(self.parts[0].data)

    @property
    def spatial(self) -> Part | None:
        """The first part of an end effector, or None."""
        return next((part for part in self.parts if part.space in SPATIAL), None)

    @property
    def path(self) -> Part | None:
        """The part with a path of the base, or None."""
        return next((part for part in self.parts if part.space == Space.BASE_PATH), None)

    def joint_positions(self, names: Sequence[str], rest: np.ndarray) -> np.ndarray:
        """(H, J) positions of the joints `names`, rad or m; joints in no part stay at `rest` (J,)."""
        rows = np.tile(np.asarray(rest, dtype=np.float64), (self.horizon, 1))
        for part in self.parts:
            if part.space == Space.JOINT_POSITION:
                for column, name in enumerate(part.names):
                    rows[:, list(names).index(name)] = part.data[:, column]
        return rows


class MalformedChunk(InputError):
    """A chunk that is inconsistent in itself. `reason`: "space", "names", "shape", "non_finite" or "step_dt"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"chunk: {message}")
        self.reason = reason


@dataclass(frozen=True)
class ActionChunk:
    """Targets for the instants `stamp_ns + k * step_dt`, k = 0 .. H-1; each holds for `step_dt`.

    Raises MalformedChunk unless parts, names, shapes, numbers and step_dt are sound.
    """

    stamp_ns: int  # time of the observation that it was computed from, ns on the ROS clock
    step_dt: float  # s between rows
    targets: Targets  # H rows
    instruction_id: int = 0  # `core.instruction.instruction_id` of the instruction that it follows, 0 = none
    sequence: int = 0  # counts up by one for each chunk of a session
    session: int = 0  # identity of the policy's activation; sequences of two sessions are not comparable
    inference_time: float = 0.0  # s, inference time of the policy

    def __post_init__(self) -> None:
        parts = self.targets.parts
        if not parts or not all(part.names for part in parts):
            raise MalformedChunk("names", "no parts or a part without names, expected one name or more in each")
        for (_, name), count in Counter((part.group, name) for part in parts for name in part.names).items():
            if count > 1:
                raise MalformedChunk("names", f"name {name!r} is duplicated, expected once")
        for part in parts:
            if part.space in JOINT_SPACES and (part.group or part.frame):
                what = f"group {part.group!r} and frame {part.frame!r} in joint space"
                raise MalformedChunk("space", f"{what}, expected both empty: the joint names identify it")
            if part.data.shape != (self.horizon, len(part.names)) or not self.horizon:
                words = f"{part.data.shape}, expected one row or more, as many as {parts[0].names[0]} has, x "
                raise MalformedChunk("shape", f"part of {part.names[0]}: {words}{len(part.names)} names")
            if not np.isfinite(part.data).all():
                row, column = np.argwhere(~np.isfinite(part.data))[0]
                words = f"{part.names[column]}, row {row}: {part.data[row, column]}, expected a finite number"
                raise MalformedChunk("non_finite", words)
        if not 0 < self.step_dt < np.inf:
            raise MalformedChunk("step_dt", f"step_dt {self.step_dt} s, expected a positive number")

    @property
    def horizon(self) -> int:
        return self.targets.horizon

    @property
    def duration(self) -> float:
        """s from the stamp to the end of the last row."""
        return self.horizon * self.step_dt
