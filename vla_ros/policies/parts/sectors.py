"""Points around the sensor to the nearest distance in each direction, and these to tokens, as a scan."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.core.records import Range, Rows
from vla_ros.policies.parts.points import PointEncoder

Height = Annotated[float, Range(-1e6, 1e6)]
Distance = Annotated[float, Range(1e-6, 1e6)]
_CHANNELS = 64


@dataclass(frozen=True)
class PolarSize:
    """Choices.

    Attributes:
        sectors: of the circle, all equally wide; the middle of the first is in the direction of x, that of the second
            to its left.
        lower, upper: heights z between which points are read, in the unit and frame of the points: above the floor.
        near, far: distances that are told apart; what is nearer counts as `near`, what is farther as nothing.
        tokens: how many come out, each of the same number of sectors.
    """

    sectors: Annotated[int, Range(3, 720)] = 90
    lower: Height = -0.5
    upper: Height = 1.5
    near: Distance = 0.1
    far: Distance = 6.0
    tokens: Rows = 15

    def __post_init__(self) -> None:
        for below, above in (("lower", "upper"), ("near", "far")):
            if getattr(self, below) >= getattr(self, above):
                raise InputError(f"{below} {getattr(self, below)}, {above} {getattr(self, above)}: expected the first "
                                 "smaller")
        if self.sectors % self.tokens:
            raise InputError(f"sectors {self.sectors}, tokens {self.tokens}: expected a multiple of the tokens")


class PolarEncoder(PointEncoder):
    """Of the nearest point in each sector how near it is, on a logarithmic scale and as one over its distance; then
    two convolutions around the circle, and a token of each part of it."""

    Size = PolarSize
    float32 = ("",)  # as distances are

    def __init__(self, size: PolarSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(shape, least=3)
        self.size, self.tokens = size, size.tokens
        self.convolutions = nn.Sequential(
            nn.Conv1d(2, _CHANNELS, 3, padding=1, padding_mode="circular"), nn.GELU(),
            nn.Conv1d(_CHANNELS, _CHANNELS, 3, padding=1, padding_mode="circular"), nn.GELU(),
        )
        stride = size.sectors // size.tokens
        self.last = nn.Conv1d(_CHANNELS, out, stride, stride)
        self.places = nn.Parameter(0.1 * torch.randn(size.tokens, out))

    def nearest(self, x: Tensor, real: Tensor) -> Tensor:
        """(B, N, C) points to the (B, sectors) distance of the nearest, `far` where there is none."""
        size, (forward, left, up) = self.size, x[..., :3].unbind(-1)
        sector = (torch.atan2(left, forward) / (2 * math.pi) * size.sectors + 0.5).floor().long() % size.sectors
        counted = real & (up >= size.lower) & (up <= size.upper)
        distance = torch.where(counted, (forward.square() + left.square()).sqrt(), size.far)
        own = sector[..., None] == torch.arange(size.sectors, device=x.device)  # engines convert no scattered minimum
        return torch.where(own, distance[..., None], size.far).amin(dim=1).clamp(size.near, size.far)

    def read(self, x: Tensor, real: Tensor) -> Tensor:
        size, nearest = self.size, self.nearest(x, real)
        features = torch.stack([(size.far / nearest).log() / math.log(size.far / size.near), size.near / nearest], 1)
        return self.last(self.convolutions(features)).transpose(1, 2) + self.places
