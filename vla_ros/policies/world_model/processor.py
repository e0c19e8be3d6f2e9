"""Samples to batches of a policy that plans."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.nn import words
from vla_ros.policies.policy import Batch
from vla_ros.policies.window import WindowProcessor


@dataclass(frozen=True)
class WorldModelProcessor(WindowProcessor):
    """The batch is described at `WorldModel`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embodiment.path:
            raise InputError("path: a policy that plans goes step by step; expected velocities of the base")

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        states = self.states(samples)
        batch = {"images": self.images(samples), "state": self.policy_states(states), "here": self.here(states)}
        batch["words"] = words.encode([sample.instruction for sample in samples], self.config.vocabulary)
        if samples[0].actions is not None:
            batch["remaining"] = torch.tensor([self._remaining(sample) for sample in samples])
            batch["success"] = torch.tensor([self._success(sample) for sample in samples], dtype=torch.float32)
        return batch | self.targets(samples, states)

    def here(self, states: np.ndarray) -> Tensor:
        """From (B, T, J) joint positions to (B, T, D), the action that keeps them; zeros for a tool, whose pose is not
        known."""
        tool = self.embodiment.tool
        rows = np.concatenate([states, np.zeros((*states.shape[:2], len(tool.columns)))], axis=-1) if tool else states
        found = [self.normalise_actions(rows[:, t : t + 1], states[:, t]) for t in range(states.shape[1])]
        here = torch.cat(found, dim=1)
        if tool:
            here[..., tool.columns] = 0.0
        return here

    def unknown_words(self, text: str) -> tuple[str, ...]:
        return words.unknown(text, self.config.vocabulary)

    def _remaining(self, sample: Sample) -> int:
        if sample.remaining is None:
            raise InputError("a training sample without the number of steps to the end of its episode, expected one")
        return sample.remaining

    def _success(self, sample: Sample) -> bool:
        outcome = sample.outcome or self.config.unjudged
        if not outcome:
            raise InputError(f"{sample.instruction!r}: an episode of which the dataset does not say how it ended; "
                             "expected an outcome of each, or `unjudged: success` under `policy`")
        return outcome == "success"
