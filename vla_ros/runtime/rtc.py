"""Real-time chunking: the tail that a new chunk must agree with.

Source: Black, Galliker, Levine, "Real-Time Execution of Action Chunking Flow Policies" (2025). While the policy
computes, the robot goes on with the last chunk; the first `d` rows of the new one are gone by the time it arrives
and are frozen to what was executed, the rest of the overlap is guided towards it, less and less.
"""

from collections import deque

import numpy as np
import torch

from vla_ros.core.chunk import Part, Targets
from vla_ros.core.observation import Sample
from vla_ros.policies.policy import Prior
from vla_ros.policies.processor import Processor


def prior_weights(horizon: int, delay: int, overlap: int) -> np.ndarray:
    """(H,) guidance weights: 1 before row `delay`, then falling exponentially, 0 from row `overlap` on.

    With E = `overlap` and c = (E - i) / (E - d + 1): W_i = c (e^c - 1) / (e - 1) for d <= i < E.
    """
    rows = np.arange(horizon, dtype=np.float64)
    delay = min(delay, overlap)
    c = np.clip((overlap - rows) / (overlap - delay + 1), 0.0, 1.0)
    weights = c * np.expm1(c) / np.expm1(1.0)
    weights[rows < delay] = 1.0
    weights[rows >= overlap] = 0.0
    return weights


class RealTimeChunking:
    """Remembers the last chunk and the delays that really passed, and makes the prior of the next chunk.

    Args:
        processor: of the policy; turns joint targets into the policy's normalised space.
        window: measured delays that are remembered; the largest of them is expected for the next chunk.
    """

    def __init__(self, processor: Processor, window: int = 10) -> None:
        self._processor = processor
        self._delays: deque[float] = deque(maxlen=window)
        self.reset()

    def reset(self) -> None:
        """Forget the last chunk: after a change of the instruction or a pause. Delays are kept."""
        self._stamp_ns: int | None = None
        self._actions: np.ndarray | None = None

    def remember(self, stamp_ns: int, actions: np.ndarray, delay: float) -> None:
        """Keep a chunk that was published.

        Args:
            stamp_ns: of its observation.
            actions: (H, J) absolute joint targets, rad or m.
            delay: s from the observation to the chunk's publication.
        """
        self._stamp_ns, self._actions = stamp_ns, actions
        self._delays.append(max(delay, 0.0))

    def prior(self, stamp_ns: int, state: np.ndarray) -> Prior | None:
        """What the chunk of an observation at `stamp_ns` must agree with; None when nothing of it is left.

        The tail is rebuilt from absolute joint targets with the new state, so that policies which speak in
        differences to the state are conditioned on the same motion.

        Args:
            state: (J,) joint positions of the new observation, rad or m.
        """
        if self._stamp_ns is None or stamp_ns < self._stamp_ns:
            return None
        horizon = len(self._actions)
        begin = (stamp_ns - self._stamp_ns) / 1e9 / self._processor.step_dt  # rows, with a fraction
        overlap = int(np.floor(horizon - 1 - begin)) + 1  # rows of the new chunk that the old one covers
        if overlap < 1:
            return None
        times = np.minimum(begin + np.arange(horizon), horizon - 1.0)
        rows = np.arange(horizon)
        tail = np.stack([np.interp(times, rows, column) for column in self._actions.T], axis=1)
        delay = int(np.ceil(max(self._delays) / self._processor.step_dt))
        weights = prior_weights(horizon, delay, overlap)
        targets = Targets((Part(self._processor.joints, tail),))
        actions, _ = self._processor.normalise([targets], [Sample({}, state[None], "")])
        return Prior(actions=actions, weights=torch.as_tensor(weights, dtype=torch.float32)[None])
