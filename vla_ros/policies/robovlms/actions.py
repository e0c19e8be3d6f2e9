"""Conversion of actions for RoboVLMs' networks, and back.

An action has seven numbers: the difference of the end effector's position and of its rotation (Euler XYZ), each scaled
by the dataset, and a gripper, the last. In training the normalisation, then `mu_law` if `use_mu_law` is set; for
inference in the opposite order. `tcp_rel`, differences in the tool's frame, is refused.

The normalisation is a `policies.normalisation.Normalisation`: for CALVIN `quantiles`, with `norm_min` and `norm_max` as
the quantiles. Actions of Open X-Embodiment are normalised twice, first by the dataset's quantiles and then in this way;
the two maps are combined to one, whose bounds are the values that the first maps to `norm_min` and `norm_max`.
`regular_action` is `mean_std` in the style "openpi". The gripper is not normalised.

If the published code keeps "the last value" of an array (T, 7) under mu-law or mean and deviation, it keeps the last
row; intended, and implemented here, is the gripper of every row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.errors import InputError

BEHIND = 10  # ids between the action tokens and the special ones


@dataclass(frozen=True)
class Discretiser:
    """Actions as tokens: the last ones of the vocabulary before `BEHIND` others and the special ones, counted
    backwards.

    The convention is that of the published code: `bins` edges; the k-th bin has the id end - k and is decoded as its
    centre; a value on the last edge has its own bin, which is decoded as the last but one. The architecture guide's
    convention, floor((a + 1) * (bins - 1) / 2) counted forwards, numbers the same bins from the other end. It is not
    compatible and not implemented, because no published weights use it.

    Attributes:
        bins: their number.
        low, high: values are clipped to these.
        vocabulary: tokens of the tokenizer without added ones.
        special: entries of its special tokens' map, each of a list counted.
    """

    bins: int
    low: float
    high: float
    vocabulary: int
    special: int

    def __post_init__(self) -> None:
        """Raises InputError if the vocabulary is too small for the tokens, or the range of values is empty."""
        if self.bins < 2 or not np.isfinite([self.low, self.high]).all() or self.low >= self.high:
            raise InputError(f"robovlms: {self.bins} bins from {self.low} to {self.high}, expected two or more and "
                             "finite numbers, the first smaller")
        if self.special < 0 or self.first < 0:
            raise InputError(f"robovlms: {self.bins} action tokens before {self.special} special ones and {BEHIND} "
                             f"others, expected a vocabulary of as many, this has {self.vocabulary}")

    @property
    def end(self) -> int:
        """Id after the last action token."""
        return self.vocabulary - self.special - BEHIND

    @property
    def first(self) -> int:
        """Id of the first action token, that of `high`."""
        return self.end - self.bins

    @property
    def _edges(self) -> np.ndarray:
        return np.linspace(self.low, self.high, self.bins)

    def ids(self, actions: Tensor | np.ndarray) -> Tensor:
        """(...) actions to (...) int64 ids, on their device. Compared in float64 whatever their type."""
        values = torch.as_tensor(actions)
        edges = torch.from_numpy(self._edges).to(values.device)
        return self.end - torch.bucketize(values.double().clamp(self.low, self.high), edges, right=True)

    def values(self, ids: Tensor | np.ndarray) -> np.ndarray:
        """(...) ids to (...) float64 centres; ids that are not actions get the nearest bin, as published."""
        centres = (self._edges[:-1] + self._edges[1:]) / 2
        return centres[np.clip(self.end - np.asarray(ids, np.int64) - 1, 0, self.bins - 2)]


def mu_law(actions: np.ndarray, mu: float = 255, inverse: bool = False) -> np.ndarray:
    """Expand small values of (..., D) actions in [-1, 1]: sign(x) log(1 + mu |x|) / log(1 + mu); the last
    dimension, the gripper, is unchanged. (ITU-T G.711.)"""
    actions = np.asarray(actions, np.float64)
    size = np.expm1(np.abs(actions) * np.log1p(mu)) / mu if inverse else np.log1p(mu * np.abs(actions)) / np.log1p(mu)
    return np.concatenate([(np.sign(actions) * size)[..., :-1], actions[..., -1:]], axis=-1)


def chunks(values: Tensor, window: int, chunk: int) -> Tensor:
    """(B, N, ...) rows from the window's first step on to (B, window, chunk, ...): the target of each step.

    N is at least window + chunk - 1; later rows are not used.
    """
    rows = values[:, : window + chunk - 1].unfold(1, chunk, 1)  # the chunk is the last dimension
    return rows.movedim(-1, 2)
