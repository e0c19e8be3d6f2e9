"""Samples to π0's batches: images, and prompts of π0 and π0.5 (openpi `models/tokenizer.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vla_ros.core.observation import Sample
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor, padded
from vla_ros.policies.tokenizer import Tokenizer, cut, filled, spoken


@dataclass(frozen=True)
class Pi0Processor(StandardProcessor):
    """The batch is described at `Pi0`.

    Absent cameras and most of the prompt's padding are omitted, since masked tokens have no positions and are not
    attended to: the actions are the same, and a robot with two of three cameras saves a quarter of the computation.
    Prompts are padded to a few lengths, so that a new instruction rarely has a new shape.
    """

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        tokenizer, config = self.ask_tokenizer(), self.config
        states = self.states(samples)
        bare = self.state.normalise(self.embodiment.state_to_policy(states[:, -1]))
        batch = {"state": padded(bare, self.state_width)}
        in_prompt = batch["state"].numpy() if config.prompt == "pi05_padded" else bare
        rows = [
            cut(prompt_ids(tokenizer, sample.instruction, config.prompt, row), config.text_length)
            for sample, row in zip(samples, in_prompt, strict=True)
        ]
        step = 16 if config.text_length <= 64 else 32
        batch["tokens"], batch["token_mask"] = filled(self.embedded(rows, samples), config.text_length, step)
        batch["images"] = self.images(samples, self.present)[:, -1]
        batch["image_mask"] = torch.ones(batch["images"].shape[:2], dtype=torch.bool)
        if len(self.present) < len(config.cameras):
            batch["cameras"] = torch.tensor([config.cameras.index(name) for name in self.present])
        return batch | self.targets(samples, states)


def state_steps(state: np.ndarray) -> np.ndarray:
    """The (S,) normalised state in 256 steps over [-1, 1): (S,) ints; below -1 gives -1, 1 and above 255."""
    return np.digitize(state, np.linspace(-1, 1, 257)[:-1]) - 1


def prompt_ids(tokenizer: Tokenizer, instruction: str, kind: str, state: np.ndarray) -> list[int]:
    """Token ids of a prompt.

    Args:
        kind: "pi0": the instruction and a line feed; "pi0_verbatim": the same with the unchanged instruction; "pi05",
            "pi05_padded", "fast": instruction and state as text.
        state: (S,) the normalised state, without its padding except for "pi05_padded".
    """
    if kind == "pi0_verbatim":
        said = tokenizer.encode(instruction if instruction.endswith("\n") else f"{instruction}\n")
        return [tokenizer.bos, *spoken(said, tokenizer, instruction)]
    text = instruction.strip().replace("_", " ").replace("\n", " ")
    if kind == "pi0":
        return [tokenizer.bos, *spoken(tokenizer.encode(text), tokenizer, instruction), *tokenizer.encode("\n")]
    steps = " ".join(str(step) for step in state_steps(state))
    opening = "" if kind == "fast" else "Action: "  # FAST's are the first action tokens
    said = tokenizer.encode(f"Task: {text}, State: {steps};\n{opening}")
    return [tokenizer.bos, *spoken(said, tokenizer, instruction)]
