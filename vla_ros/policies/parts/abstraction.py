"""PointNet++: points to fewer points, each of which describes those around it (Qi et al. 2017,
https://arxiv.org/abs/1706.02413, single-scale grouping)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count, Range, Rows
from vla_ros.policies.parts.points import PointEncoder, hidden, layers, through
from vla_ros.policies.parts.pooling import Queries

Radius = Annotated[float, Range(1e-6, 1e6)]
Places = Annotated[tuple[Rows, ...], Range(1, 8)]
Radii = Annotated[tuple[Radius, ...], Range(1, 8)]


@dataclass(frozen=True)
class SetSize:
    """Choices.

    Attributes:
        centres: points that each step keeps; `radii`: how far they look, in the unit of the points.
        neighbours: at most so many points around a centre are read, the nearest.
        pool: "tokens": `queries` read the last centres; "global": one vector, the strongest of all of them.
        heads: of the queries' attention.
    """

    centres: Places = (128, 32)
    radii: Radii = (0.5, 1.5)
    neighbours: Count = 32
    pool: str = "tokens"
    queries: Rows = 32
    heads: Count = 8

    def __post_init__(self) -> None:
        if len(self.centres) != len(self.radii):
            raise InputError(f"centres {list(self.centres)}, radii {list(self.radii)}: expected one radius for each")
        if self.pool not in ("tokens", "global"):
            raise InputError(f"pool {self.pool!r}, expected 'tokens' or 'global'")


class SetEncoder(PointEncoder):
    """Steps of set abstraction, then queries or the strongest features; x, y and z are the first three numbers.

    Centres are the points that are farthest from each other, the first of them the one that is farthest from the
    middle, and neighbours the nearest points, so the order of the points changes nothing.
    """

    Size = SetSize
    float32 = ("",)  # as the statistics of batch normalisation are

    def __init__(self, size: SetSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(shape, least=3)
        self.size, self.tokens = size, size.queries if size.pool == "tokens" else 1
        self.steps, width = nn.ModuleList(), shape[1] - 3
        for step in range(len(size.centres)):
            widths = [64 << step, 64 << step, 128 << step]
            self.steps.append(layers((3 + width, *widths)))
            width = widths[-1]
        self.all = layers((3 + width, 2 * width))
        self.last = nn.Linear(2 * width, out)
        self.pool = Queries(out, size.queries, size.heads) if size.pool == "tokens" else None

    def read(self, x: Tensor, real: Tensor) -> Tensor:
        places, features = x[..., :3], x[..., 3:]
        real = ~hidden(real)  # a cloud without points is one of zeros
        for step, count, radius in zip(self.steps, self.size.centres, self.size.radii, strict=True):
            places, features, real = self._abstracted(step, places, features, real, count, radius)
        x = through(self.all, torch.cat([places, features], dim=-1), real)
        if self.pool:
            return self.pool(self.last(x), ~real)
        return self.last(x.masked_fill(~real[..., None], -torch.inf).amax(dim=1, keepdim=True))

    def _abstracted(
        self, step: nn.ModuleList, places: Tensor, features: Tensor, real: Tensor, count: int, radius: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, 3), (B, N, C) and (B, N) to the same of `count` centres."""
        chosen, kept = farthest(places, real, min(count, places.shape[1]))
        centres = rows(places, chosen)
        apart = (centres[:, :, None] - places[:, None]).square().sum(dim=-1)  # (B, M, N)
        apart = apart.masked_fill(~real[:, None], torch.inf)
        near, number = apart.topk(min(self.size.neighbours, places.shape[1]), dim=-1, largest=False)
        within = (near <= radius**2) & kept[..., None]
        around = rows(places, number.flatten(1)).unflatten(1, number.shape[1:]) - centres[:, :, None]
        seen = rows(features, number.flatten(1)).unflatten(1, number.shape[1:])
        x = through(step, torch.cat([around / radius, seen], dim=-1), within)
        x = x.masked_fill(~within[..., None], -torch.inf).amax(dim=2)
        return centres, x.masked_fill(~kept[..., None], 0), kept


def farthest(places: Tensor, real: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(B, M) numbers of those of (B, N, 3) points that are farthest from each other, and (B, M) bool, whether there
    were so many different ones."""
    weights = real[..., None].to(places.dtype)
    middle = (places * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
    apart, chosen, kept = (places - middle).square().sum(dim=-1).masked_fill(~real, -1), [], []
    for k in range(count):
        most, number = apart.max(dim=1, keepdim=True)
        away = (places - rows(places, number)).square().sum(dim=-1).masked_fill(~real, -1)
        apart = torch.minimum(apart, away) if k else away
        chosen.append(number)
        kept.append(most > 0 if k else most >= 0)
    return torch.cat(chosen, dim=1), torch.cat(kept, dim=1)


def rows(x: Tensor, numbers: Tensor) -> Tensor:
    """(B, K, C) rows of (B, N, C) with these (B, K) numbers."""
    return x.gather(1, numbers[..., None].expand(-1, -1, x.shape[-1]))
