"""Rotary position embedding (Su et al. 2021) in the rotate-half form of Gemma."""

import torch
from torch import Tensor

Rotary = tuple[Tensor, Tensor]


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
