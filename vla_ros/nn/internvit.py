"""InternViT, the vision tower of InternVL (Chen et al. 2024, https://arxiv.org/abs/2312.14238)."""

import torch
from torch import Tensor, nn

from vla_ros.nn.siglip import SiglipLayer, SiglipSize


class InternVitLayer(SiglipLayer):
    """A layer of SigLIP with exact GELU, and a learned factor per feature on the outputs of attention and MLP."""

    approximate = "none"

    def __init__(self, size: SiglipSize) -> None:
        super().__init__(size.hidden, size.heads, size.mlp)
        self.scale1, self.scale2 = (nn.Parameter(torch.full((size.hidden,), 0.1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, hidden) to the same."""
        x = x + self.scale1 * self.attend(x)
        return x + self.scale2 * self.feed(x)


class InternVit(nn.Module):
    """Images to patch features, without a last norm."""

    def __init__(self, size: SiglipSize) -> None:
        super().__init__()
        self.size = size
        self.patches = nn.Conv2d(3, size.hidden, kernel_size=size.patch, stride=size.patch)
        self.first = nn.Parameter(torch.randn(1, 1, size.hidden))  # the token before the patches
        self.positions = nn.Parameter(torch.randn(1, 1 + size.tokens, size.hidden))
        self.layers = nn.ModuleList(InternVitLayer(size) for _ in range(size.depth))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, image, image) normalised to (N, 1 + tokens, hidden)."""
        x = self.patches(images.to(self.patches.weight.dtype)).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return x
