"""Samples to OpenVLA's batches, and its tokens to targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.chunk import Targets
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.openvla import tokens
from vla_ros.policies.openvla.config import PROMPTS
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.tokenizer import cut, filled, spoken
from vla_ros.policies.tool_actions import differences


@dataclass(frozen=True)
class OpenVLAProcessor(StandardProcessor):
    """The batch is described at `OpenVLA`."""

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        config, states = self.config, self.states(samples)
        batch = {"state": self.policy_states(states)[:, -1]} if config.state_dim else {}
        rows = [self.prompt_ids(sample.instruction) for sample in samples]
        batch["tokens"], batch["token_mask"] = filled(rows, config.text_length, 16)
        batch["images"] = self.images(samples)[:, -1]
        return batch | self.targets(samples, states)

    def prompt_ids(self, instruction: str) -> list[int]:
        """Ids of the prompt from its start on, without the blank before the actions; if it is too long,
        the end of the instruction is cut."""
        tokenizer, config = self.ask_tokenizer(), self.config
        said = tokenizer.encode(PROMPTS[config.prompt].format(instruction.lower()))
        ids = [tokenizer.bos, *spoken(said, tokenizer, instruction)]
        ids = ids[:-1] if ids[-1] == config.blank else ids
        if len(ids) <= config.text_length:
            return ids
        end = len(tokenizer.encode(PROMPTS[config.prompt].split("{}")[1]))
        return (cut(ids, max(config.text_length - end, 1)) + ids[-end:])[: config.text_length]

    def outputs(self, answer: Tensor, samples: Sequence[Sample]) -> list[Targets]:
        """Joint positions or, if the policy's space is the end effector's, differences of its pose as described by the
        policy file's `tool`; without it, all dimensions unchanged."""
        if self.config.space == "joint_position" or self.embodiment.tool:
            return super().outputs(answer, samples)
        rows = self.actions.restore(self.values(answer))
        if self.config.gripper != "opening":
            rows[..., -1] = np.sign(2 * rows[..., -1] - 1) * (-1 if self.config.gripper == "libero" else 1)
        return differences(rows)

    def values(self, answer: Tensor) -> np.ndarray:
        """(B, H, D) actions or (B, H * D) tokens to (B, H, D) float64 normalised actions.

        Raises InputError for a token that is no action.
        """
        values = answer.detach().cpu().numpy()
        if answer.is_floating_point():
            return values.astype(np.float64)
        config, end = self.config, self.config.action_end
        for row in values:
            for place, token in enumerate(row):
                if not end - tokens.BINS <= token < end:
                    raise InputError(f"the policy wrote token {token} for dimension {place % config.action_dim} of row "
                                     f"{place // config.action_dim}, expected an action, {end - tokens.BINS} to "
                                     f"{end - 1}: is the tokenizer its own, the prompt the one it was trained with?")
        return tokens.decode(values, end).reshape(len(values), -1, config.action_dim)

    def policy_actions(self, answer: Tensor, states: np.ndarray) -> np.ndarray:
        return super().policy_actions(torch.from_numpy(self.values(answer)), states)
