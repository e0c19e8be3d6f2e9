"""Samples to SmolVLA's batches and normalised actions to joint targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.policies.formats.own import Parts
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.prompts import PromptTokenizer
from vla_ros.policies.smolvla.config import SmolVLAConfig


@dataclass(frozen=True)
class SmolVLAProcessor(StandardProcessor):
    """The batch is described at `SmolVLA`. Absent cameras are left out, which is the same as masking them.

    Attributes:
        state_width, action_width: what states and actions are padded to.
        tokenizer: SmolVLM2's.
    """

    state_width: int = 32
    action_width: int = 32
    tokenizer: PromptTokenizer | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cameras:
            raise InputError("cameras: all are declared absent, expected at least one")

    @classmethod
    def of(cls, config: SmolVLAConfig, parts: Parts, tokenizer: PromptTokenizer | None = None) -> "SmolVLAProcessor":
        if tokenizer is not None and tokenizer.size > config.vlm.text.vocabulary:
            raise InputError(
                f"tokenizer of {tokenizer.size} tokens, the policy embeds {config.vlm.text.vocabulary}: not its own"
            )
        size = config.vlm.vision.image
        processor = cls(
            parts.embodiment, parts.state, parts.actions, config.cameras, (size, size), parts.fit, config.horizon,
            state_width=config.max_state_dim, action_width=config.max_action_dim, tokenizer=tokenizer,
        )
        if isinstance(config.vlm.vision, KeypointStemSize):  # it knows its cameras by their places
            processor.refuse_absent_cameras("the small vision tower")
        return processor

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        states = self.states(samples)
        present = [name for name in self.image_names if self.embodiment.cameras[name] is not None]
        # The published code ends every instruction with a line feed.
        texts = [s.instruction if s.instruction.endswith("\n") else f"{s.instruction}\n" for s in samples]
        tokens, mask = self.tokenizer.encode(texts)
        batch = {
            "images": self.images(samples, present)[:, -1],
            "image_mask": torch.ones(len(samples), len(present), dtype=torch.bool),
            "tokens": tokens,
            "token_mask": mask,
            "state": _padded(self.policy_states(states)[:, -1], self.state_width),
        }
        return batch | self.targets(samples, states)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        return () if self.tokenizer is None else self.tokenizer.unknown_words(text)

    def normalise_actions(self, actions: np.ndarray, states: np.ndarray) -> Tensor:
        return _padded(super().normalise_actions(actions, states), self.action_width)


def _padded(values: Tensor, width: int) -> Tensor:
    return functional.pad(values, (0, width - values.shape[-1]))
