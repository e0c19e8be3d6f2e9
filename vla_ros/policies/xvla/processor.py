"""Samples to X-VLA's batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.tokenizer import filled
from vla_ros.policies.xvla.config import DOMAIN

ROUNDING = 1e-4  # tolerance of an opening in [0, 1]


@dataclass(frozen=True)
class XvlaProcessor(StandardProcessor):
    """The batch is described at `Xvla`. Absent cameras are omitted; as published, the others move up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        config = self.config
        if config.mode.grippers and self.actions.mode != "identity":
            raise InputError(f"action_mode {config.action_mode}: actions normalised by {self.actions.mode}, expected "
                             f"identity: it answers {self._grippers} in [0, 1]; action_mode auto takes any actions")
        # Padding and end tokens are attended to; prompts of fresh policies consist of words without an end token.
        said, tokenizer = "cube", self.tokenizer
        if tokenizer is not None and tokenizer.eos is not None and (
                tokenizer.prompts([said], config.text_length)[0] == tokenizer.encode(said)):
            raise InputError("tokenizer: a prompt is neither begun nor ended by it, expected a tokenizer.json whose "
                             f"template does that: {config.tokenizer_of}")

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        config, tokenizer, states = self.config, self.ask_tokenizer(), self.states(samples)
        if config.domain_id is None:
            raise InputError(f"policy: {DOMAIN}")
        texts = [sample.instruction for sample in samples]
        most = config.text_length
        tokens, _ = filled(self.embedded(tokenizer.prompts(texts, most), samples), most, most, tokenizer.padding)
        batch = {
            "images": self.images(samples, self.present)[:, -1],
            "image_mask": torch.ones(len(samples), len(self.present), dtype=torch.bool),
            "tokens": tokens,
            "domain": torch.full((len(samples),), config.domain_id),
        }
        if self.state_width:
            batch["state"] = self.policy_states(states)[:, -1]
        return batch | self.targets(samples, states)

    def targets(self, samples: Sequence[Sample], states: np.ndarray) -> Batch:
        """Raises InputError for a gripper outside [0, 1], which the network cannot output."""
        batch = super().targets(samples, states)
        if "actions" in batch and (columns := list(self.config.mode.grippers)):
            grippers = batch["actions"][..., columns]
            kept = grippers[~batch["action_is_pad"]] if "action_is_pad" in batch else grippers
            low, high = (kept.min(), kept.max()) if kept.numel() else (0.0, 1.0)
            if not (low >= -ROUNDING and high <= 1 + ROUNDING):
                raise InputError(f"action_mode {self.config.action_mode}: {self._grippers} from {low:.4g} to "
                                 f"{high:.4g} in the data, expected 0 to 1: a policy file's scale and offset make them "
                                 "so; action_mode auto takes any actions")
            batch["actions"][..., columns] = grippers.clamp(0, 1)
        return batch

    @property
    def _grippers(self) -> str:
        return f"its grippers (dimensions {', '.join(map(str, self.config.mode.grippers))})"
