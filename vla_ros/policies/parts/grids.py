"""Depth images, alone and beside a camera's, and radar images (range by Doppler) to tokens, most of them one for each
cell of a 4 x 4 grid."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count, Range, Rows
from vla_ros.policies.parts.kinds import Encoder
from vla_ros.policies.parts.pooling import Queries, encoder_layer

CELLS = 4
JOINS = ("concat", "add", "cross_attention")


@dataclass(frozen=True)
class MeasuredSize:
    """Choices.

    Attributes:
        scale: what values are multiplied by: 0.001 makes m of the mm of a depth image.
        most: what they are cut to then; 0: not at all.
    """

    scale: Annotated[float, Range(1e-9, 1e9)] = 1.0
    most: Annotated[float, Range(0, 1e9)] = 0.0


@dataclass(frozen=True)
class GridSize(MeasuredSize):
    """And `mixed`: one matrix over all cells, of 16 x 16 as many parameters as one for each cell alone."""

    mixed: bool = False


def convolutions(
    channels: int, out: int, convolution: type[nn.Module] = nn.Conv2d, norm: type[nn.Module] = nn.BatchNorm2d
) -> nn.Sequential:
    """Four of stride 2, with batch normalisation and ReLU between them."""
    widths = (channels, 32, 64, 128)
    rows = [(convolution(a, b, 3, 2, 1), norm(b), nn.ReLU()) for a, b in zip(widths, widths[1:], strict=False)]
    return nn.Sequential(*(part for row in rows for part in row), convolution(128, out, 3, 2, 1))


def last_layer(tokens: int, width: int, mixed: bool) -> nn.Linear:
    """Of each token, or of all together."""
    wide = tokens * width if mixed else width
    return nn.Linear(wide, wide)


def tokens_of(x: Tensor, last: nn.Linear) -> Tensor:
    """(B, out, ...) cells to (B, cells, out) through such a layer."""
    x = x.flatten(2).transpose(1, 2)
    return last(x) if last.in_features == x.shape[-1] else last(x.flatten(1)).view_as(x)


class MeasuredEncoder(Encoder):
    """Of streams of shape (height, width, channels)."""

    def __init__(self, size: MeasuredSize, shape: tuple[int, ...]) -> None:
        super().__init__()
        if len(shape) != 3:
            raise InputError(f"a value of shape {list(shape)}, expected an image: [height, width, channels]")
        self.size = size

    def measured(self, x: Tensor) -> Tensor:
        """(B, height, width, channels) to (B, channels, height, width) in the unit that the layers read."""
        x = x * self.size.scale
        return (x.clamp(max=self.size.most) if self.size.most else x).movedim(-1, 1).to(self.dtype)


class GridEncoder(MeasuredEncoder):
    """Four convolutions, and a token for each cell."""

    Size, tokens = GridSize, CELLS**2
    float32 = ("",)  # as the statistics of batch normalisation are

    def __init__(self, size: GridSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(size, shape)
        self.make(shape[2], out)
        self.last = last_layer(self.tokens, out, size.mixed)

    def make(self, channels: int, out: int) -> None:
        """The layers before the last."""
        self.convolutions = convolutions(channels, out)

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        return tokens_of(functional.adaptive_avg_pool2d(self.convolutions(self.measured(x)), CELLS), self.last)


class MultiScaleEncoder(GridEncoder):
    """The image as it is, and at half and a quarter of its size, each through three convolutions, then all together
    through two: what is near and small beside what is large."""

    def make(self, channels: int, out: int) -> None:
        self.scales = nn.ModuleList(convolutions(channels, 1)[:-1] for _ in range(3))  # without the last one
        self.convolutions = _pair(128 * len(self.scales), out)

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        x, seen = self.measured(x), []
        for layers in self.scales:
            seen.append(functional.adaptive_avg_pool2d(layers(x), 2 * CELLS))
            x = functional.avg_pool2d(x, 2, ceil_mode=True)
        x = self.convolutions(torch.cat(seen, dim=1))
        return tokens_of(functional.adaptive_avg_pool2d(x, CELLS), self.last)


@dataclass(frozen=True)
class PatchSize(MeasuredSize):
    """And `patch`: height and width of a square that becomes one position; `layers` in which these see each other;
    `queries`: how many tokens come out; `heads` of their attention."""

    patch: Count = 16
    layers: Count = 4
    queries: Rows = 16
    heads: Count = 8


class DepthTransformerEncoder(MeasuredEncoder):
    """Squares of the image that see each other, then queries that read them. An image whose sides are no multiples of
    the patch goes on with zeros."""

    Size = PatchSize

    def __init__(self, size: PatchSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(size, shape)
        rows, columns = (-(-side // size.patch) for side in shape[:2])
        self.tokens, self.margin = size.queries, (0, columns * size.patch - shape[1], 0, rows * size.patch - shape[0])
        self.patches = nn.Conv2d(shape[2], 256, size.patch, size.patch)
        self.places = nn.Parameter(torch.randn(rows * columns, 256) * 0.02)
        self.layers = nn.ModuleList(encoder_layer(256, 8) for _ in range(size.layers))
        self.last, self.pool = nn.Linear(256, out), Queries(out, size.queries, size.heads)

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        x = self.patches(functional.pad(self.measured(x), self.margin)).flatten(2).transpose(1, 2) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.pool(self.last(x))


class RangeDopplerEncoder(GridEncoder):
    """A radar image whose rows are ranges and whose columns are velocities: a branch with kernels that are long in
    range, one with kernels that are long in velocity, then both together through two convolutions."""

    def make(self, channels: int, out: int) -> None:
        self.range, self.velocity = (_branch(channels, long_rows) for long_rows in (True, False))
        self.convolutions = _pair(128, out)

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        x = self.measured(x)
        size = [max(1, side // 4) for side in x.shape[-2:]]
        joined = [functional.adaptive_avg_pool2d(branch(x), size) for branch in (self.range, self.velocity)]
        x = self.convolutions(torch.cat(joined, dim=1))
        return tokens_of(functional.adaptive_avg_pool2d(x, CELLS), self.last)


def _branch(channels: int, long_rows: bool) -> nn.Sequential:
    """Two convolutions of stride 2 along one of the sides alone."""
    parts: list[nn.Module] = []
    for a, b, kernel, stride in ((channels, 32, (7, 3), (2, 1)), (32, 64, (5, 3), (2, 1))):
        margin = kernel[0] // 2, kernel[1] // 2
        sides = (kernel, stride, margin) if long_rows else (kernel[::-1], stride[::-1], margin[::-1])
        parts += [nn.Conv2d(a, b, *sides), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*parts)


def _pair(channels: int, out: int) -> nn.Sequential:
    """Two convolutions, the second of stride 2."""
    return nn.Sequential(
        nn.Conv2d(channels, 128, 3, 1, 1), nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, out, 3, 2, 1)
    )


@dataclass(frozen=True)
class RgbdSize(GridSize):
    """And how the image gets to the depth.

    Attributes:
        camera: the policy's image that shows the same place, scaled to the depth image's size.
        join: "concat", "add", or "cross_attention": places of the image read those of the depth image.
    """

    camera: str = ""
    join: str = "concat"

    def __post_init__(self) -> None:
        if not self.camera:
            raise InputError("camera '', expected the camera beside which the depth is measured")
        if self.join not in JOINS:
            raise InputError(f"join {self.join!r}, expected one of {list(JOINS)}")


class RgbdEncoder(GridEncoder):
    """A depth image and the colours of the same place, each through three convolutions, then together through two."""

    Size = RgbdSize

    def make(self, channels: int, out: int) -> None:
        self.camera = self.size.camera
        self.colour, self.depth = (convolutions(n, 1)[:-1] for n in (3, channels))  # without the last one
        if self.size.join == "cross_attention":
            self.attention, self.norm = nn.MultiheadAttention(128, 8, batch_first=True), nn.LayerNorm(128)
        self.convolutions = _pair(256 if self.size.join == "concat" else 128, out)

    def forward(self, x: Tensor, count: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        x = self.measured(x)
        image = functional.interpolate(image.to(x.dtype), x.shape[-2:], mode="bilinear", antialias=True)
        joined = self._joined(self.colour(image), self.depth(x))
        return tokens_of(functional.adaptive_avg_pool2d(self.convolutions(joined), CELLS), self.last)

    def _joined(self, colour: Tensor, depth: Tensor) -> Tensor:
        """(B, 128, h, w) each."""
        if self.size.join != "cross_attention":
            return torch.cat([colour, depth], dim=1) if self.size.join == "concat" else colour + depth
        colour, depth = (functional.adaptive_avg_pool2d(one, 2 * CELLS).flatten(2).transpose(1, 2)
                         for one in (colour, depth))
        x = self.norm(colour + self.attention(colour, depth, depth, need_weights=False)[0])
        return x.transpose(1, 2).unflatten(2, (2 * CELLS, 2 * CELLS))
