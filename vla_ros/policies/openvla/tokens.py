"""Actions as tokens: 256 bins of [-1, 1], the last ids of the vocabulary, counted backwards."""

import numpy as np
import torch
from torch import Tensor

BINS = 256
EDGES = np.linspace(-1, 1, BINS)
CENTRES = (EDGES[:-1] + EDGES[1:]) / 2  # 255: the last two ids have the same centre


def encode(actions: Tensor, end: int) -> Tensor:
    """(...) normalised actions to (...) int64 ids below `end`: an action in the k-th bin, k = 1 .. 256, is end - k.

    Compared in float64 for all types of actions, as in OpenVLA: with float32 edges, values on an edge would change
    bins.
    """
    edges = torch.from_numpy(EDGES).to(actions.device)
    return end - torch.bucketize(actions.double().clamp(-1, 1), edges, right=True)


def decode(ids: np.ndarray, end: int) -> np.ndarray:
    """(...) ids to (...) float64 centres of their bins; ids that are not actions get the nearest bin, as
    published."""
    return CENTRES[np.clip(end - np.asarray(ids, np.int64) - 1, 0, BINS - 2)]
