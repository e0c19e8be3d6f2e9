"""Samples to GO-1's batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies.policy import Batch
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.tokenizer import cut, filled, spoken

START, END = "<|im_start|>", "<|im_end|>"
IMAGE, IMAGE_START, IMAGE_END = "<IMG_CONTEXT>", "<img>", "</img>"
TOKENS = (START, END, IMAGE, IMAGE_START, IMAGE_END)
SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)


@dataclass(frozen=True)
class GO1Processor(StandardProcessor):
    """The batch is described at `GO1`. Absent cameras are omitted from images and prompt.

    A prompt is InternVL2.5's dialogue: its system message, the images and the question, an empty answer. It is padded
    only in training, on the right, to the longest of the batch.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer is None:
            return
        for name in TOKENS:
            number = self.tokenizer.token(name)
            if number >= self.config.vocabulary or name == IMAGE and number != self.config.image_token:
                wanted = self.config.image_token if name == IMAGE else f"one below {self.config.vocabulary}"
                raise InputError(f"tokenizer: {name} is token {number}, the policy expects {wanted}: not its tokenizer")

    def inputs(self, samples: Sequence[Sample]) -> Batch:
        states = self.states(samples)
        rows = [self.prompt(sample.instruction, len(self.present)) for sample in samples]
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1 and samples[0].actions is None:
            raise InputError(f"prompts of {lengths} tokens in one batch: padding would change the answers; ask one "
                             "after the other")
        tokens, mask = filled(rows, lengths[-1], 1)
        frequency = self.config.control_frequency or 1 / self.step_dt
        batch = {
            "images": self.images(samples, self.present)[:, -1],
            "tokens": tokens,
            "token_mask": mask,
            "state": self.policy_states(states)[:, -1],
            "control_frequency": torch.full((len(samples),), frequency),
        }
        return batch | self.targets(samples, states)

    def prompt(self, instruction: str, images: int) -> list[int]:
        """Ids of the dialogue. Each text between two special tokens is tokenised separately, as in the original."""
        tokenizer = self.ask_tokenizer()
        text, token = tokenizer.encode, tokenizer.token
        said = text(f"What action should the robot take to {instruction}?")
        said = cut(spoken(said, tokenizer, instruction, list(map(token, TOKENS))), self.config.text_length)
        image = [token(IMAGE_START), *[token(IMAGE)] * self.config.image_tokens, token(IMAGE_END)]
        user = [*text("user\n"), *image * images, *said]
        pieces = [text(f"system\n{SYSTEM}"), user, text("assistant\n")]
        turns = [[token(START), *piece, token(END), *text("\n")] for piece in pieces]
        return [tokenizer.bos, *(number for turn in turns for number in turn)]
