"""Embeddings of scalars: times as sines and cosines, positions as rotations (Su et al. 2021, Gemma's form)."""

import math

import torch
from torch import Tensor

Rotary = tuple[Tensor, Tensor]


def time_features(time: Tensor, width: int, min_period: float = 4e-3, max_period: float = 4.0) -> Tensor:
    """Sines, then cosines, of (B,) times at periods spaced geometrically: (B, width) float32.

    Source: openpi `create_sinusoidal_pos_embedding`; computed in float64 as there.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    period = min_period * (max_period / min_period) ** fraction
    angle = time.double()[:, None] * (2 * math.pi / period)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


def rotary_table(positions: Tensor, head_dim: int, theta: float = 10_000.0) -> Rotary:
    """Cosines and sines, each (B, 1, S, head_dim) float32, for (B, S) integer positions."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[:, None, :, None].float() * theta**-exponents
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate (B, heads, S, head_dim) queries or keys; computed in float32, returned in the type of `x`."""
    cos, sin = rotary
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
