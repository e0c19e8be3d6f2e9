"""The CLIP vision transformer (Radford et al. 2021, https://arxiv.org/abs/2103.00020)."""

import torch
from torch import Tensor, nn

from vla_ros.nn.norms import layer_normalised
from vla_ros.nn.siglip import SiglipLayer, SiglipSize


class ClipLayer(SiglipLayer):
    """With the quick GELU, x * sigmoid(1.702 x)."""

    def feed(self, x: Tensor) -> Tensor:
        hidden = self.fc1(layer_normalised(self.norm2, x))
        return self.fc2(hidden * torch.sigmoid(1.702 * hidden))


class Clip(nn.Module):
    """Images to a class token and their patches, before any last norm.

    Args:
        size: ViT-L/14 at 224 pixels: hidden 1024, depth 24, heads 16, mlp 4096, patch 14.
        unread: number of last blocks that are not built, if the output of an earlier one is used.
    """

    def __init__(self, size: SiglipSize, unread: int = 0) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, size.hidden, kernel_size=size.patch, stride=size.patch, bias=False)
        self.class_token = nn.Parameter(torch.randn(size.hidden) * 0.02)
        self.positions = nn.Parameter(torch.randn(size.tokens + 1, size.hidden) * 0.02)
        self.norm_in = nn.LayerNorm(size.hidden, eps=1e-5)
        self.layers = nn.ModuleList(
            ClipLayer(size.hidden, size.heads, size.mlp, 1e-5) for _ in range(size.depth - unread)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, image, image) normalised to (N, 1 + tokens, hidden)."""
        x = self.patches(images.to(self.patches.weight.dtype)).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1) + self.positions
        x = layer_normalised(self.norm_in, x)
        for layer in self.layers:
            x = layer(x)
        return x
