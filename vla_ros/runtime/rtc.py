"""Real-time chunking: the tail that a new chunk must agree with.

Source: Black, Galliker, Levine, "Real-Time Execution of Action Chunking Flow Policies" (2025). While the policy
computes, the robot goes on with the last chunk; the first `d` rows of the new one are gone by the time it arrives
and are frozen to what was executed, the rest of the overlap is guided towards it, less and less.
"""

import math
from collections import deque
from dataclasses import replace

import numpy as np
from torch import Tensor

from vla_ros.core.chunk import Space, Targets
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.processor import Processor


class RunningChunk:
    """The last chunk of an episode and the delays that really passed.

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

    def tail(self, sample: Sample) -> tuple[Tensor, int, int] | None:
        """What the chunk of a new observation must agree with: (H, D) normalised actions, the rows that are frozen and
        the rows that overlap; None when nothing of the running chunk is left.

        The tail is rebuilt from the targets with the new state, so that policies of actions relative to the
        state are conditioned on the same motion. A row holds for step_dt, the last one too. Rows that do not survive
        the way into the policy's space end the overlap.

        Raises InputError for targets that are not joint positions.
        """
        if self._targets is None or sample.stamp_ns < self._stamp_ns:
            return None
        horizon = self._targets.horizon
        begin = (sample.stamp_ns - self._stamp_ns) / 1e9 / self._processor.step_dt  # rows, with a fraction
        overlap = math.ceil(horizon - begin - 1e-6)
        if overlap < 1:
            return None
        times, rows = begin + np.arange(horizon), np.arange(horizon)
        parts = []
        for part in self._targets.parts:
            if part.space != Space.JOINT_POSITION:
                raise InputError(f"real-time chunking: {list(part.names)} are {part.space.name}, expected joint "
                                 "positions; use another blending mode of the executor")
            columns = [np.interp(times, rows, column) for column in part.data.T]
            parts.append(replace(part, data=np.stack(columns, axis=1)))
        actions, survives = self._processor.normalise([Targets(tuple(parts))], [sample])
        overlap = min(overlap, int(survives[0].long().cumprod(0).sum()))
        return actions[0], math.ceil(max(self._delays) / self._processor.step_dt), overlap
