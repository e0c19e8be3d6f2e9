"""A chunk of actions: a stretch of time, not a list."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Space(IntEnum):
    """What the dimensions of a chunk are; the values equal the constants of ActionChunk.msg."""

    JOINT_POSITION = 0
    END_EFFECTOR_POSE = 1
    END_EFFECTOR_DELTA = 2
    JOINT_DELTA = 3


@dataclass(frozen=True)
class Part:
    """Targets of one kind: of some joints, of a hand that moves in space, of a base.

    Attributes:
        names: d names of the columns; joint names in joint space.
        data: (H, d) float64, rad or m in joint space.
        space: what the columns are.
        group: the command group that they are for; "" in joint space, where the joints say it.
        frame: the frame of spatial values (REP-103); "" in joint space.
    """

    names: tuple[str, ...]
    data: np.ndarray
    space: Space = Space.JOINT_POSITION
    group: str = ""
    frame: str = ""


@dataclass(frozen=True)
class Targets:
    """What a policy asks for: parts of the same H rows. A joint in no part keeps its last command."""

    parts: tuple[Part, ...]

    @property
    def horizon(self) -> int:
        return len(self.parts[0].data)

    def joint_positions(self, names: Sequence[str], rest: np.ndarray) -> np.ndarray:
        """(H, J) positions of the joints `names`, rad or m; joints that no part speaks of stay at `rest` (J,)."""
        rows = np.tile(np.asarray(rest, dtype=np.float64), (self.horizon, 1))
        for part in self.parts:
            if part.space == Space.JOINT_POSITION:
                for column, name in enumerate(part.names):
                    rows[:, list(names).index(name)] = part.data[:, column]
        return rows


@dataclass(frozen=True)
class ActionChunk:
    """Targets for the instants `stamp_ns + k * step_dt`, k = 0 .. H-1.

    Attributes:
        stamp_ns: time of the observation the chunk was computed from, ns on the ROS clock.
        step_dt: time between rows, s.
        names: D dimension names; joint names in joint space.
        data: (H, D) float64, rad or m in joint space.
        instruction_id: `core.instruction.instruction_id` of the instruction it follows, 0 = none.
        sequence: counts up by one for each chunk of a session.
        session: identity of the policy's activation; sequences of two sessions are not comparable.
        inference_time: how long the policy took, s.
    """

    stamp_ns: int
    step_dt: float
    names: tuple[str, ...]
    data: np.ndarray
    instruction_id: int = 0
    sequence: int = 0
    session: int = 0
    inference_time: float = 0.0
    space: Space = Space.JOINT_POSITION

    @property
    def horizon(self) -> int:
        return self.data.shape[0]
