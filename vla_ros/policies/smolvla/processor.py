"""Samples to SmolVLA's batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vla_ros.core.observation import Sample
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.tokenizer import filled


@dataclass(frozen=True)
class SmolVLAProcessor(StandardProcessor):
    """The batch is described at `SmolVLA`. Absent cameras are omitted, which is the same as masking them."""

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        states, most = self.states(samples), self.config.tokenizer_max_length
        # The published code ends every instruction with a line feed.
        texts = [s.instruction if s.instruction.endswith("\n") else f"{s.instruction}\n" for s in samples]
        tokens, mask = filled(self.embedded(self.ask_tokenizer().prompts(texts, most), samples), most, 8)
        batch = {
            "images": self.images(samples, self.present)[:, -1],
            "image_mask": torch.ones(len(samples), len(self.present), dtype=torch.bool),
            "tokens": tokens,
            "token_mask": mask,
            "state": self.policy_states(states)[:, -1],
        }
        return batch | self.targets(samples, states)
