"""Heads that compute one row after another, each from the rows before it."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from vla_ros.core.records import Count, Range, Width
from vla_ros.nn.norms import layer_normalised
from vla_ros.policies.parts.kinds import Head
from vla_ros.policies.parts.projectors import Dropout, check_heads
from vla_ros.policies.policy import mean_of_valid


@dataclass(frozen=True)
class DecoderSize:
    """`hidden`: width of the `layers`; `mlp`: of their hidden layers."""

    hidden: Width = 512
    layers: Annotated[int, Range(1, 100)] = 4
    heads: Count = 8
    mlp: Annotated[int, Range(1, 262_144)] = 2048
    dropout: Dropout = 0.1

    def __post_init__(self) -> None:
        check_heads(self.hidden, self.heads)

    @property
    def layer(self) -> dict[str, object]:
        """Arguments of torch's layers."""
        return {"d_model": self.hidden, "nhead": self.heads, "dim_feedforward": self.mlp, "dropout": self.dropout,
                "batch_first": True, "norm_first": True}


class RowByRow(Head):
    """The rows of a chunk are numbers, not tokens; trained on the mean squared error, given the demonstrated rows
    before."""

    def act(self, features, draws=None, fixed=None, steer=None, step=None) -> Tensor:
        seen = self.condition(features.summary.to(self.dtype))
        rows = seen.new_zeros(len(seen), 0, self.shape[1])
        for _ in range(self.shape[0]):
            rows = torch.cat([rows, self.rows(seen, rows)[:, -1:]], dim=1)
        return rows.float()

    def loss(self, features, actions, pad, **draws) -> dict[str, Tensor]:
        told = self.rows(self.condition(features.summary.to(self.dtype)), actions[:, :-1].to(self.dtype)).float()
        return {"loss": mean_of_valid((told - actions).square(), pad)}

    def rows(self, seen: Tensor, before: Tensor) -> Tensor:
        """(B, k + 1, D), each row from those before it, of the (B, hidden) condition and the first k rows."""
        raise NotImplementedError


class TransformerHead(RowByRow):
    """A decoder that cross-attends only to the condition."""

    Size = DecoderSize

    def __init__(self, size: DecoderSize, width: int, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.shape, hidden = (horizon, action_dim), size.hidden
        self.condition, self.first = nn.Linear(width, hidden), nn.Linear(action_dim, hidden)
        self.start = nn.Parameter(torch.randn(hidden) * 0.02)
        self.places = nn.Parameter(sinusoids(horizon + 1, hidden))
        self.layers = nn.ModuleList(nn.TransformerDecoderLayer(**size.layer) for _ in range(size.layers))
        self.out = nn.Linear(hidden, action_dim)

    def rows(self, seen: Tensor, before: Tensor) -> Tensor:
        x = torch.cat([self.start.expand(len(seen), 1, -1), self.first(before)], dim=1)
        x = x + self.places[: x.shape[1]]
        for layer in self.layers:
            x = layer(x, seen[:, None], tgt_mask=future(x), tgt_is_causal=True)
        return self.out(x)


@dataclass(frozen=True)
class GptSize(DecoderSize):
    """Like `DecoderSize`, with six layers by default."""

    layers: Annotated[int, Range(1, 100)] = 6


class GptActionsHead(RowByRow):
    """Condition and rows are tokens of one causal sequence; a row is predicted from the token before its own."""

    Size = GptSize

    def __init__(self, size: GptSize, width: int, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.shape, hidden = (horizon, action_dim), size.hidden
        self.condition, self.first = nn.Linear(width, hidden), nn.Linear(action_dim, hidden)
        self.kinds = nn.Parameter(torch.randn(2, hidden) * 0.02)
        self.places = nn.Parameter(torch.randn(horizon + 1, hidden) * 0.02)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(**size.layer) for _ in range(size.layers))
        self.norm, self.out = nn.LayerNorm(hidden), nn.Linear(hidden, action_dim)

    def rows(self, seen: Tensor, before: Tensor) -> Tensor:
        x = torch.cat([seen[:, None] + self.kinds[0], self.first(before) + self.kinds[1]], dim=1)
        x = x + self.places[: x.shape[1]]
        for layer in self.layers:
            x = layer(x, src_mask=future(x), is_causal=True)
        return self.out(layer_normalised(self.norm, x))


def future(x: Tensor) -> Tensor:
    """(S, S) causal mask for (B, S, width): -inf where a token would attend to a later one."""
    return nn.Transformer.generate_square_subsequent_mask(x.shape[1], x.device, x.dtype)


def sinusoids(rows: int, width: int) -> Tensor:
    """(rows, width) alternating sines and cosines (Vaswani et al. 2017)."""
    rates = 10_000 ** -(torch.arange(0, width, 2) / width)
    angle = torch.arange(rows)[:, None] * rates
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]
