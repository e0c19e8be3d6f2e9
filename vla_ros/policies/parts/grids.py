"""Depth images and radar images (range by Doppler) to tokens, one for each cell of a 4 x 4 grid."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.records import Range
from vla_ros.policies.parts.kinds import Encoder

CELLS = 4


@dataclass(frozen=True)
class GridSize:
    """Choices.

    Attributes:
        scale: what values are multiplied by: 0.001 makes m of the mm of a depth image.
        most: what they are cut to then; 0: not at all.
        mixed: one matrix over all cells, of 16 x 16 as many parameters as one for each cell alone.
    """

    scale: Annotated[float, Range(1e-9, 1e9)] = 1.0
    most: Annotated[float, Range(0, 1e9)] = 0.0
    mixed: bool = False


class GridEncoder(Encoder):
    """Of streams of shape (height, width, channels)."""

    Size, tokens = GridSize, CELLS**2
    float32 = ("",)  # as the statistics of batch normalisation are

    def __init__(self, size: GridSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__()
        if len(shape) != 3:
            raise InputError(f"a value of shape {list(shape)}, expected an image: [height, width, channels]")
        self.size, widths = size, (shape[2], 32, 64, 128)
        rows = [(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in zip(widths, widths[1:], strict=False)]  # fmt: skip
        self.convolutions = nn.Sequential(*(part for row in rows for part in row), nn.Conv2d(128, out, 3, 2, 1))
        wide = self.tokens * out if size.mixed else out
        self.last = nn.Linear(wide, wide)

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        x = x * self.size.scale
        x = x.clamp(max=self.size.most) if self.size.most else x
        x = functional.adaptive_avg_pool2d(self.convolutions(x.movedim(-1, 1).to(self.dtype)), CELLS)
        x = x.flatten(2).transpose(1, 2)
        return self.last(x.flatten(1)).view_as(x) if self.size.mixed else self.last(x)
