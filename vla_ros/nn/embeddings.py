"""Embeddings of scalars."""

import math

import torch
from torch import Tensor


def time_features(time: Tensor, width: int, min_period: float = 4e-3, max_period: float = 4.0) -> Tensor:
    """Sines, then cosines, of (B,) times at periods spaced geometrically: (B, width) float32.

    Source: openpi `create_sinusoidal_pos_embedding`; computed in float64 as there.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    period = min_period * (max_period / min_period) ** fraction
    angle = time.double()[:, None] * (2 * math.pi / period)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()
