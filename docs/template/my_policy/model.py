"""The network: keep the methods and their arguments, and replace their contents."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vla_ros.policies.policy import Answer, Batch, Draws, Fixed, Memory, Policy, Steer, tensors


@dataclass(frozen=True)
class MyConfig:
    """Sizes. action_dim and cameras come from the dataset; a training config may set the others."""

    action_dim: int
    cameras: tuple[str, ...]
    horizon: int = 16
    width: int = 64
    image_size: tuple[int, int] = (48, 48)  # (height, width), pixels

    n_obs_steps = 1


@tensors
class Seen:
    """Features of an observation for `act`."""

    features: Tensor


class MyPolicy(Policy):
    """Images and joints to a chunk, in one pass. Each part casts its inputs, because weights may be bfloat16."""

    def __init__(self, config: MyConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.look = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.think = nn.Sequential(
            nn.Linear(4 * width * len(config.cameras) + config.action_dim, width), nn.ReLU(),
            nn.Linear(width, config.horizon * config.action_dim),
        )

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> Seen:
        """`batch` is made by `StandardProcessor.inputs`; this policy has no memory and no random draws."""
        dtype = self.look[0].weight.dtype
        images = batch["images"].to(dtype) / 255  # (B, N, 3, height, width)
        seen = self.look(images.flatten(0, 1)).reshape(len(images), -1)
        return Seen(torch.cat([seen, batch["state"].to(dtype)], dim=1))

    def act(
        self, context: Seen, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None
    ) -> Answer:
        """(B, H, D) normalised actions."""
        return Answer(self.think(context.features).unflatten(1, (self.config.horizon, -1)))

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """The value under "loss" is minimised, all of them are logged."""
        valid = ~batch["action_is_pad"][:, :, None]
        error = (self.act(self.encode(batch)).actions - batch["actions"]).abs() * valid
        return {"loss": error.sum() / (valid.sum() * self.config.action_dim).clamp(min=1)}
