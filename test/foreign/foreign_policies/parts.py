"""What the three have in common: their sizes, and a look at pictures and joints."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla_ros.policies.policy import Batch


@dataclass(frozen=True)
class Sizes:
    """H = horizon, D = action_dim, W = width."""

    action_dim: int
    cameras: tuple[str, ...]
    horizon: int = 6
    width: int = 32
    image_size: tuple[int, int] = (16, 16)  # (height, width), pixels
    n_obs_steps = 1


class Look(nn.Module):
    """Mean colours of the pictures, (..., N, 3, height, width) uint8, and joints (..., D) to features (..., W)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * len(sizes.cameras) + sizes.action_dim, sizes.width)

    def forward(self, batch: Batch) -> Tensor:
        colours = batch["images"].float().mean(dim=(-2, -1)).flatten(-2) / 255
        return torch.tanh(self.layer(torch.cat([colours, batch["state"]], -1).to(self.layer.weight.dtype)))


def mean_error(predicted: Tensor, batch: Batch) -> Tensor:
    """Mean of |predicted - actions|, (B, H, D), over the rows that are no padding."""
    valid = ~batch["action_is_pad"][:, :, None]
    return ((predicted - batch["actions"]).abs() * valid).sum() / (valid.sum() * predicted.shape[-1]).clamp(min=1)
