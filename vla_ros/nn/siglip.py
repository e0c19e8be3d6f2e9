"""The SigLIP vision transformer without its pooling head (Zhai et al. 2023); other towers use its layer."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.core.records import Count, Inner, Layers, Pixels, Width
from vla_ros.nn.embeddings import Rotary, rotate
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
    """LayerNorm, attention, LayerNorm, tanh-GELU MLP; queries, keys and values from one matrix.

    Args:
        dropout: in training, of the outputs of attention and MLP and of the MLP's hidden layer.
    """

    approximate = "tanh"  # of the GELU

    def __init__(self, hidden: int, heads: int, mlp: int, epsilon: float = 1e-6, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1 = nn.LayerNorm(hidden, eps=epsilon)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.norm2 = nn.LayerNorm(hidden, eps=epsilon)
        self.fc1 = nn.Linear(hidden, mlp)
        self.fc2 = nn.Linear(mlp, hidden)

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        """(N, tokens, hidden) to the same; `rotary` of (1 or N, 1, tokens, hidden / heads) rotates queries and keys."""
        x = x + self.attend(x, rotary)
        return x + self.feed(x)

    def attend(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        """Output of attention for (N, tokens, hidden), before it is added."""
        qkv = self.qkv(layer_normalised(self.norm1, x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self._drop(self.out(attended.transpose(1, 2).flatten(2)))

    def feed(self, x: Tensor) -> Tensor:
        """Output of the MLP for (N, tokens, hidden), before it is added."""
        hidden = self._drop(F.gelu(self.fc1(layer_normalised(self.norm2, x)), approximate=self.approximate))
        return self._drop(self.fc2(hidden))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Siglip(nn.Module):
    """Images to patch features."""

    def __init__(self, size: SiglipSize) -> None:
        super().__init__()
        self.size = size
        self.patches = nn.Conv2d(3, size.hidden, kernel_size=size.patch, stride=size.patch)
        self.positions = nn.Parameter(torch.zeros(size.tokens, size.hidden))
        self.layers = nn.ModuleList(SiglipLayer(size.hidden, size.heads, size.mlp) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.hidden, eps=1e-6)

    def embed(self, images: Tensor) -> Tensor:
        """(N, 3, image, image) in [-1, 1] to the (N, tokens, hidden) patches with their positions."""
        x = self.patches(images.to(self.patches.weight.dtype)).flatten(2).transpose(1, 2) + self.positions
        return x.to(self.layers[0].qkv.weight.dtype)  # in a bfloat16 model only these stay float32, as published

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, image, image) in [-1, 1] to (N, tokens, hidden)."""
        x = self.embed(images)
        for layer in self.layers:
            x = layer(x)
        return layer_normalised(self.norm, x)
