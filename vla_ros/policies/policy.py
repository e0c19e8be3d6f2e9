"""What every policy family provides."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Prior:
    """The tail of what is being executed, for real-time chunking.

    Attributes:
        actions: (B, H, D) in the policy's normalised space, row 0 = the first row of the chunk to come.
        weights: (B, H) or (H,) in [0, 1]: 1 frozen, 0 free.
        exact: guide with the vector-Jacobian product instead of its stop-gradient form.
        max_guidance: the bound β on the guidance weight.
    """

    actions: Tensor
    weights: Tensor
    exact: bool = False
    max_guidance: float = 5.0


@dataclass
class Prefix:
    """What is computed once per observation and read by every denoising step.

    `tensors` holds whatever the family needs (keys, values, masks, positions). `denoise` must not change it.
    """

    tensors: dict[str, Any] = field(default_factory=dict)


class Policy(nn.Module, ABC):
    """A network from a batch of prepared observations to chunks of normalised actions.

    Attributes:
        config: the family's frozen config dataclass. It has at least `horizon` (H), `action_dim` (D),
            `n_obs_steps` (T) and, for policies that denoise, `num_steps`.
        compiled: names of the methods that the runtime gives to torch.compile when asked to.
        float32: regular expressions; parameters whose names begin with one stay float32 whatever the rest is in.
    """

    config: Any
    compiled: tuple[str, ...] = ("predict",)
    float32: tuple[str, ...] = ()

    def stored_dtype(self, name: str, dtype: torch.dtype) -> torch.dtype:
        """The type of the parameter `name` when the weights are `dtype`."""
        return torch.float32 if any(re.match(pattern, name) for pattern in self.float32) else dtype

    @abstractmethod
    def predict(self, batch: Batch, noise: Tensor | None = None, prior: Prior | None = None) -> Tensor:
        """(B, H, D) normalised actions. `noise` (B, H, D) makes a policy that samples deterministic."""

    @abstractmethod
    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """Scalars of a training step; "loss" is the one to minimise.

        The batch holds "actions" (B, H, D) normalised and "action_is_pad" (B, H) besides the inputs.
        `draws` fixes what is drawn at random otherwise (`noise`, `time`), for parity tests.
        """


class DenoisingPolicy(Policy):
    """A policy that encodes an observation once and then denoises actions step by step.

    The runtime calls `encode_prefix` and `sample` on their own, to time them apart and to record each into a
    CUDA graph: neither may synchronise with the device, and both must depend on shapes alone, not on values.
    """

    compiled = ("encode_prefix", "denoise")

    def prepare(self, num_steps: int | None = None) -> None:
        """Compute once what depends on weights and number of steps alone; the runtime calls it before serving."""
        return None

    @abstractmethod
    def encode_prefix(self, batch: Batch) -> Prefix:
        """Images, text and state, once per observation."""

    @abstractmethod
    def denoise(self, prefix: Prefix, noisy: Tensor, time: Tensor) -> Tensor:
        """The network's output for (B, H, D) noisy actions at (B,) time; reads the prefix, never copies it."""

    @abstractmethod
    def sample(
        self, prefix: Prefix, noise: Tensor, prior: Prior | None = None, num_steps: int | None = None
    ) -> Tensor:
        """(B, H, D) normalised actions from (B, H, D) noise: a loop over a fixed number of `denoise` calls.

        `num_steps` None takes the config's. A prior whose weights are all zero changes nothing.
        """

    def predict(self, batch: Batch, noise: Tensor | None = None, prior: Prior | None = None) -> Tensor:
        if noise is None:
            noise = self.draw_noise(batch)
        return self.sample(self.encode_prefix(batch), noise, prior)

    def draw_noise(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """(B, H, D) float32 standard normal noise on the batch's device."""
        first = next(iter(batch.values()))
        shape = (len(first), self.config.horizon, self.config.action_dim)
        return torch.randn(shape, generator=generator, device=first.device)
