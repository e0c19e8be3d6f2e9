"""Samples to X-VLA's batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.tokenizer import filled
from vla_ros.policies.xvla.config import DOMAIN


@dataclass(frozen=True)
class XvlaProcessor(StandardProcessor):
    """The batch is described at `Xvla`. Absent cameras are left out: as published, those that are there move up."""

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        config, tokenizer, states = self.config, self.ask_tokenizer(), self.states(samples)
        if config.domain_id is None:
            raise InputError(f"policy: {DOMAIN}")
        texts = [sample.instruction for sample in samples]
        most = config.text_length
        tokens, _ = filled(self.embedded(tokenizer.prompts(texts, most), samples), most, most, tokenizer.padding)
        present = [name for name in self.image_names if self.embodiment.cameras[name] is not None]
        batch = {
            "images": self.images(samples, present)[:, -1],
            "image_mask": torch.ones(len(samples), len(present), dtype=torch.bool),
            "tokens": tokens,
            "domain": torch.full((len(samples),), config.domain_id),
        }
        if self.state_width:
            batch["state"] = self.policy_states(states)[:, -1]
        return batch | self.targets(samples, states)
