"""Samples to Diffusion Policy's batches and normalised actions to joint targets."""

from collections.abc import Sequence
from dataclasses import dataclass

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.nn import words
from vla_ros.policies.diffusion.config import DiffusionConfig
from vla_ros.policies.formats.own import Parts
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.prompts import PromptTokenizer


@dataclass(frozen=True)
class DiffusionProcessor(StandardProcessor):
    """The batch is described at `DiffusionPolicy`. Without a text encoder the instruction only starts and stops."""

    environment_dim: int = 0
    vocabulary: tuple[str, ...] = ()
    tokenizer: PromptTokenizer | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_absent_cameras("Diffusion Policy")

    @classmethod
    def of(
        cls, config: DiffusionConfig, parts: Parts, tokenizer: PromptTokenizer | None = None
    ) -> "DiffusionProcessor":
        return cls(
            parts.embodiment, parts.state, parts.actions, config.cameras, config.image_size, parts.fit, config.horizon,
            n_obs_steps=config.n_obs_steps, first_action_step=-config.past, environment_dim=config.environment_dim,
            vocabulary=config.vocabulary, tokenizer=tokenizer,
        )

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        if self.environment_dim:
            raise InputError(
                f"the policy reads observation.environment_state ({self.environment_dim} numbers), which no topic of "
                "a robot file brings"
            )
        states = self.states(samples)
        batch = {"state": self.policy_states(states)}
        if self.image_names:
            batch["images"] = self.images(samples)
        texts = [sample.instruction for sample in samples]
        if self.vocabulary:
            batch["words"] = words.encode(texts, self.vocabulary)
        if self.tokenizer is not None:
            batch["tokens"], _ = self.tokenizer.encode(texts)
        return batch | self.targets(samples, states)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        if self.tokenizer is not None:
            return self.tokenizer.unknown_words(text)
        return words.unknown(text, self.vocabulary)
