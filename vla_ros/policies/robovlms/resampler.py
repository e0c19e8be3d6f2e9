"""Reduces the tokens of an image, an option of RoboVLMs."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.norms import layer_normalised


class PerceiverResampler(nn.Module):
    """Latents that attend to an image's tokens and to themselves (Alayrac et al. 2022, https://arxiv.org/abs/2204.14198)."""

    LATENTS, DEPTH, HEADS, HEAD_DIM = 64, 6, 8, 64

    def __init__(self, width: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(self.LATENTS, width))
        self.layers = nn.ModuleList(_Reader(width, self.HEADS, self.HEAD_DIM) for _ in range(self.DEPTH))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width) to (N, 64, width)."""
        latents = self.latents.expand(len(x), -1, -1)
        for layer in self.layers:
            latents = layer(latents, x)
        return layer_normalised(self.norm, latents)


class _Reader(nn.Module):
    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, inner = heads, heads * head_dim
        self.media_norm, self.latent_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key_value = nn.Linear(width, inner, bias=False), nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, latents: Tensor, media: Tensor) -> Tensor:
        own = layer_normalised(self.latent_norm, latents)
        known = torch.cat([layer_normalised(self.media_norm, media), own], dim=1)
        parts = self.query(own), *self.key_value(known).chunk(2, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(query, key, value)
        latents = latents + self.out(attended.transpose(1, 2).flatten(2))
        return latents + self.down(functional.gelu(self.up(layer_normalised(self.mlp_norm, latents))))
