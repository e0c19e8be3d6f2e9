"""Samples to ACT's batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from vla_ros.core.observation import Sample
from vla_ros.nn import words
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor


@dataclass(frozen=True)
class ACTProcessor(StandardProcessor):
    """The batch is described at `ACT`. Published policies read no text: the instruction then only starts and stops
    them."""

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        batch = super().inputs(samples)
        if self.config.vocabulary:
            batch["words"] = words.encode([sample.instruction for sample in samples], self.config.vocabulary)
        return batch

    def unknown_words(self, text: str) -> tuple[str, ...]:
        return words.unknown(text, self.config.vocabulary)
