"""Samples to ACT's batches and normalised actions to joint targets."""

from collections.abc import Sequence
from dataclasses import dataclass

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.nn import words
from vla_ros.policies.act.config import ACTConfig
from vla_ros.policies.formats.own import Parts
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor


@dataclass(frozen=True)
class ACTProcessor(StandardProcessor):
    """The batch is described at `ACT`. Published policies read no text: the instruction then only starts and stops."""

    reads_state: bool = True
    environment_dim: int = 0
    vocabulary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_absent_cameras("ACT")

    @classmethod
    def of(cls, config: ACTConfig, parts: Parts) -> "ACTProcessor":
        return cls(
            parts.embodiment, parts.state, parts.actions, config.cameras, config.image_size, parts.fit, config.horizon,
            reads_state=config.state_dim > 0, environment_dim=config.environment_dim, vocabulary=config.vocabulary,
        )

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        if self.environment_dim:
            raise InputError(
                f"the policy reads observation.environment_state ({self.environment_dim} numbers), which no topic of "
                "a robot file brings"
            )
        states = self.states(samples)
        batch = {"state": self.policy_states(states)[:, -1]} if self.reads_state else {}
        if self.image_names:
            batch["images"] = self.images(samples)[:, -1]
        if self.vocabulary:
            batch["words"] = words.encode([sample.instruction for sample in samples], self.vocabulary)
        return batch | self.targets(samples, states)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        return words.unknown(text, self.vocabulary)
