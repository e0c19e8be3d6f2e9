"""Windows of numbers, such as those of an IMU, to tokens, and the numbers of one instant to one."""

from dataclasses import dataclass
from math import prod
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count, Range, Rows
from vla_ros.policies.openvla.heads import Projector
from vla_ros.policies.parts.autoregressive import sinusoids
from vla_ros.policies.parts.kinds import Encoder
from vla_ros.policies.parts.pooling import Queries, encoder_layer


@dataclass(frozen=True)
class SeriesSize:
    """`tokens`: how many come out; `layers` of the network."""

    tokens: Rows = 8
    layers: Count = 2


class Series(Encoder):
    """Of streams of shape (count, C), a `window` of the robot file, the oldest row first."""

    Size = SeriesSize

    def __init__(self, size: SeriesSize, shape: tuple[int, ...]) -> None:
        super().__init__()
        if len(shape) != 2:
            raise InputError(f"a value of shape {list(shape)}, expected a window: [count, numbers]")
        self.tokens = size.tokens


class SeriesEncoder(Series):
    """Rows that see each other, then queries that read them."""

    def __init__(self, size: SeriesSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(size, shape)
        self.first = nn.Linear(shape[1], 128)
        self.register_buffer("places", sinusoids(shape[0], 128))
        self.layers = nn.ModuleList(encoder_layer(128, 4) for _ in range(size.layers))
        self.pool, self.last = Queries(128, size.tokens, 4), nn.Linear(128, out)

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        x = self.first(x.to(self.dtype)) + self.places.to(self.dtype)
        for layer in self.layers:
            x = layer(x)
        return self.last(self.pool(x))


class ConvSeriesEncoder(Series):
    """Convolutions over time; of `layers`, the first gives 64 numbers and the others 128."""

    float32 = ("",)  # as the statistics of batch normalisation are

    @dataclass(frozen=True)
    class Size(SeriesSize):
        """With three layers."""

        layers: Count = 3

    def __init__(self, size: SeriesSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(size, shape)
        widths = (shape[1], 64, *[128] * (size.layers - 1))
        rows = [(nn.Conv1d(a, b, 5, 2, 2), nn.BatchNorm1d(b), nn.ReLU())
                for a, b in zip(widths, widths[1:], strict=False)]  # fmt: skip
        self.convolutions = nn.Sequential(*(part for row in rows for part in row))
        self.last = nn.Linear(widths[-1], out)

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        x = self.convolutions(x.transpose(1, 2).to(self.dtype))
        return self.last(functional.adaptive_avg_pool1d(x, self.tokens).transpose(1, 2))


class LstmSeriesEncoder(Series):
    """An LSTM that reads the window forwards and backwards, then queries that read what it made of each row."""

    def __init__(self, size: SeriesSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(size, shape)
        self.first = nn.Linear(shape[1], 128)
        self.lstm = nn.LSTM(128, 128, size.layers, batch_first=True, bidirectional=True)
        self.last, self.pool = nn.Linear(256, out), Queries(256, size.tokens, 4)

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        return self.last(self.pool(self.lstm(self.first(x.to(self.dtype)))[0]))


@dataclass(frozen=True)
class SensorsSize:
    """`tokens`: how many come out; `heads` of the attention that reads them; `sensors`: how many of a row's numbers
    each measures, in their order, as turn rate and acceleration, and a magnetometer with [3, 3, 3]."""

    tokens: Rows = 8
    heads: Count = 8
    sensors: Annotated[tuple[Count, ...], Range(1, 16)] = (3, 3)


class MultimodalSeriesEncoder(Series):
    """Each sensor of a row through layers of its own, then queries that read all sensors at all times."""

    Size = SensorsSize

    def __init__(self, size: SensorsSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(size, shape)
        if sum(size.sensors) != shape[1]:
            raise InputError(f"sensors {list(size.sensors)} of rows of {shape[1]} numbers, expected that many together")
        self.sensors = nn.ModuleList(
            nn.Sequential(nn.Linear(n, 64), nn.GELU(), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, out))
            for n in size.sensors
        )
        self.register_buffer("places", sinusoids(shape[0], out))
        self.pool, self.last = Queries(out, size.tokens, size.heads), nn.Linear(out, out)
        self.numbers = size.sensors

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        parts = zip(self.sensors, x.to(self.dtype).split(self.numbers, dim=-1), strict=True)
        rows = [layers(part) + self.places.to(self.dtype) for layers, part in parts]
        return self.last(self.pool(torch.cat(rows, dim=1)))


class NumbersEncoder(Encoder):
    """All numbers of a value to one token: a wrench, an odometry."""

    tokens = 1

    def __init__(self, size: object, shape: tuple[int, ...], out: int) -> None:
        super().__init__()
        self.numbers = Projector(prod(shape), out)

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        return self.numbers(torch.flatten(x, 1))[:, None]
