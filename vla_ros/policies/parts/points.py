"""Point clouds to tokens; the order of the points changes nothing, and those that are no real ones have no effect."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count, Rows
from vla_ros.policies.parts.kinds import Encoder
from vla_ros.policies.parts.pooling import Queries, encoder_layer


def absent(x: Tensor, count: Tensor | None) -> Tensor:
    """(B, N) bool of (B, N, C) points, True behind the (B,) real ones; a cloud without any keeps its first, zeros."""
    places = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    return places >= (places.new_full((len(x),), x.shape[1]) if count is None else count.clamp(min=1))[:, None]


class PointEncoder(Encoder):
    """Of streams of shape (N, C)."""

    counted = True

    def __init__(self, shape: tuple[int, ...], least: int = 1) -> None:
        super().__init__()
        if len(shape) != 2 or shape[1] < least:
            raise InputError(f"a value of shape {list(shape)}, expected points of at least {least} numbers: "
                             f"[N, {max(least, 3)}]")


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

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        hidden, points = absent(x, count), self.points(x.to(self.dtype))
        most = points.masked_fill(hidden[..., None], -torch.inf).amax(dim=1, keepdim=True)
        return self.pool(self.features(points + most), hidden)


class PointNetEncoder(PointEncoder):
    """One token of the strongest and the mean features (Qi et al. 2017, https://arxiv.org/abs/1612.00593). In training
    the batch's statistics count the points that are no real ones, too."""

    tokens = 1
    float32 = ("",)  # as the statistics of batch normalisation are

    def __init__(self, size: object, shape: tuple[int, ...], out: int) -> None:
        super().__init__(shape)
        widths = (shape[1], 64, 128, 256)
        self.points = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.features = nn.Sequential(nn.Linear(512, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, out))

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        hidden, batch = absent(x, count)[..., None], len(x)
        x = x.to(self.dtype).flatten(0, 1)
        for layer in self.points:
            x = layer(x)
        x = x.unflatten(0, (batch, -1))
        mean = x.masked_fill(hidden, 0).sum(dim=1) / (~hidden).sum(dim=1)
        return self.features(torch.cat([x.masked_fill(hidden, -torch.inf).amax(dim=1), mean], dim=-1))[:, None]


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

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        hidden, x = absent(x, count), x.to(self.dtype)
        x = self.first(x) + self.places(x[..., :3])
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=hidden)
        return self.pool(self.last(x), hidden)


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

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        hidden, x = absent(x, count), self.points(x.to(self.dtype))
        x = self.norm(x + self.attention(x, x, x, key_padding_mask=hidden, need_weights=False)[0])
        return self.pool(self.last(x), hidden)
