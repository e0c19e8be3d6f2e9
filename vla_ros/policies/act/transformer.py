"""ACT's transformer layers and positions: tokens are (B, S, D); positions are added to queries and keys, never to
values."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.policies.act.config import ACTConfig

ACTIVATION = {"relu": functional.relu, "gelu": functional.gelu}


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, normalised after each (or before, with `pre_norm`)."""

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        dim, drop = config.dim_model, config.dropout
        self.self_attn = nn.MultiheadAttention(dim, config.n_heads, dropout=drop, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(dim, config.dim_feedforward), nn.Linear(config.dim_feedforward, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(drop)
        self.activation, self.pre_norm = ACTIVATION[config.feedforward_activation], config.pre_norm

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, S, D) tokens, positions that broadcast to them, (B, S) True if a token is padding."""
        y = self.norm1(x) if self.pre_norm else x
        keys = y + positions
        y = self.self_attn(keys, keys, y, key_padding_mask=padding, need_weights=False)[0]
        x = x + self.dropout(y)
        if not self.pre_norm:
            x = self.norm1(x)
        y = self.norm2(x) if self.pre_norm else x
        x = x + self.dropout(self.linear2(self.dropout(self.activation(self.linear1(y)))))
        return x if self.pre_norm else self.norm2(x)


class Encoder(nn.Module):
    """Layers; with `pre_norm` one more normalisation after the last."""

    def __init__(self, config: ACTConfig, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(layers))
        self.norm = nn.LayerNorm(config.dim_model) if config.pre_norm else nn.Identity()

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, S, D) to the same; see `EncoderLayer`."""
        for layer in self.layers:
            x = layer(x, positions, padding)
        return self.norm(x)


class DecoderLayer(nn.Module):
    """Self-attention among the H queries, cross-attention to the encoder's tokens, a feed-forward network."""

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        dim, drop = config.dim_model, config.dropout
        self.self_attn = nn.MultiheadAttention(dim, config.n_heads, dropout=drop, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(dim, config.n_heads, dropout=drop, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(dim, config.dim_feedforward), nn.Linear(config.dim_feedforward, dim)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(drop)
        self.activation, self.pre_norm = ACTIVATION[config.feedforward_activation], config.pre_norm

    def forward(self, x: Tensor, memory: Tensor, memory_keys: Tensor, positions: Tensor) -> Tensor:
        """(B, H, D) queries, (B, S, D) encoder output without and with its positions, (H, D) positions."""
        y = self.norm1(x) if self.pre_norm else x
        keys = y + positions
        x = x + self.dropout(self.self_attn(keys, keys, y, need_weights=False)[0])
        if not self.pre_norm:
            x = self.norm1(x)
        y = self.norm2(x) if self.pre_norm else x
        x = x + self.dropout(self.multihead_attn(y + positions, memory_keys, memory, need_weights=False)[0])
        if not self.pre_norm:
            x = self.norm2(x)
        y = self.norm3(x) if self.pre_norm else x
        x = x + self.dropout(self.linear2(self.dropout(self.activation(self.linear1(y)))))
        return x if self.pre_norm else self.norm3(x)


class Decoder(nn.Module):
    """Layers and a normalisation after the last, for both values of `pre_norm`."""

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_decoder_layers))
        self.norm = nn.LayerNorm(config.dim_model)

    def forward(self, x: Tensor, memory: Tensor, memory_keys: Tensor, positions: Tensor) -> Tensor:
        """(B, H, D) to the same; see `DecoderLayer`."""
        for layer in self.layers:
            x = layer(x, memory, memory_keys, positions)
        return self.norm(x)


def sinusoid_1d(length: int, dim: int) -> Tensor:
    """(length, dim): sin on even, cos on odd dimensions j of pos / 10000^(2 floor(j/2) / dim), pos from 0."""
    pair = torch.div(torch.arange(dim, dtype=torch.float64, device="cpu"), 2, rounding_mode="floor")
    frequency = 10000 ** (2 * pair / dim)
    angle = torch.arange(length, dtype=torch.float64, device="cpu")[:, None] / frequency
    return _interleave(angle).float()


def sinusoid_2d(rows: int, columns: int, dim: int) -> Tensor:
    """(rows * columns, dim): the row's sinusoid in the first half, the column's in the second.

    Indices run from 1 to N, are divided by N + 1e-6 and multiplied by 2 pi.
    """
    half = dim // 2

    def axis(n: int) -> Tensor:
        place = torch.arange(1, n + 1, dtype=torch.float32, device="cpu") / (n + 1e-6) * (2 * math.pi)
        exponent = 2 * torch.div(torch.arange(half, dtype=torch.float32, device="cpu"), 2, rounding_mode="floor") / half
        return _interleave(place[:, None] / 10000**exponent)

    y = axis(rows)[:, None].expand(rows, columns, half)
    x = axis(columns)[None].expand(rows, columns, half)
    return torch.cat([y, x], dim=-1).reshape(rows * columns, dim)


def _interleave(angle: Tensor) -> Tensor:
    return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)
