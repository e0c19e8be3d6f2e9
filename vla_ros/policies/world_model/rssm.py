"""Recurrent state-space models: the belief about the world from step to step (Hafner et al. 2019,
https://arxiv.org/abs/1811.04551).

An action leads from the step at which it was commanded to the next one: the belief at step t follows from belief and
action at step t - 1.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.policies.policy import tensors


@tensors
class Belief:
    """Belief at one step, or at T steps: h (B, H) or (B, T, H), s (B, S) or (B, T, S)."""

    h: Tensor
    s: Tensor

    @property
    def features(self) -> Tensor:
        """(..., H + S), input of the heads."""
        return torch.cat([self.h, self.s], dim=-1)


@tensors
class Gaussian:
    """Independent normal distributions, mean and std (..., S)."""

    mean: Tensor
    std: Tensor

    def at(self, noise: Tensor | None) -> Tensor:
        """A draw from standard normal numbers; the mean without them."""
        return self.mean if noise is None else self.mean + self.std * noise


def divergence(one: Gaussian, other: Gaussian, free: float = 0.0) -> Tensor:
    """KL(one || other) in nats, summed over the last dimension, (...): at least `free` each."""
    ratio = (one.std / other.std).square()
    shift = ((one.mean - other.mean) / other.std).square()
    return (0.5 * (ratio + shift - 1 - ratio.log()).sum(dim=-1)).clamp(min=free)


def stacked(rows: list) -> Belief | Gaussian:
    """Stack the distributions of T steps, (B, T, ...)."""
    names = rows[0].__dataclass_fields__
    return type(rows[0])(**{name: torch.stack([getattr(row, name) for row in rows], dim=1) for name in names})


class StateSpace(nn.Module, ABC):
    """Attributes: deterministic, stochastic: H and S."""

    deterministic: int
    stochastic: int

    def begin(self, size: int) -> Belief:
        """The belief before the first observation."""
        like = next(self.parameters())
        return Belief(like.new_zeros(size, self.deterministic), like.new_zeros(size, self.stochastic))

    @abstractmethod
    def predict(self, belief: Belief, action: Tensor, noise: Tensor | None = None) -> tuple[Belief, Gaussian]:
        """The next step without an observation, after a (B, A) action; drawn with `noise` (B, S)."""

    @abstractmethod
    def update(
        self, belief: Belief, action: Tensor, embedding: Tensor, noise: Tensor | None = None
    ) -> tuple[Belief, Gaussian, Gaussian]:
        """The next step, observed as a (B, E) embedding; its prior (expected) and posterior (after the observation)."""

    def observe(
        self, belief: Belief, actions: Tensor, embeddings: Tensor, noise: Tensor | None = None
    ) -> tuple[Belief, Gaussian, Gaussian]:
        """T observed steps, from the belief before them.

        Args:
            actions: (B, T, A), row t commanded one step before embedding t.
            embeddings: (B, T, E).
            noise: (B, T, S), None for the means.
        """
        found = []
        for t in range(actions.shape[1]):
            found.append(self.update(belief, actions[:, t], embeddings[:, t], None if noise is None else noise[:, t]))
            belief = found[-1][0]
        return tuple(stacked(list(rows)) for rows in zip(*found, strict=True))

    def imagine(self, belief: Belief, actions: Tensor, noise: Tensor | None = None) -> Belief:
        """T steps after (B, T, A) actions, without observations; row t is the step after action t."""
        found = []
        for t in range(actions.shape[1]):
            belief, _ = self.predict(belief, actions[:, t], None if noise is None else noise[:, t])
            found.append(belief)
        return stacked(found)


def _gaussian_layers(width: int, hidden: int, stochastic: int) -> nn.Sequential:
    layers = nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.ELU(), nn.Linear(hidden, 2 * stochastic)
    return nn.Sequential(*layers)


class Rssm(StateSpace):
    """h' = GRU([s, a], h); s is normal: prior from h', posterior from h' and the observation."""

    LEAST = 0.1  # standard deviation

    def __init__(
        self, action_dim: int, embedding: int = 512, deterministic: int = 256, stochastic: int = 32, hidden: int = 512
    ) -> None:
        super().__init__()
        self.deterministic, self.stochastic = deterministic, stochastic
        self.cell = nn.GRUCell(stochastic + action_dim, deterministic)
        self.prior = _gaussian_layers(deterministic, hidden, stochastic)
        self.posterior = _gaussian_layers(deterministic + embedding, hidden, stochastic)

    def predict(self, belief: Belief, action: Tensor, noise: Tensor | None = None) -> tuple[Belief, Gaussian]:
        h = self.cell(torch.cat([belief.s, action], dim=-1), belief.h)
        prior = self._normal(self.prior(h))
        return Belief(h, prior.at(noise)), prior

    def update(
        self, belief: Belief, action: Tensor, embedding: Tensor, noise: Tensor | None = None
    ) -> tuple[Belief, Gaussian, Gaussian]:
        expected, prior = self.predict(belief, action)
        posterior = self._normal(self.posterior(torch.cat([expected.h, embedding], dim=-1)))
        return Belief(expected.h, posterior.at(noise)), prior, posterior

    def _normal(self, numbers: Tensor) -> Gaussian:
        mean, std = numbers.chunk(2, dim=-1)
        return Gaussian(mean, functional.softplus(std) + self.LEAST)


class TwoCells(StateSpace):
    """Two GRUs over one deterministic state: one reads the action, the other also the observation.

    Their outputs are treated as means of normal distributions with deviation 1, so that the divergence is half the
    squared distance.
    """

    stochastic = 0

    def __init__(self, action_dim: int, embedding: int = 512, deterministic: int = 256, hidden: int = 512) -> None:
        super().__init__()
        self.deterministic = deterministic
        self.to_prior = nn.Linear(deterministic + action_dim, hidden)
        self.to_posterior = nn.Linear(deterministic + action_dim + embedding, hidden)
        self.prior, self.posterior = (nn.GRUCell(hidden, deterministic) for _ in range(2))

    def predict(self, belief: Belief, action: Tensor, noise: Tensor | None = None) -> tuple[Belief, Gaussian]:
        h = self.prior(functional.elu(self.to_prior(torch.cat([belief.h, action], dim=-1))), belief.h)
        return Belief(h, belief.s), Gaussian(h, torch.ones_like(h))

    def update(
        self, belief: Belief, action: Tensor, embedding: Tensor, noise: Tensor | None = None
    ) -> tuple[Belief, Gaussian, Gaussian]:
        read = torch.cat([belief.h, action, embedding], dim=-1)
        h = self.posterior(functional.elu(self.to_posterior(read)), belief.h)
        return Belief(h, belief.s), self.predict(belief, action)[1], Gaussian(h, torch.ones_like(h))


KINDS = {"gaussian": Rssm, "two_cells": TwoCells}
