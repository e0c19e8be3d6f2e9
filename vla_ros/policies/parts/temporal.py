"""From the language model's output for a window of steps to the input of the head."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from vla_ros.core.records import Count, Range, Width
from vla_ros.nn.norms import layer_normalised
from vla_ros.policies.parts.autoregressive import future
from vla_ros.policies.parts.kinds import Temporal
from vla_ros.policies.parts.pooling import encoder_layer
from vla_ros.policies.parts.projectors import Dropout, check_heads

Steps = Annotated[int, Range(2, 1000)]


@dataclass(frozen=True)
class TemporalSize:
    """`window`: number of steps; `hidden`: width of the `layers`."""

    window: Steps = 8
    hidden: Width = 512
    layers: Count = 4
    heads: Count = 8
    dropout: Dropout = 0.1


class TransformerTemporal(Temporal):
    """A causal transformer with learned positions."""

    Size = TemporalSize

    def __init__(self, size: TemporalSize, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, size.hidden), nn.Linear(size.hidden, width)
        self.places = nn.Parameter(torch.randn(size.window, size.hidden) * 0.02)
        self.layers = nn.ModuleList(
            encoder_layer(size.hidden, size.heads, "gelu", size.dropout) for _ in range(size.layers)
        )
        self.norm = nn.LayerNorm(size.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.to(self.dtype)) + self.places[: x.shape[1]]
        for layer in self.layers:
            x = layer(x, src_mask=future(x), is_causal=True)
        return self.last(layer_normalised(self.norm, x))


@dataclass(frozen=True)
class LstmSize:
    """Like `TemporalSize`, without heads."""

    window: Steps = 8
    hidden: Width = 512
    layers: Count = 4
    dropout: Dropout = 0.1


class LstmTemporal(Temporal):
    """An LSTM that starts from zeros in every window."""

    Size = LstmSize

    def __init__(self, size: LstmSize, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, size.hidden), nn.Linear(size.hidden, width)
        dropout = size.dropout if size.layers > 1 else 0.0  # torch has none after the last layer
        self.lstm = nn.LSTM(size.hidden, size.hidden, size.layers, batch_first=True, dropout=dropout)
        self.norm = nn.LayerNorm(size.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(layer_normalised(self.norm, self.lstm(self.first(x.to(self.dtype)))[0]))


@dataclass(frozen=True)
class WorkingSize:
    """`window`: slots; `heads` of attention."""

    window: Steps = 32
    heads: Count = 8


class WorkingMemory(Temporal):
    """Each step attends to the slots (itself and the steps before it); a gate mixes the result with the step."""

    Size = WorkingSize

    def __init__(self, size: WorkingSize, width: int) -> None:
        super().__init__()
        check_heads(width, size.heads)
        self.attention = nn.MultiheadAttention(width, size.heads, batch_first=True)
        self.gate = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        return self.worked(x, x, attn_mask=future(x))

    def worked(self, x: Tensor, slots: Tensor, **masks: Tensor) -> Tensor:
        """(N, Q, width) steps that ask (N, K, width) slots; `masks`: of the attention."""
        read = self.attention(x, slots, slots, need_weights=False, **masks)[0]
        gate = self.gate(torch.cat([x, read], dim=-1)).sigmoid()
        return gate * read + (1 - gate) * x
