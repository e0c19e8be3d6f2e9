"""Tokens of images and sensors, joined before the language model reads them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count
from vla_ros.policies.parts.kinds import Fusion
from vla_ros.policies.parts.pooling import encoder_layer
from vla_ros.policies.parts.projectors import Dropout, check_heads, feed_forward


@dataclass(frozen=True)
class FusionSize:
    """Sizes of attention."""

    heads: Count = 8
    layers: Count = 2
    dropout: Dropout = 0.1


def marks(names: Mapping[str, int], width: int) -> nn.ParameterDict:
    """A learned vector for each source, which distinguishes its tokens."""
    return nn.ParameterDict({name: nn.Parameter(torch.randn(width) * 0.02) for name in names})


class ConcatFusion(Fusion):
    """Self-attention of all tokens, marked by their source."""

    Size = FusionSize

    def __init__(self, size: FusionSize, width: int, tokens: Mapping[str, int]) -> None:
        super().__init__()
        self.tokens, self.marks = sum(tokens.values()), marks(tokens, width)
        self.layers = nn.ModuleList(
            encoder_layer(width, size.heads, dropout=size.dropout) for _ in range(size.layers)
        )

    def forward(self, sources: Mapping[str, Tensor]) -> Tensor:
        x = torch.cat([x.to(self.dtype) + self.marks[name] for name, x in sources.items()], dim=1)
        for layer in self.layers:
            x = layer(x)
        return x


class CrossModalFusion(Fusion):
    """In each layer, every source attends to all sources; norms are after the sums."""

    Size = FusionSize

    def __init__(self, size: FusionSize, width: int, tokens: Mapping[str, int]) -> None:
        super().__init__()
        check_heads(width, size.heads)
        self.tokens, self.marks = sum(tokens.values()), marks(tokens, width)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: _Reader(width, size) for name in tokens}) for _ in range(size.layers)
        )

    def forward(self, sources: Mapping[str, Tensor]) -> Tensor:
        rows = {name: x.to(self.dtype) + self.marks[name] for name, x in sources.items()}
        for layer in self.layers:
            everything = torch.cat(list(rows.values()), dim=1)
            rows = {name: layer[name](x, everything) for name, x in rows.items()}
        return torch.cat(list(rows.values()), dim=1)


class _Reader(nn.Module):
    def __init__(self, width: int, size: FusionSize) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, size.heads, size.dropout, batch_first=True)
        self.norm1, self.norm2, self.ffn = nn.LayerNorm(width), nn.LayerNorm(width), feed_forward(width)

    def forward(self, x: Tensor, everything: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, everything, everything, need_weights=False)[0])
        return self.norm2(x + self.ffn(x))


@dataclass(frozen=True)
class HierarchicalSize:
    """`late`: sources that are added in the second step, such as an IMU."""

    heads: Count = 8
    dropout: Dropout = 0.1
    late: tuple[str, ...] = ("imu", "gps")


class HierarchicalFusion(Fusion):
    """Attention of spatial sources first, then together with motion sources, then of all tokens."""

    Size = HierarchicalSize

    def __init__(self, size: HierarchicalSize, width: int, tokens: Mapping[str, int]) -> None:
        super().__init__()
        self.tokens, self.late = sum(tokens.values()), [name for name in tokens if name in size.late]
        if size.late != HierarchicalSize.late and (unknown := [name for name in size.late if name not in tokens]):
            raise InputError(f"late {unknown}, expected some of {list(tokens)}")
        if len(self.late) == len(tokens):
            raise InputError(f"late {list(size.late)}: all of {list(tokens)}, expected one that comes first")
        self.marks = nn.Parameter(torch.randn(2, width) * 0.02)
        self.spatial, self.temporal, self.last = (
            encoder_layer(width, size.heads, dropout=size.dropout) for _ in range(3)
        )

    def forward(self, sources: Mapping[str, Tensor]) -> Tensor:
        rows = {name: x.to(self.dtype) + self.marks[int(name in self.late)] for name, x in sources.items()}
        x = self.spatial(torch.cat([x for name, x in rows.items() if name not in self.late], dim=1))
        x = self.temporal(torch.cat([x, *(rows[name] for name in self.late)], dim=1))
        return self.last(x)


class GatedFusion(Fusion):
    """One token: the means of the sources, weighted by a gate that gets all of them."""

    tokens = 1

    def __init__(self, size: object, width: int, tokens: Mapping[str, int]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: nn.Linear(width, width) for name in tokens})
        self.gate = nn.Sequential(
            nn.Linear(width * len(tokens), width), nn.ReLU(), nn.Linear(width, len(tokens))
        )
        self.last = nn.Linear(width, width)

    def forward(self, sources: Mapping[str, Tensor]) -> Tensor:
        means = {name: x.to(self.dtype).mean(dim=1) for name, x in sources.items()}
        weights = self.gate(torch.cat(list(means.values()), dim=-1)).softmax(dim=-1)
        parts = torch.stack([self.parts[name](x) for name, x in means.items()], dim=1)
        return self.last((weights[..., None] * parts).sum(dim=1))[:, None]
