"""From samples to RoboVLMs' batches, and from its answers to targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.chunk import Targets
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.options import TrainingData
from vla_ros.policies.policy import Batch
from vla_ros.policies.robovlms import prompts
from vla_ros.policies.robovlms.actions import mu_law
from vla_ros.policies.tokenizer import filled
from vla_ros.policies.tool_actions import differences
from vla_ros.policies.window import WindowProcessor


@dataclass(frozen=True)
class RoboVLMProcessor(WindowProcessor):
    """The batch is described at `RoboVLM`."""

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        states = self.states(samples)
        rows = self.embedded([self.prompt_ids(sample.instruction) for sample in samples], samples)
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1 and samples[0].actions is None:
            raise InputError(f"prompts of {lengths} tokens in one batch: padding would change the answers; ask one "
                             "after the other")
        tokens, mask = filled(rows, lengths[-1] or 1, 1, self.ask_tokenizer().padding)
        batch = {"images": self.images(samples), "tokens": tokens, "token_mask": mask}
        return batch | self.targets(samples, states)

    def prompt_ids(self, instruction: str) -> list[int]:
        """Ids of the prompt. Raises InputError for an instruction with special tokens."""
        config, tokenizer = self.config, self.ask_tokenizer()
        if config.head == "discrete":
            return prompts.question_ids(config.prompt, tokenizer, instruction, config.asked, config.text_length)
        return prompts.ids(config.prompt, tokenizer, instruction, config.text_length)

    def normalise_actions(self, actions: np.ndarray, states: np.ndarray) -> Tensor:
        """Clipped to [-1, 1], the range of the head; in a window, differences of all rows are from its newest state."""
        values = super().normalise_actions(actions, states).clamp(-1, 1)
        return torch.from_numpy(mu_law(values.numpy())).float() if self.config.mu_law else values

    def action_statistics(self, data: TrainingData) -> dict[str, np.ndarray]:
        """A gripper's mean and deviation are set to the middle and half of its range, so that it is predicted as -1 or
        1."""
        rows = super().action_statistics(data)
        if self.config.gripper and self.actions.mode == "mean_std":
            low, high = rows["min"][-1], rows["max"][-1]
            rows["mean"][-1], rows["std"][-1] = (low + high) / 2, (high - low) / 2
        return rows

    def outputs(self, answer: Tensor, samples: Sequence[Sample]) -> list[Targets]:
        """Joint positions or, if the policy's space is the end effector's, differences of its pose and the gripper's
        opening, 0 to 1, as described by the policy file's `tool`; without it, all dimensions unchanged."""
        if self.config.space == "joint_position" or self.embodiment.tool:
            return super().outputs(answer, samples)
        return differences(self.actions.restore(self._unspread(answer)))

    def values(self, answer: Tensor) -> np.ndarray:
        """(B, H, D) actions or (B, H * D) tokens to (B, H, D) float64 normalised actions; a gripper is -1 or 1.

        Raises InputError for a token that is no action.
        """
        values = answer.detach().cpu().numpy()
        if answer.is_floating_point():
            return values.astype(np.float64)
        config, known = self.config, self.config.tokens
        for place, token in enumerate(values.flatten()):
            if not known.first <= token < known.end:
                raise InputError(f"the policy wrote token {token} for dimension {place % config.action_dim}, expected "
                                 f"an action, {known.first} to {known.end - 1}: is the tokenizer its own, the prompt "
                                 "the one it was trained with?")
        values = known.values(values).reshape(len(values), -1, config.action_dim)
        if config.gripper:
            values[..., -1] = np.where(values[..., -1] > 0, 1.0, -1.0)
        return values

    def _unspread(self, answer: Tensor) -> np.ndarray:
        values = self.values(answer)
        return mu_law(values, inverse=True) if self.config.mu_law else values

    def policy_actions(self, answer: Tensor, states: np.ndarray) -> np.ndarray:
        return super().policy_actions(torch.from_numpy(self._unspread(answer)), states)
