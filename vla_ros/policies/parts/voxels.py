"""Points to the cells of a grid in space, or of a map seen from above, and these to tokens."""

from dataclasses import dataclass
from math import prod
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.records import Range
from vla_ros.policies.parts.grids import CELLS, convolutions, last_layer, tokens_of
from vla_ros.policies.parts.points import PointEncoder

_FINE = 1 << 12  # parts of a cell: sums of whole numbers do not depend on the order of the points
Coordinate = Annotated[float, Range(-1e6, 1e6)]
Cells = tuple[Annotated[int, Range(1, 512)], Annotated[int, Range(1, 512)], Annotated[int, Range(1, 512)]]
Corner = tuple[Coordinate, Coordinate, Coordinate]


@dataclass(frozen=True)
class VoxelSize:
    """Choices.

    Attributes:
        lower, upper: corners of the space that is read, in the unit and frame of the points; x, y, z.
        cells: along x, y and z.
        mixed: one matrix over all tokens, in place of one for each token alone.
    """

    lower: Corner = (-3.0, -3.0, -0.5)
    upper: Corner = (3.0, 3.0, 1.5)
    cells: Cells = (32, 32, 16)
    mixed: bool = False

    def __post_init__(self) -> None:
        if any(a >= b for a, b in zip(self.lower, self.upper, strict=True)):
            raise InputError(f"lower {list(self.lower)}, upper {list(self.upper)}: expected each number of the first "
                             "smaller")
        if prod(self.cells) > 1 << 22:
            raise InputError(f"cells {list(self.cells)}: {prod(self.cells):,}, expected at most {1 << 22:,} in all")


class CellEncoder(PointEncoder):
    """Of the points in each cell how many there are (the logarithm), and where in it their middle is."""

    Size = VoxelSize
    float32 = ("",)  # as the statistics of batch normalisation are

    def __init__(self, size: VoxelSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(shape, least=3)
        self.size = size
        ends = torch.tensor([size.lower, size.upper], dtype=torch.float32, device="cpu")
        self.register_buffer("ends", ends, persistent=False)
        self.register_buffer("sides", torch.tensor(size.cells, device="cpu"), persistent=False)

    def grid(self, x: Tensor, real: Tensor) -> Tensor:
        """(B, N, C) points to (B, 4, cells of x, of y, of z)."""
        (lower, upper), sides, count = self.ends, self.sides, prod(self.size.cells)
        places = (x[..., :3].float() - lower) / (upper - lower)  # from 0 to 1
        inside = real & ((places >= 0) & (places < 1)).all(dim=-1)
        # Within the cells before they become whole numbers, which have no place for what is far outside.
        fine = (places.clamp(0, 1) * sides * _FINE).long().clamp(max=sides * _FINE - 1)
        cell = fine // _FINE
        number = (cell[..., 0] * self.size.cells[1] + cell[..., 1]) * self.size.cells[2] + cell[..., 2]
        number = torch.where(inside, number, count)  # the others into a cell behind the last
        rows = torch.cat([torch.ones_like(number)[..., None], fine % _FINE], dim=-1)  # (B, N, 4)
        sums = rows.new_zeros(len(x), count + 1, 4).scatter_add(1, number[..., None].expand(-1, -1, 4), rows)[:, :-1]
        many = sums[..., :1].float()
        middle = torch.where(many > 0, sums[..., 1:] / (many.clamp(min=1) * _FINE) - 0.5, 0.0)
        return torch.cat([many.log1p(), middle], dim=-1).transpose(1, 2).unflatten(2, self.size.cells)


class VoxelEncoder(CellEncoder):
    """Convolutions in space; a token for each cell of a 4 x 4 x 2 grid."""

    tokens = 2 * CELLS**2

    def __init__(self, size: VoxelSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(size, shape, out)
        self.convolutions = convolutions(4, out, nn.Conv3d, nn.BatchNorm3d)
        self.last = last_layer(self.tokens, out, size.mixed)

    def read(self, x: Tensor, real: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool3d(self.convolutions(self.grid(x, real)), (CELLS, CELLS, 2))
        return tokens_of(x, self.last)


class BirdsEyeEncoder(CellEncoder):
    """Seen from above: the cells above each other are channels of one, and a token describes each cell of a 4 x 4
    grid."""

    tokens = CELLS**2

    @dataclass(frozen=True)
    class Size(VoxelSize):
        """With few layers in height."""

        cells: Cells = (64, 64, 4)

    def __init__(self, size: VoxelSize, shape: tuple[int, ...], out: int) -> None:
        super().__init__(size, shape, out)
        self.convolutions = convolutions(4 * size.cells[2], out)
        self.last = last_layer(self.tokens, out, size.mixed)

    def read(self, x: Tensor, real: Tensor) -> Tensor:
        above = self.grid(x, real).movedim(-1, 1).flatten(1, 2)  # (B, 4 * cells of z, cells of x, of y)
        return tokens_of(functional.adaptive_avg_pool2d(self.convolutions(above), CELLS), self.last)
