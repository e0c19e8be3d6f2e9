"""The vision towers of GR00T's generations, and how their patches become tokens of the text tower.

Sources: the Isaac GR00T code of N1, N1.5, N1.6 (Eagle: SigLIP) and N1.7 (Qwen3-VL). Which operations run depends
only on the sizes of the images, never on values.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.core.records import Count, Inner, Layers, Width
from vla_ros.nn.embeddings import Rotary, signed_table
from vla_ros.nn.norms import layer_normalised
from vla_ros.nn.resize import resize_smooth
from vla_ros.nn.siglip import SiglipLayer


@dataclass(frozen=True)
class VisionSize:
    """A vision tower.

    Attributes:
        grid: rows, and columns, of its table of positions.
        deepstack: layers whose output is also added in the text tower's first layers (Qwen3-VL).
    """

    hidden: Width
    depth: Layers
    heads: Count
    mlp: Inner
    patch: Count
    grid: Count
    deepstack: tuple[Layers, ...] = ()


class FixedPatches(nn.Module):
    """SigLIP's patches, for images of one size: `grid` patches per side."""

    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, size.hidden, kernel_size=size.patch, stride=size.patch)
        self.positions = nn.Parameter(torch.zeros(size.grid**2, size.hidden))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, H / patch, W / patch, hidden)."""
        x = self.patches(images.to(self.patches.weight.dtype)).permute(0, 2, 3, 1)
        return x + self.positions.unflatten(0, x.shape[1:3])


class FlexiblePatches(nn.Module):
    """SigLIP 2's patches (N1.6): for images of any size, to which the positions are scaled."""

    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.patch, self.grid = size.patch, size.grid
        self.patches = nn.Linear(3 * size.patch**2, size.hidden)
        self.positions = nn.Parameter(torch.zeros(size.grid**2, size.hidden))

    def forward(self, images: Tensor) -> Tensor:
        """Like `FixedPatches`; the numbers of a patch are ordered by row, column and channel."""
        x = images.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))  # (N, 3, rows, p, columns, p)
        x = self.patches(x.permute(0, 2, 4, 3, 5, 1).flatten(3).to(self.patches.weight.dtype))
        table = self.positions.float().unflatten(0, (self.grid, self.grid)).permute(2, 0, 1)[None]
        table = resize_smooth(table, x.shape[1:3])
        return x + table[0].permute(1, 2, 0).to(x.dtype)


class QwenPatches(nn.Module):
    """Qwen3-VL's patches: for images of any size; the kernel over two frames gets the same frame twice."""

    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.patch, self.grid = size.patch, size.grid
        self.patches = nn.Conv3d(3, size.hidden, (2, size.patch, size.patch))
        self.positions = nn.Parameter(torch.zeros(size.grid**2, size.hidden))

    def forward(self, images: Tensor) -> Tensor:
        """As `FixedPatches`."""
        weight = self.patches.weight.sum(dim=2)  # the same frame twice is one frame with the sum of the weights
        x = F.conv2d(images.to(weight.dtype), weight, self.patches.bias, stride=self.patch).permute(0, 2, 3, 1)
        table = self.positions.float().unflatten(0, (self.grid, self.grid)).permute(2, 0, 1)[None]
        table = F.interpolate(table, x.shape[1:3], mode="bilinear", align_corners=True)
        return x + table[0].permute(1, 2, 0).to(x.dtype)


PATCHES = {"fixed": FixedPatches, "flexible": FlexiblePatches, "qwen": QwenPatches}


class EagleVision(nn.Module):
    """SigLIP and Eagle's connector.

    Args:
        patches: a key of PATCHES.
        select: which hidden state is used, counted from the last; -1 is the last one, after the last norm.
        order: order of the numbers when 2 x 2 patches become one token, "position" or "channel"; "": one token per
            patch.
        connector: number of its linear layers, 1 or 2.
        out: width of the text tower.
    """

    def __init__(self, size: VisionSize, patches: str, select: int, order: str, connector: int, out: int) -> None:
        super().__init__()
        self.order = order
        self.embed = PATCHES[patches](size)
        layers = range(size.depth + 1 + select)
        self.layers = nn.ModuleList(SiglipLayer(size.hidden, size.heads, size.mlp) for _ in layers)
        self.norm = nn.LayerNorm(size.hidden, eps=1e-6) if select == -1 else None
        width = size.hidden * (4 if order else 1)
        if connector == 1:
            self.connector = nn.Sequential(nn.Linear(width, out))
        else:
            self.connector = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out), nn.GELU(), nn.Linear(out, out))

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, rows, columns, hidden), the selected hidden state."""
        x = self.embed(images)
        shape, x = x.shape, x.flatten(1, 2).to(self.layers[0].qkv.weight.dtype)
        for layer in self.layers:
            x = layer(x)
        return (x if self.norm is None else layer_normalised(self.norm, x)).view(shape)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, H, W) in [-1, 1] to (N, tokens, out), and none for the deeper layers."""
        x = self.features(images)
        if not self.order:
            x = x.flatten(1, 2)
        else:
            x = blocks(x)  # (N, tokens, 4, hidden)
            x = (x if self.order == "position" else x.transpose(2, 3)).flatten(2)
        return self.connector(x), []


class QwenMerger(nn.Module):
    """2 x 2 patches to one token of the text tower; the norm is over one patch, or (`joint`) over the four together."""

    def __init__(self, hidden: int, out: int, joint: bool) -> None:
        super().__init__()
        self.joint = joint
        self.norm = nn.LayerNorm(hidden * (4 if joint else 1), eps=1e-6)
        self.fc1 = nn.Linear(4 * hidden, 4 * hidden)
        self.fc2 = nn.Linear(4 * hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, 4, hidden) to (N, tokens, out)."""
        x = layer_normalised(self.norm, x.flatten(2)) if self.joint else layer_normalised(self.norm, x).flatten(2)
        return self.fc2(F.gelu(self.fc1(x)))


class QwenVision(nn.Module):
    """Qwen3-VL's vision tower: SigLIP's layers with rotated queries and keys, and DeepStack."""

    def __init__(self, size: VisionSize, out: int) -> None:
        super().__init__()
        self.deep, self.head_dim = size.deepstack, size.hidden // size.heads
        self.embed = QwenPatches(size)
        self.layers = nn.ModuleList(SiglipLayer(size.hidden, size.heads, size.mlp) for _ in range(size.depth))
        self.merger = QwenMerger(size.hidden, out, joint=False)
        self.deep_mergers = nn.ModuleList(QwenMerger(size.hidden, out, joint=True) for _ in size.deepstack)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, H, W) in [-1, 1] to (N, tokens, out), and the same for each of the text tower's first layers
        (`deepstack`)."""
        x = self.embed(images)
        shape, x = x.shape, x.flatten(1, 2).to(self.layers[0].qkv.weight.dtype)
        rotary, deep = self._rotary(shape[1], shape[2], x.device), {}
        for index, layer in enumerate(self.layers):
            x = layer(x, rotary)
            if index in self.deep:
                deep[index] = blocks(x.view(shape))
        deeper = [merge(deep[i]) for i, merge in zip(self.deep, self.deep_mergers, strict=True)]
        return self.merger(blocks(x.view(shape))), deeper

    def _rotary(self, rows: int, columns: int, device: torch.device) -> Rotary:
        """Rotations, (1, 1, rows * columns, head_dim): half of the angles by the row, half by the column."""
        quarter = torch.arange(0, self.head_dim // 2, 2, device=device, dtype=torch.float32) / (self.head_dim // 2)
        turns = 10_000.0**-quarter
        row = torch.arange(rows, device=device).float()[:, None, None] * turns
        column = torch.arange(columns, device=device).float()[None, :, None] * turns
        angles = torch.cat([row.expand(-1, columns, -1), column.expand(rows, -1, -1)], dim=-1).flatten(0, 1)
        return signed_table(angles[None, None])


def blocks(x: Tensor) -> Tensor:
    """(N, rows, columns, C) to (N, rows * columns / 4, 4, C): 2 x 2 neighbours together, row by row."""
    return x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
