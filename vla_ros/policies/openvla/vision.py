"""OpenVLA's vision: DINOv2 and SigLIP towers side by side, their features fused, and the projector to the text's width.

The output of the second-to-last block is used, before any norm, so the last block of a tower is not built. Sources:
timm's vision transformers as OpenVLA calls them (https://arxiv.org/abs/2406.09246), FiLM as OpenVLA-OFT
(https://arxiv.org/abs/2502.19645).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.keypoint_stem import KeypointStem
from vla_ros.nn.siglip import SiglipLayer
from vla_ros.policies.openvla.config import OpenVLAConfig, TowerSize


class Block(SiglipLayer):
    """A block with exact GELU; with LayerScale in DINOv2, with FiLM between attention and MLP in OFT."""

    approximate = "none"

    def __init__(self, size: TowerSize, text_width: int) -> None:
        super().__init__(size.hidden, size.heads, size.mlp)
        self.scaled, self.film = size.layer_scale, bool(text_width)
        if self.scaled:
            self.ls1, self.ls2 = (nn.Parameter(torch.ones(size.hidden)) for _ in range(2))
        if self.film:
            self.scale, self.shift = nn.Linear(text_width, size.hidden), nn.Linear(text_width, size.hidden)

    def forward(self, x: Tensor, text: Tensor | None = None) -> Tensor:
        """(N, tokens, hidden) to the same; `text` (N, width) is the mean embedding of the prompt."""
        attended = self.attend(x)
        x = x + (attended * self.ls1 if self.scaled else attended)
        if self.film:
            text = text.to(self.scale.weight.dtype)
            x = x * (1 + self.scale(text)[:, None]) + self.shift(text)[:, None]
        out = self.feed(x)
        return x + (out * self.ls2 if self.scaled else out)


class Tower(nn.Module):
    """From normalised images to the features of their patches."""

    def __init__(self, size: TowerSize, text_width: int) -> None:
        super().__init__()
        self.prefix = size.prefix
        self.patches = nn.Conv2d(3, size.hidden, kernel_size=size.patch, stride=size.patch)
        self.positions = nn.Parameter(torch.zeros(1, size.tokens, size.hidden))  # only of the patches
        if size.prefix:
            self.class_token = nn.Parameter(torch.zeros(1, 1, size.hidden))
            self.registers = nn.Parameter(torch.zeros(1, size.prefix - 1, size.hidden))
        self.blocks = nn.ModuleList(Block(size, text_width) for _ in range(size.depth - 1))

    def forward(self, images: Tensor, text: Tensor | None) -> Tensor:
        """(N, 3, image, image) normalised and (N, width) to (N, tokens, hidden)."""
        x = self.patches(images.to(self.patches.weight.dtype)).flatten(2).transpose(1, 2) + self.positions
        if self.prefix:
            first = torch.cat([self.class_token, self.registers], dim=1)
            x = torch.cat([first.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x, text)
        return x[:, self.prefix :]


class Vision(nn.Module):
    """From images to tokens of the text's width, one camera after another.

    Attributes:
        towers: by name, in the order in which their features are joined.
    """

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        width, text_width = config.text.width, config.text.width if config.film else 0
        self.stem = None
        if config.stem:
            self.stem = KeypointStem(config.stem, len(config.cameras), width, width, True, summarised=False)
            return
        self.towers = nn.ModuleDict({name: Tower(size, text_width) for name, size in config.towers.items()})
        hidden = sum(size.hidden for size in config.towers.values())
        sizes = (hidden, 4 * hidden, width, width) if config.dino else (hidden, width, width)
        self.projector = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False))

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """(B, N, towers, 3, image, image) normalised for each tower, and (B, width) for FiLM or the stem, to
        (B, N * P, width)."""
        if self.stem is not None:
            return self.stem(images[:, :, 0], text).flatten(1, 2)
        size, cameras = images.shape[:2]
        if text is not None:
            text = text.repeat_interleave(cameras, dim=0)
        flat = images.flatten(0, 1)
        x = torch.cat([tower(flat[:, i], text) for i, tower in enumerate(self.towers.values())], dim=-1)
        for i, layer in enumerate(self.projector):
            x = layer(functional.gelu(x) if i else x)
        return x.reshape(size, -1, x.shape[-1])
