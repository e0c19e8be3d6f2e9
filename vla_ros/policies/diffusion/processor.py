"""Samples to Diffusion Policy's batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from vla_ros.core.observation import Sample
from vla_ros.nn import words
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.tokenizer import filled


@dataclass(frozen=True)
class DiffusionProcessor(StandardProcessor):
    """The batch is described at `DiffusionPolicy`. Without a text encoder the instruction only starts and stops the
    policy."""

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        states = self.states(samples)
        batch = {"state": self.policy_states(states)}
        if self.image_names:
            batch["images"] = self.images(samples)
        texts = [sample.instruction for sample in samples]
        if self.config.vocabulary:
            batch["words"] = words.encode(texts, self.config.vocabulary)
        if clip := self.config.clip_text:
            # CLIP pads with its end token, and its output is read at the first one.
            longest, end = clip.get("max_position_embeddings", 77), clip.get("eos_token_id", 49407)
            batch["tokens"], _ = filled(self.ask_tokenizer().prompts(texts, longest), longest, 8, end)
        return batch | self.targets(samples, states)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        return super().unknown_words(text) if self.tokenizer else words.unknown(text, self.config.vocabulary)
