"""The SigLIP vision transformer without its pooling head (Zhai et al. 2023)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.core.records import Count, Inner, Layers, Pixels, Width
from vla_ros.nn.norms import layer_normalised


@dataclass(frozen=True)
class SiglipSize:
    """so400m/14 at 224 pixels: hidden 1152, depth 27, heads 16, mlp 4304, patch 14."""

    hidden: Width
    depth: Layers
    heads: Count
    mlp: Inner
    patch: Count
    image: Pixels  # pixels, a multiple of `patch`

    @property
    def tokens(self) -> int:
        """Patches of an image."""
        return (self.image // self.patch) ** 2


class SiglipLayer(nn.Module):
    """LayerNorm, attention, LayerNorm, tanh-GELU MLP; queries, keys and values from one matrix."""

    approximate = "tanh"  # of the GELU

    def __init__(self, size: SiglipSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm1 = nn.LayerNorm(size.hidden, eps=1e-6)
        self.qkv = nn.Linear(size.hidden, 3 * size.hidden)
        self.out = nn.Linear(size.hidden, size.hidden)
        self.norm2 = nn.LayerNorm(size.hidden, eps=1e-6)
        self.fc1 = nn.Linear(size.hidden, size.mlp)
        self.fc2 = nn.Linear(size.mlp, size.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, hidden) to the same."""
        x = x + self.attend(x)
        return x + self.feed(x)

    def attend(self, x: Tensor) -> Tensor:
        """What attention adds to (N, tokens, hidden)."""
        qkv = self.qkv(layer_normalised(self.norm1, x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2))

    def feed(self, x: Tensor) -> Tensor:
        """What the MLP adds to (N, tokens, hidden)."""
        return self.fc2(F.gelu(self.fc1(layer_normalised(self.norm2, x)), approximate=self.approximate))


class Siglip(nn.Module):
    """Images to patch features."""

    def __init__(self, size: SiglipSize) -> None:
        super().__init__()
        self.size = size
        self.patches = nn.Conv2d(3, size.hidden, kernel_size=size.patch, stride=size.patch)
        self.positions = nn.Parameter(torch.zeros(size.tokens, size.hidden))
        self.layers = nn.ModuleList(SiglipLayer(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.hidden, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, image, image) in [-1, 1] to (N, tokens, hidden)."""
        x = self.patches(images.to(self.patches.weight.dtype)).flatten(2).transpose(1, 2) + self.positions
        x = x.to(self.layers[0].qkv.weight.dtype)  # in bfloat16 the patch embedding alone stays float32, as published
        for layer in self.layers:
            x = layer(x)
        return layer_normalised(self.norm, x)
