"""Llama layers of text towers and action experts; with norms of the heads they are Qwen3's.

One matrix makes queries, keys and values where they come from the same tokens, one makes gate and up: a product with
stacked rows is the stack of the products.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.records import Count, Inner, Width, Words
from vla_ros.nn.embeddings import Rotary, rotate
from vla_ros.nn.norms import rms_normalised


@dataclass(frozen=True)
class TextSize:
    """A Llama tower: `heads` query and `kv_heads` key/value heads of `head_dim`.

    Attributes:
        head_norm: queries and keys are normalised head by head before their rotation (Qwen3).
    """

    width: Width
    heads: Count
    kv_heads: Count
    head_dim: Count
    mlp: Inner
    vocabulary: Words
    epsilon: float = 1e-5
    head_norm: bool = False


class LlamaNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) times a weight, in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        return rms_normalised(x, self.epsilon, self.weight.float()).to(x.dtype)


class LlamaLayer(nn.Module):
    """Norm, attention, norm, gated MLP, each added to the residual stream of `width`.

    Args:
        size: of the text tower; heads are the same in both towers.
        width, mlp: of this tower.
        cross: keys and values are computed from the other tower's; only queries come from this tower's tokens.
        grouped: the rows of `qkv` are those of each key/value head's queries, of its key and of its value, one head
            after the other, as InternLM2 stores them (Cai et al. 2024, https://arxiv.org/abs/2403.17297).
    """

    def __init__(self, size: TextSize, width: int, mlp: int, cross: bool = False, grouped: bool = False) -> None:
        super().__init__()
        self.size, self.cross, self.grouped = size, cross, grouped
        inner, shared = size.heads * size.head_dim, size.kv_heads * size.head_dim
        self.input_norm = LlamaNorm(width, size.epsilon)
        if cross:
            self.query = nn.Linear(width, inner, bias=False)
            self.key, self.value = nn.Linear(shared, shared, bias=False), nn.Linear(shared, shared, bias=False)
        else:
            self.qkv = nn.Linear(width, inner + 2 * shared, bias=False)
        self.query_norm = LlamaNorm(size.head_dim, size.epsilon) if size.head_norm else nn.Identity()
        self.key_norm = LlamaNorm(size.head_dim, size.epsilon) if size.head_norm else nn.Identity()
        self.out = nn.Linear(inner, width, bias=False)
        self.post_norm = LlamaNorm(width, size.epsilon)
        self.gate_up = nn.Linear(width, 2 * mlp, bias=False)
        self.down = nn.Linear(mlp, width, bias=False)

    def project(self, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, width) to rotated queries (B, heads, S, D), rotated keys and values (B, kv_heads, S, D)."""
        size = self.size
        heads = self.qkv(self.input_norm(x)).unflatten(-1, (-1, size.head_dim)).transpose(1, 2)
        if self.grouped:
            groups = heads.unflatten(1, (size.kv_heads, -1))
            query, key, value = groups[:, :, :-2].flatten(1, 2), groups[:, :, -2], groups[:, :, -1]
        else:
            query, key, value = heads.split([size.heads, size.kv_heads, size.kv_heads], dim=1)
        return rotate(self.query_norm(query), rotary), rotate(self.key_norm(key), rotary), value

    def project_query(self, x: Tensor, rotary: Rotary) -> Tensor:
        """(B, S, width) to rotated queries (B, heads, S, D), in a cross layer."""
        return rotate(self.query(self.input_norm(x)).unflatten(-1, (-1, self.size.head_dim)).transpose(1, 2), rotary)

    def translate(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The other tower's (B, kv_heads, P, D) keys, rotated already, and values to this cross layer's."""
        return tuple(
            matrix(heads.transpose(1, 2).flatten(2)).unflatten(-1, (-1, self.size.head_dim)).transpose(1, 2)
            for matrix, heads in ((self.key, key), (self.value, value))
        )

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Attention's output (B, S, heads * D) and the MLP added to (B, S, width)."""
        x = x + self.out(attended)
        gate, up = self.gate_up(self.post_norm(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)
