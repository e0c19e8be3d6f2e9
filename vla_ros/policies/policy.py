"""What every policy family provides."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample

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
    """

    config: Any
    compiled: tuple[str, ...] = ("predict",)

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


class Processor(ABC):
    """Samples to batches and normalised actions back to joint targets.

    Attributes:
        joints: J robot joint names, in the order of `Sample.state` and of the outputs.
        cameras: names of the robot's cameras that the policy looks at.
        step_dt: s between action rows (and between observation steps of a history).
        n_obs_steps: T, observation steps a Sample holds.
        horizon: rows per chunk.
        streams: names of the robot file's other streams that the policy reads.
        first_action_step: in training, the first row of `Sample.actions` is for t + first_action_step * step_dt and
            the last for t + (horizon - 1) * step_dt; negative for policies whose network covers the past as well.
    """

    joints: tuple[str, ...]
    cameras: tuple[str, ...]
    step_dt: float
    n_obs_steps: int = 1
    horizon: int
    first_action_step: int = 0
    streams: tuple[str, ...] = ()

    def steps(self, training: bool = False) -> dict[str, tuple[int, ...]]:
        """stream -> offsets of its observation steps in `step_dt`, oldest first; "joint_states" is the state.

        They may differ between streams, and between training and serving: (0,), (-15, 0), training (-7, ..., 0).
        """
        steps = tuple(range(1 - self.n_obs_steps, 1))
        return dict.fromkeys((*self.cameras, "joint_states", *self.streams), steps)

    @abstractmethod
    def inputs(self, samples: Sequence[Sample]) -> Batch:
        """A batch on the CPU: images (uint8 where the policy can), state and text; with `actions` and
        `action_is_pad` when the samples have them. Raises InputError for a sample that does not fit."""

    @abstractmethod
    def outputs(self, actions: Tensor, state: np.ndarray) -> np.ndarray:
        """(B, H, D) normalised actions to (B, H, J) float64 absolute joint targets, rad or m.

        Args:
            actions: what `Policy.predict` returned.
            state: (B, J) newest joint positions of the samples, for policies that speak in deltas.
        """

    @abstractmethod
    def normalise_actions(self, actions: np.ndarray, state: np.ndarray) -> Tensor:
        """The inverse of `outputs`: (B, H, J) joint targets to (B, H, D) float32 normalised actions."""

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of an instruction that look all the same to the policy, or like nothing: its vocabulary lacks them."""
        return ()

    def with_statistics(self, statistics: Mapping[str, Mapping[str, np.ndarray]]) -> "Processor":
        """The same processor with the normalisation of other data (as `registry.TrainingData.statistics`).

        Raises InputError when the dimensions differ, or the family cannot.
        """
        raise InputError(f"{type(self).__name__} cannot take other statistics: train with --statistics keep")


@dataclass
class LoadedPolicy:
    """A policy with all that is needed to serve, train or save it.

    Attributes:
        family: registered name ("pi0", "act", ...).
        layout: where the weights came from ("vla_ros", "lerobot", "openpi", "transformers").
        report: what `vla-ros info` prints: title -> value, in order.
    """

    family: str
    policy: Policy
    processor: Processor
    layout: str = "vla_ros"
    report: Mapping[str, str] = field(default_factory=dict)
