"""Learned queries that read tokens, for encoders whose number of tokens follows from what is measured."""

import torch
from torch import Tensor, nn

from vla_ros.policies.parts.projectors import check_heads


class Queries(nn.Module):
    """`count` queries read the tokens once; the norm stands behind the sum."""

    def __init__(self, width: int, count: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.queries = nn.Parameter(torch.randn(count, width) * 0.02)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B, n, width) to (B, count, width); hidden: (B, n) bool, tokens that are not read."""
        query = self.queries.expand(len(x), -1, -1)
        return self.norm(self.attention(query, x, x, key_padding_mask=hidden, need_weights=False)[0] + query)


def encoder_layer(width: int, heads: int, activation: str = "relu", dropout: float = 0.1) -> nn.TransformerEncoderLayer:
    """With a norm before each part and a hidden layer of four times the width."""
    check_heads(width, heads)
    return nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, activation, batch_first=True, norm_first=True)
