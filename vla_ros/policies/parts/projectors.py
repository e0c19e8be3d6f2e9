"""From a tower's tokens to tokens for the language model."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count, Layers, Range, Rows
from vla_ros.policies.parts.kinds import Projector
from vla_ros.policies.robovlms.resampler import PerceiverResampler

Dropout = Annotated[float, Range(0, 0.99)]


class LinearProjector(Projector):
    def __init__(self, size: object, width: int, tokens: int, out: int) -> None:
        super().__init__()
        self.tokens, self.input_proj = tokens, nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.input_proj(x.to(self.dtype))


@dataclass(frozen=True)
class MlpSize:
    """`dropout` of the hidden layer."""

    dropout: Dropout = 0.0


class MlpProjector(Projector):
    """Linear, GELU, linear."""

    Size = MlpSize

    def __init__(self, size: MlpSize, width: int, tokens: int, out: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.projector = nn.Sequential(
            nn.Linear(width, out), nn.GELU(), nn.Dropout(size.dropout), nn.Linear(out, out)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.projector(x.to(self.dtype))


@dataclass(frozen=True)
class PoolSize:
    """`queries`: number of output tokens; `heads` of attention."""

    queries: Rows = 64
    heads: Count = 8


class AttentionProjector(Projector):
    """Learned queries attend to the tokens once; norms are after the sums."""

    Size = PoolSize

    def __init__(self, size: PoolSize, width: int, tokens: int, out: int) -> None:
        super().__init__()
        check_heads(out, size.heads)
        self.tokens = size.queries
        self.input_proj = nn.Linear(width, out)
        self.query_tokens = nn.Parameter(torch.randn(1, size.queries, out) * 0.02)
        self.cross_attention = nn.MultiheadAttention(out, size.heads, batch_first=True)
        self.norm1, self.norm2, self.ffn = nn.LayerNorm(out), nn.LayerNorm(out), feed_forward(out)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.input_proj(x.to(self.dtype))
        query = self.query_tokens.expand(len(x), -1, -1)
        out = self.norm1(self.cross_attention(query, seen, seen, need_weights=False)[0] + query)
        return self.norm2(self.ffn(out) + out)


@dataclass(frozen=True)
class PerceiverSize(PoolSize):
    """`layers` in which the queries attend to the tokens and to themselves."""

    layers: Layers = 2


class PerceiverProjector(Projector):
    """Latents attend to the tokens, then to each other, in each layer (Jaegle et al. 2021,
    https://arxiv.org/abs/2103.03206); norms are after the sums."""

    Size = PerceiverSize

    def __init__(self, size: PerceiverSize, width: int, tokens: int, out: int) -> None:
        super().__init__()
        check_heads(out, size.heads)
        self.tokens = size.queries
        self.input_proj = nn.Linear(width, out)
        self.latent_tokens = nn.Parameter(torch.randn(1, size.queries, out) * 0.02)
        self.layers = nn.ModuleList(_PerceiverLayer(out, size.heads) for _ in range(size.layers))

    def forward(self, x: Tensor) -> Tensor:
        seen, latents = self.input_proj(x.to(self.dtype)), self.latent_tokens.expand(len(x), -1, -1)
        for layer in self.layers:
            latents = layer(latents, seen)
        return latents


class _PerceiverLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cross_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.ffn = feed_forward(width)

    def forward(self, latents: Tensor, seen: Tensor) -> Tensor:
        latents = self.norm1(latents + self.cross_attention(latents, seen, seen, need_weights=False)[0])
        latents = self.norm2(latents + self.self_attention(latents, latents, latents, need_weights=False)[0])
        return self.norm3(latents + self.ffn(latents))


class ResamplerProjector(Projector):
    """RoboVLMs' resampler after a linear layer: 64 tokens for each image."""

    def __init__(self, size: object, width: int, tokens: int, out: int) -> None:
        super().__init__()
        self.tokens = PerceiverResampler.LATENTS
        self.input_proj, self.resampler = nn.Linear(width, out), PerceiverResampler(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.resampler(self.input_proj(x.to(self.dtype)))


def feed_forward(width: int) -> nn.Sequential:
    """Linear to four times the width, GELU, linear back."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Identity(), nn.Linear(4 * width, width))


def check_heads(width: int, heads: int) -> None:
    """Raises InputError unless the heads divide the width."""
    if width % heads:
        raise InputError(f"{heads} heads of attention, expected a number that divides the width {width}")
