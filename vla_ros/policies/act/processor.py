"""Samples to ACT's batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from vla_ros.core.observation import Sample
from vla_ros.nn import words
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor


@dataclass(frozen=True)
class ACTProcessor(StandardProcessor):
    """The batch is described at `ACT`. Published policies read no text: the instruction then only starts and stops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_absent_cameras("ACT")

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        states = self.states(samples)
        batch = {"state": self.policy_states(states)[:, -1]} if self.config.state_dim else {}
        if self.image_names:
            batch["images"] = self.images(samples)[:, -1]
        if self.config.vocabulary:
            batch["words"] = words.encode([sample.instruction for sample in samples], self.config.vocabulary)
        return batch | self.targets(samples, states)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        return words.unknown(text, self.config.vocabulary)
