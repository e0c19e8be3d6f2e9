"""Search for the plan with the highest value, near the demonstrated ones.

A plan is `mean + c B`, as differences from the robot's position: the K rows of B are the principal directions of the
plans in the data, scaled by the deviation along them, so that the coefficients c of the data have mean 0 and deviation
1.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vla_ros.policies.policy import tensors

MOST = 3.0  # deviations from the data's mean
FIRST = 0.25  # deviation of candidates' coefficients in the first round
FIRST_LEAST, LAST_LEAST = 0.15, 0.05  # smallest deviation of coefficients in the first and in the last round


@tensors
class Proposal:
    """Basis of plans: mean (P,) and basis (K, P) of the P = H * D numbers of a plan; inverse (P, K); and least (R,),
    the smallest deviation of candidates in each round of a search."""

    mean: Tensor
    basis: Tensor
    inverse: Tensor
    least: Tensor

    def plan(self, coefficients: Tensor) -> Tensor:
        """(..., K) to (..., P)."""
        return self.mean + coefficients.clamp(-MOST, MOST) @ self.basis

    def coefficients(self, plan: Tensor) -> Tensor:
        """(..., P) to (..., K)."""
        return ((plan - self.mean) @ self.inverse).clamp(-MOST, MOST)


class Plans(nn.Module):
    """Mean and covariance of all plans in training."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("covariance", torch.eye(numbers))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def add(self, plans: Tensor) -> None:
        """(N, P)."""
        count = self.count + len(plans)
        shift = plans.mean(dim=0) - self.mean
        spread = (plans - plans.mean(dim=0)).T @ (plans - plans.mean(dim=0))
        between = shift.outer(shift) * self.count * len(plans) / count
        self.covariance.copy_((self.covariance * self.count + spread + between) / count)
        self.mean += shift * len(plans) / count
        self.count.copy_(count)

    def proposal(self, components: int, rounds: int) -> Proposal:
        values, vectors = torch.linalg.eigh(self.covariance)
        deviation = values[-components:].clamp(min=1e-10).sqrt()
        vectors = vectors[:, -components:]
        least = torch.logspace(0, 1, rounds, base=LAST_LEAST / FIRST_LEAST, device=self.mean.device) * FIRST_LEAST
        return Proposal(self.mean.clone(), (vectors * deviation).T, vectors / deviation, least)


Worth = Callable[[Tensor], Tensor]  # (B, N, K) coefficients to (B, N)


def best(worth: Worth, known: Tensor, candidates: Tensor) -> Tensor:
    """The coefficients (B, K) with the highest value, among (B, N, K) candidates and the earlier best (B, K)."""
    tried = torch.cat([known[:, None], candidates], dim=1)
    place = worth(tried).argmax(dim=1)
    return tried.gather(1, place[:, None, None].expand(-1, 1, tried.shape[-1]))[:, 0]


def cross_entropy(
    worth: Worth, mean: Tensor, std: Tensor, candidates: Tensor, least: Tensor, elites: int
) -> Tensor:
    """The cross-entropy method (de Boer et al. 2005): in each round, candidates are drawn by standard normal
    (B, R', N, K), and their (B, K) mean and deviation become those of the elites. Returns the last mean."""
    for number in range(least.shape[0]):
        tried = (mean[:, None] + std[:, None] * candidates[:, number % candidates.shape[1]]).clamp(-MOST, MOST)
        place = worth(tried).topk(elites, dim=1).indices
        chosen = tried.gather(1, place[..., None].expand(-1, -1, tried.shape[-1]))
        mean, std = chosen.mean(dim=1), chosen.std(dim=1, correction=0).maximum(least[number])
    return mean


def path_integral(
    worth: Worth, mean: Tensor, std: Tensor, candidates: Tensor, least: Tensor, temperature: float
) -> Tensor:
    """MPPI (Williams et al. 2017): like `cross_entropy`, but all candidates of a round are weighted by the exponential
    of their value, divided by its deviation."""
    for number in range(least.shape[0]):
        tried = (mean[:, None] + std[:, None] * candidates[:, number % candidates.shape[1]]).clamp(-MOST, MOST)
        value = worth(tried)
        scale = temperature * value.std(dim=1, keepdim=True, correction=0).clamp(min=1e-6)
        weight = (value / scale).softmax(dim=1)[..., None]
        mean = (weight * tried).sum(dim=1)
        spread = (weight * (tried - mean[:, None]).square()).sum(dim=1).sqrt()
        std = spread.maximum(least[number])
    return mean
