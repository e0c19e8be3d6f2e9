"""Heads that compute a chunk in one step, from the hidden state of the last token."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.records import Range, Width
from vla_ros.policies.parts.kinds import Features, Head
from vla_ros.policies.parts.projectors import Dropout
from vla_ros.policies.policy import mean_of_valid
from vla_ros.policies.robovlms.actions import BEHIND, Discretiser


def trunk(width: int, hidden: int, layers: int, dropout: float) -> nn.Sequential:
    """`layers` times linear, LayerNorm, GELU, dropout."""
    rows = [
        (nn.Linear(hidden if i else width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout))
        for i in range(layers)
    ]
    return nn.Sequential(*(part for row in rows for part in row))


@dataclass(frozen=True)
class MlpSize:
    """`hidden`: width of the layers."""

    hidden: Width = 512
    layers: Annotated[int, Range(1, 100)] = 2
    dropout: Dropout = 0.1


class MlpHead(Head):
    """A perceptron, trained on the mean squared error."""

    Size = MlpSize

    def __init__(self, size: MlpSize, width: int, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.shape = horizon, action_dim
        self.trunk = trunk(width, size.hidden, size.layers, size.dropout)
        self.out = nn.Linear(size.hidden, horizon * action_dim)

    def act(self, features, draws=None, fixed=None, steer=None, step=None) -> Tensor:
        return self.out(self.trunk(features.summary.to(self.dtype))).unflatten(-1, self.shape).float()

    def loss(self, features, actions, pad, **draws) -> dict[str, Tensor]:
        return {"loss": mean_of_valid((self.act(features) - actions).square(), pad)}


@dataclass(frozen=True)
class GaussianSize(MlpSize):
    """`sampled`: actions are drawn from the distribution, else they are its mean. `least_std` and `most_std`: bounds of
    the deviation."""

    sampled: bool = False
    least_std: Annotated[float, Range(1e-6, 1e3)] = 0.01
    most_std: Annotated[float, Range(1e-6, 1e3)] = 1.0

    def __post_init__(self) -> None:
        if self.least_std >= self.most_std:
            raise InputError(f"least_std {self.least_std}, most_std {self.most_std}: expected the first smaller")


class GaussianHead(Head):
    """Mean and deviation of each number, trained on the likelihood."""

    Size = GaussianSize

    def __init__(self, size: GaussianSize, width: int, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.size, self.shape = size, (horizon, action_dim)
        self.trunk = trunk(width, size.hidden, size.layers, size.dropout)
        self.mean_head, self.log_std_head = (nn.Linear(size.hidden, horizon * action_dim) for _ in range(2))

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"noise": (size, *self.shape)} if self.size.sampled else {}

    def distribution(self, features: Features) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation, (B, H, D) each."""
        hidden, size = self.trunk(features.summary.to(self.dtype)), self.size
        mean, log_std = (
            head(hidden).unflatten(-1, self.shape).float() for head in (self.mean_head, self.log_std_head)
        )
        return mean, log_std.clamp(math.log(size.least_std), math.log(size.most_std))

    @staticmethod
    def log_prob(actions: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        """(B, H) of (B, H, D) actions: the sum over their numbers."""
        z = (actions - mean) * (-log_std).exp()
        return (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def act(self, features, draws=None, fixed=None, steer=None, step=None) -> Tensor:
        mean, log_std = self.distribution(features)
        return mean + log_std.exp() * draws["noise"] if self.size.sampled else mean

    def loss(self, features, actions, pad, **draws) -> dict[str, Tensor]:
        mean, log_std = self.distribution(features)
        error = -self.log_prob(actions, mean, log_std)[..., None]
        return {"loss": mean_of_valid(error, pad), "error": mean_of_valid((mean - actions).square(), pad).detach()}


@dataclass(frozen=True)
class DiscreteSize(MlpSize):
    """`bins` of each number from -1 to 1."""

    bins: Annotated[int, Range(2, 4096)] = 256


class DiscreteHead(Head):
    """The most likely bin of each number, all at once; RoboVLMs' bins, trained on the cross entropy."""

    Size, bounded = DiscreteSize, True

    def __init__(self, size: DiscreteSize, width: int, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.shape = horizon, action_dim
        self.known = Discretiser(size.bins, -1.0, 1.0, size.bins + BEHIND, 0)
        self.trunk = trunk(width, size.hidden, size.layers, size.dropout)
        self.out = nn.Linear(size.hidden, horizon * action_dim * size.bins)
        centres = torch.from_numpy(self.known.values(range(size.bins - 1, -1, -1))).float()
        self.register_buffer("centres", centres, persistent=False)

    def logits(self, features: Features) -> Tensor:
        """(B, H, D, bins), the lowest bin first."""
        return self.out(self.trunk(features.summary.to(self.dtype))).unflatten(-1, (*self.shape, -1)).float()

    def act(self, features, draws=None, fixed=None, steer=None, step=None) -> Tensor:
        logits = self.logits(features)
        return self.centres[logits.argmax(-1)] + 0 * logits.sum(-1)  # NaN stays NaN

    def loss(self, features, actions, pad, **draws) -> dict[str, Tensor]:
        wanted = self.known.end - 1 - self.known.ids(actions)
        error = functional.cross_entropy(self.logits(features).movedim(-1, 1), wanted, reduction="none")
        return {"loss": mean_of_valid(error, pad)}
