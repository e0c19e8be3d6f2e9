"""Models that predict the next state from a state and an action: a distribution, or an ensemble of them
(Lakshminarayanan et al. 2017, https://arxiv.org/abs/1612.01474)."""

import math

import torch
from torch import Tensor, nn

from vla_ros.policies.policy import tensors
from vla_ros.policies.world_model.rssm import Gaussian

LOG_STD = (math.log(1e-4), 0.0)


def _block(width: int, hidden: int, dropout: float) -> list[nn.Module]:
    return [nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout)]


class Probabilistic(nn.Module):
    """(B, S) states and (B, A) actions to a normal distribution of the next states."""

    def __init__(self, state_dim: int = 768, action_dim: int = 7, hidden: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        widths = (state_dim + action_dim, hidden, hidden)
        self.trunk = nn.Sequential(*(layer for width in widths for layer in _block(width, hidden, dropout)))
        self.mean, self.log_std = nn.Linear(hidden, state_dim), nn.Linear(hidden, state_dim)

    def forward(self, state: Tensor, action: Tensor) -> Gaussian:
        x = self.trunk(torch.cat([state, action], dim=-1))
        return Gaussian(state + self.mean(x), self.log_std(x).clamp(*LOG_STD).exp())

    def loss(self, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """(B,) negative log likelihood of the next states."""
        found = self(state, action)
        return -torch.distributions.Normal(found.mean, found.std).log_prob(following).sum(dim=-1)


@tensors
class Opinion:
    """The members' prediction of the next states, (B, S) each: their mean; `epistemic`, the deviation of their means;
    `aleatoric`, the root of their mean variance; `total`, the deviation from both."""

    mean: Tensor
    epistemic: Tensor
    aleatoric: Tensor
    total: Tensor


class Ensemble(nn.Module):
    """Probabilistic models with different initial weights."""

    def __init__(self, members: int = 5, **sizes: float) -> None:
        super().__init__()
        self.members = nn.ModuleList(Probabilistic(**sizes) for _ in range(members))

    def forward(self, state: Tensor, action: Tensor) -> Opinion:
        said = [member(state, action) for member in self.members]
        means, variances = torch.stack([one.mean for one in said]), torch.stack([one.std.square() for one in said])
        epistemic, aleatoric = means.var(dim=0, correction=0), variances.mean(dim=0)
        return Opinion(means.mean(dim=0), epistemic.sqrt(), aleatoric.sqrt(), (epistemic + aleatoric).sqrt())

    def loss(self, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """(B,), the members' mean."""
        return torch.stack([member.loss(state, action, following) for member in self.members]).mean(dim=0)
