"""The network, and what turns observations into its inputs: replace the inside, keep the outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.formats.own import Parts
from vla_ros.policies.policy import Answer, Batch, Policy
from vla_ros.policies.processor import StandardProcessor


@dataclass(frozen=True)
class MyConfig:
    """Sizes. `horizon`, `action_dim` and `n_obs_steps` are what the runtime asks every policy for."""

    action_dim: int
    cameras: tuple[str, ...]
    horizon: int = 16
    width: int = 64
    image_size: tuple[int, int] = (48, 48)  # (height, width), pixels

    @property
    def n_obs_steps(self) -> int:
        return 1

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MyConfig":
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"my_policy: unknown fields {unknown}, expected some of {sorted(known)}")
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


class MyPolicy(Policy):
    """Convolutions and joints to a chunk. Memory, draws, steps and guidance are for policies that need them."""

    def __init__(self, config: MyConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.look = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.think = nn.Sequential(
            nn.Linear(4 * width * len(config.cameras) + config.action_dim, width), nn.ReLU(),
            nn.Linear(width, config.horizon * config.action_dim),
        )

    def encode(self, batch: Batch, memory=None, draws=None) -> Tensor:
        """(B, features), once for each observation; what enters the network is cast to the type of its weights."""
        dtype = self.think[0].weight.dtype
        images = batch["images"].to(dtype) / 255  # (B, N, 3, height, width)
        seen = self.look(images.flatten(0, 1)).reshape(len(images), -1)
        return torch.cat([seen, batch["state"].to(dtype)], dim=1)

    def act(self, context: Tensor, draws=None, fixed=None, steer=None) -> Answer:
        """(B, H, D) normalised actions."""
        return Answer(self.think(context).unflatten(1, (self.config.horizon, -1)))

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """The value under "loss" is minimised, all of them are logged."""
        valid = ~batch["action_is_pad"][:, :, None]
        error = (self.act(self.encode(batch)).actions - batch["actions"]).abs() * valid
        return {"loss": error.sum() / (valid.sum() * self.config.action_dim).clamp(min=1)}


@dataclass(frozen=True)
class MyProcessor(StandardProcessor):
    """Joints, cameras and normalisation are done; what is left is which tensors the network takes."""

    @classmethod
    def of(cls, config: MyConfig, parts: Parts) -> "MyProcessor":
        return cls(
            parts.embodiment, parts.state, parts.actions, config.cameras, config.image_size, parts.fit, config.horizon
        )

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        states = self.states(samples)  # (B, T, J), rad or m
        batch = {"images": self.images(samples)[:, -1], "state": self.policy_states(states)[:, -1]}
        return batch | self.targets(samples, states)
