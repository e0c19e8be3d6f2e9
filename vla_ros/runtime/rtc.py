"""Real-time chunking: the tail that a new chunk must agree with.

Source: Black, Galliker, Levine, "Real-Time Execution of Action Chunking Flow Policies" (2025). While the policy
computes, the robot continues with the last chunk; the first `d` rows of the new one will have passed when it arrives,
so they are frozen to what was executed, and the rest of the overlap is guided towards it with decreasing weight.
"""

import math
from collections import deque
from dataclasses import replace

import numpy as np
from torch import Tensor

from vla_ros.core.chunk import Part, Space, Targets
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.core.tool import POSITION
from vla_ros.policies.processor import Processor

_JUMP = 1.0  # of a value of a rotation, rad or of a unit vector: no tool turns so far within a row


class RunningChunk:
    """The last chunk of an episode, and the measured delays.

    Args:
        processor: of the policy; turns targets into the policy's normalised space.
        window: measured delays that are remembered; the largest of them is expected for the next chunk.
    """

    def __init__(self, processor: Processor, window: int = 10) -> None:
        self._processor = processor
        self._delays: deque[float] = deque(maxlen=window)
        self.reset()

    def reset(self) -> None:
        """Forget the chunk; delays are kept."""
        self._stamp_ns, self._targets = 0, None

    def remember(self, stamp_ns: int, targets: Targets, delay: float) -> None:
        """Keep a chunk that was published.

        Args:
            stamp_ns: of its observation.
            targets: H rows.
            delay: s from the observation to the chunk's publication.
        """
        self._stamp_ns, self._targets = stamp_ns, targets
        self._delays.append(max(delay, 0.0))

    def ahead(self, sample: Sample) -> tuple[float, np.ndarray] | None:
        """Where the chunk will have led by the time that an answer to a new observation may be there: s from the
        observation, the shortest of the recent delays, and (J,) how far its rows move the joints meanwhile, rad or m.

        None when nothing of the running chunk is left then. It is the difference of two rows and not the later one: a
        joint that lags goes on lagging. Raises InputError for targets that are no joint positions.
        """
        if self._targets is None or sample.stamp_ns < self._stamp_ns:
            return None
        lead = min(self._delays)
        times = np.array([sample.stamp_ns - self._stamp_ns, sample.stamp_ns - self._stamp_ns + lead * 1e9])
        times /= 1e9 * self._processor.step_dt
        if times[1] > self._targets.horizon:
            return None
        names, moved = list(self._processor.joints), np.zeros(len(self._processor.joints))
        for part in self._targets.parts:
            if part.space != Space.JOINT_POSITION:
                raise InputError(f"roll_state: {list(part.names)} are {part.space.name}, expected joint positions; use "
                                 "roll_state: false")
            moved[[names.index(name) for name in part.names]] = np.diff(_at(part, times), axis=0)[0]
        return lead, moved

    def tail(self, sample: Sample) -> tuple[Tensor, int, int] | None:
        """What the chunk of a new observation must agree with: (H, D) normalised actions, the rows that are frozen and
        the rows that overlap; None when nothing of the running chunk is left.

        The tail is rebuilt from the targets with the new state, so that policies of actions relative to the
        state are conditioned on the same motion. A row is valid for step_dt, also the last one. Rows that cannot be
        converted exactly to the policy's space end the overlap.

        Raises InputError for targets that are neither joint positions nor poses of a tool.
        """
        if self._targets is None or sample.stamp_ns < self._stamp_ns:
            return None
        horizon = self._targets.horizon
        begin = (sample.stamp_ns - self._stamp_ns) / 1e9 / self._processor.step_dt  # rows, with a fraction
        overlap = math.ceil(horizon - begin - 1e-6)
        if overlap < 1:
            return None
        times = begin + np.arange(horizon)
        parts = []
        for part in self._targets.parts:
            if part.space not in (Space.JOINT_POSITION, Space.END_EFFECTOR_POSE):
                raise InputError(f"real-time chunking: {list(part.names)} are {part.space.name}, expected joint "
                                 "positions or poses; use another blending mode of the executor")
            parts.append(replace(part, data=_at(part, times)))
        actions, survives = self._processor.normalise([Targets(tuple(parts))], [sample])
        overlap = min(overlap, int(survives[0].long().cumprod(0).sum()))
        return actions[0], math.ceil(max(self._delays) / self._processor.step_dt), overlap


def _at(part: Part, times: np.ndarray) -> np.ndarray:
    """(N, d) interpolated between the rows of a part, at `times` (N,) in rows; constant after the last one.

    Where the numbers of a rotation jump from a row to the next, as angles do at half a turn and quaternions with their
    sign, nothing lies between them: the nearer row counts.
    """
    last = len(part.data) - 1
    values = np.stack([np.interp(times, np.arange(last + 1), column) for column in part.data.T], axis=1)
    if part.space == Space.END_EFFECTOR_POSE:
        before = np.clip(np.floor(times), 0, last).astype(int)
        steps = np.abs(part.data[np.minimum(before + 1, last)] - part.data[before])
        steps[:, [part.names.index(name) for name in POSITION]] = 0.0
        jumps = steps.max(axis=1) > _JUMP
        turns = [i for i, name in enumerate(part.names) if name not in POSITION]
        nearest = part.data[np.clip(np.rint(times), 0, last).astype(int)]
        values[np.ix_(jumps, turns)] = nearest[np.ix_(jumps, turns)]
    return values
