"""Embeddings of scalars: times as sines and cosines, positions as rotations (Su et al. 2021, Gemma's form)."""

import math

import torch
from torch import Tensor

Rotary = tuple[Tensor, Tensor]


def time_features(time: Tensor, width: int, min_period: float = 4e-3, max_period: float = 4.0) -> Tensor:
    """Sines, then cosines, of (...) times at periods spaced geometrically: (..., width) float32.

    Source: openpi `create_sinusoidal_pos_embedding`; computed in float64 as there.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    period = min_period * (max_period / min_period) ** fraction
    angle = time.double()[..., None] * (2 * math.pi / period)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


def rotary_table(positions: Tensor, head_dim: int, theta: float = 10_000.0) -> Rotary:
    """Cosines and signed sines as `rotate` takes them, each (B, 1, S, head_dim) float32, for (B, S) integer positions.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    return signed_table(positions[:, None, :, None].float() * theta**-exponents)


def signed_table(angles: Tensor) -> Rotary:
    """(..., head_dim / 2) angles to cosines and sines, (..., head_dim) each, the first half of the sines negative."""
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate (B, heads, S, head_dim) queries or keys; computed in float32, returned in the type of `x`."""
    cos, sin = rotary
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin).to(x.dtype)
