"""Point clouds to tokens; the order of the points changes nothing, and those that are no real ones have no effect."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count, Rows
from vla_ros.nn.norms import RealBatchNorm
from vla_ros.policies.parts.kinds import Encoder
from vla_ros.policies.parts.pooling import Queries, encoder_layer


class PointEncoder(Encoder):
    """Of streams of shape (N, C), of which the first `count` rows are real. What stands in the others is not read: they
    are zeros to `read`, whatever they were."""

    counted = True

    def __init__(self, shape: tuple[int, ...], least: int = 1) -> None:
        super().__init__()
        if len(shape) != 2 or shape[1] < least:
            raise InputError(f"a value of shape {list(shape)}, expected points of at least {least} numbers: "
                             f"[N, {max(least, 3)}]")

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        places = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        real = places < (places.new_full((len(x),), x.shape[1]) if count is None else count)[:, None]
        return self.read(x.masked_fill(~real[..., None], 0).to(self.dtype), real)

    @abstractmethod
    def read(self, x: Tensor, real: Tensor) -> Tensor:
        """(B, N, C) points, of which (B, N) bool are real, to (B, tokens, out)."""


def hidden(real: Tensor) -> Tensor:
    """(B, N) bool of the points that nothing reads: all that are not real, but one of a cloud that has none, zeros."""
    return ~real & (real.any(dim=1, keepdim=True) | (torch.arange(real.shape[1], device=real.device) > 0))


@dataclass(frozen=True)
class PointSize:
    """`queries`: how many tokens come out; `heads` of attention."""

    queries: Rows = 32
    heads: Count = 8


class PointCloudEncoder(PointEncoder):
    """Each point with the strongest of all, then queries that read them."""

    Size = PointSize

    def __init__(self, size: PointSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(shape)
        self.tokens = size.queries
        self.points = nn.Sequential(
            nn.Linear(shape[1], 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 128), nn.LayerNorm(128), nn.GELU(),
            nn.Linear(128, 256),
        )
        self.features = nn.Sequential(nn.Linear(256, 256), nn.LayerNorm(256), nn.GELU(), nn.Linear(256, out))
        self.pool = Queries(out, size.queries, size.heads)

    def read(self, x: Tensor, real: Tensor) -> Tensor:
        points, gone = self.points(x), hidden(real)
        most = points.masked_fill(gone[..., None], -torch.inf).amax(dim=1, keepdim=True)
        return self.pool(self.features(points + most), gone)


class PointNetEncoder(PointEncoder):
    """One token of the strongest and the mean features (Qi et al. 2017, https://arxiv.org/abs/1612.00593)."""

    tokens = 1
    float32 = ("",)  # as the statistics of batch normalisation are

    def __init__(self, size: object, shape: tuple[int, ...], out: int) -> None:
        super().__init__(shape)
        self.points = layers((shape[1], 64, 128, 256))
        self.features = nn.Sequential(nn.Linear(512, 256), RealBatchNorm(256), nn.ReLU(), nn.Linear(256, out))

    def read(self, x: Tensor, real: Tensor) -> Tensor:
        x, gone = through(self.points, x, real), hidden(real)[..., None]
        mean = x.masked_fill(gone, 0).sum(dim=1) / (~gone).sum(dim=1)
        x = torch.cat([x.masked_fill(gone, -torch.inf).amax(dim=1), mean], dim=-1)
        first, norm, *others = self.features
        x = norm(first(x), real.any(dim=1))  # a cloud without points is none of those that are counted
        for layer in others:
            x = layer(x)
        return x[:, None]


def layers(widths: Sequence[int]) -> nn.ModuleList:
    """Linear, batch normalisation, ReLU between each width and the next."""
    return nn.ModuleList(
        nn.Sequential(nn.Linear(a, b), RealBatchNorm(b), nn.ReLU()) for a, b in zip(widths, widths[1:], strict=False)
    )


def through(layers: nn.ModuleList, x: Tensor, real: Tensor) -> Tensor:
    """(..., C) through such layers, with statistics of the (...) real rows."""
    for linear, norm, bend in layers:
        x = bend(norm(linear(x), real))
    return x


@dataclass(frozen=True)
class TransformerSize(PointSize):
    """And `layers` in which the points see each other."""

    layers: Count = 4


class PointTransformerEncoder(PointEncoder):
    """Points that see each other, then queries that read them; x, y and z are the first three numbers."""

    Size = TransformerSize

    def __init__(self, size: TransformerSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(shape, least=3)
        self.tokens = size.queries
        self.first = nn.Linear(shape[1], 256)
        self.places = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, 256))
        self.layers = nn.ModuleList(encoder_layer(256, 8) for _ in range(size.layers))
        self.last, self.pool = nn.Linear(256, out), Queries(out, size.queries, size.heads)

    def read(self, x: Tensor, real: Tensor) -> Tensor:
        x, gone = self.first(x) + self.places(x[..., :3]), hidden(real)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=gone)
        return self.pool(self.last(x), gone)


@dataclass(frozen=True)
class RadarPointSize:
    """`queries`: how many tokens come out; `heads` of the queries' attention."""

    queries: Rows = 16
    heads: Count = 8


class RadarPointEncoder(PointEncoder):
    """Few targets, such as (x, y, z, velocity, rcs), that see each other, then queries that read them."""

    Size = RadarPointSize

    def __init__(self, size: RadarPointSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(shape)
        self.tokens = size.queries
        self.points = nn.Sequential(
            nn.Linear(shape[1], 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 128), nn.LayerNorm(128), nn.GELU()
        )
        self.attention, self.norm = nn.MultiheadAttention(128, 4, batch_first=True), nn.LayerNorm(128)
        self.last, self.pool = nn.Linear(128, out), Queries(out, size.queries, size.heads)

    def read(self, x: Tensor, real: Tensor) -> Tensor:
        x, gone = self.points(x), hidden(real)
        x = self.norm(x + self.attention(x, x, x, key_padding_mask=gone, need_weights=False)[0])
        return self.pool(self.last(x), gone)
