"""The status of the executor; the fields of ExecutorStatus.msg."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla_ros.control.supervisor import Cause, State


@dataclass(frozen=True)
class Seen:
    """The newest chunk that arrived, accepted or refused."""

    session: int
    sequence: int
    stamp_ns: int
    arrival_ns: int

    @property
    def latency(self) -> float:
        """s from the stamp to the arrival."""
        return (self.arrival_ns - self.stamp_ns) * 1e-9


@dataclass(frozen=True)
class Status:
    """A snapshot. `position`, `velocity`, `measured`: (J,) rad or m (per s), NaN where not known.

    `limited`: joints held back by a limit since `Executor.begin_interval`, `limits`: which one (`Limits.binding`);
    `lateness`: worst tick since then, s.
    `taken_over_by`: who commands in place of the policy, or "".
    `deviation` (rad or m), `reversals` (1/s), `limited_share` (0 to 1): (J,) and `progress_age` (s) as in `Monitor`.
    """

    stamp_ns: int
    state: State
    cause: Cause
    message: str
    mode: str
    taken_over_by: str
    instruction: str
    instruction_id: int
    names: tuple[str, ...]
    position: np.ndarray
    velocity: np.ndarray
    measured: np.ndarray
    limited: tuple[str, ...]
    limits: tuple[str, ...]
    deviation: np.ndarray
    reversals: np.ndarray
    limited_share: np.ndarray
    progress_age: float
    live_chunks: int
    seen: Seen | None
    chunk_age: float
    ticks: int
    accepted_chunks: int
    refused: Mapping[str, int]
    last_refusal: str
    control_rate: float
    lateness: float
    overruns: int
