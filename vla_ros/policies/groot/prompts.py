"""The prompt of each generation of GR00T, and the tokens of images in it."""

import logging
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from vla_ros.core.errors import InputError, shown
from vla_ros.policies.groot.config import GrootConfig
from vla_ros.policies.tokenizer import Tokenizer, spoken

logger = logging.getLogger(__name__)

_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
_USER, _END, _ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n"
NOTHING_SAID = "Perform the task."


def image_mark(generation: str) -> str:
    """Text of the placeholder for an image."""
    return "<|image_pad|>" if generation == "n1.7" else "<IMG_CONTEXT>"


def _told(config: GrootConfig, instruction: str) -> str:
    """The instruction in the form that the prompt uses."""
    text = instruction.strip() or NOTHING_SAID
    return re.sub(r"[^\w\s]", "", text.lower()) if config.formalise else text


def prompt(config: GrootConfig, instruction: str, images: int) -> str:
    """The text that is tokenised, with one placeholder for each image."""
    text = _told(config, instruction)
    if config.listed:
        text = repr([text])  # Isaac's N1.5 passes an array to its template, although it was trained with a text
    mark, numbers = image_mark(config.generation), range(1, images + 1)
    if config.generation == "n1.7":
        return _USER + f"<|vision_start|>{mark}<|vision_end|>" * images + text + _END
    if config.generation == "n1":
        shown_images = "".join(f"{f'<image {k}>' if images > 1 else ''}<img>{mark}</img>\n" for k in numbers)
        return _SYSTEM + _USER + shown_images + text + _END + _ASSISTANT
    shown_images = "".join(f"<image {k}><img>{mark}</img>" for k in numbers)
    if config.generation == "n1.5":
        return _SYSTEM + _USER + shown_images + text + _END + _ASSISTANT
    return _SYSTEM + _USER + text + shown_images + _END


def prompt_ids(
    config: GrootConfig, tokenizer: Tokenizer, instruction: str, grids: Sequence[tuple[int, int]]
) -> list[int]:
    """Ids, with as many placeholders as each image has tokens; `grids`: rows and columns of the images.

    The last words of a too long instruction are dropped. Raises InputError for one that contains special tokens, such
    as an image's or an end token.
    """
    spoken(tokenizer.encode(_told(config, instruction)), tokenizer, instruction, [config.image_token])
    ids = tokenizer.encode(prompt(config, instruction, len(grids)))
    if len(ids) > config.tokenizer_max_length:
        ids = _cut(config, tokenizer, instruction, len(grids))
    counts = iter(rows * columns for rows, columns in grids)
    return [id_ for one in ids for id_ in ([one] * next(counts) if one == config.image_token else [one])]


def _cut(config: GrootConfig, tokenizer: Tokenizer, instruction: str, images: int) -> list[int]:
    """Ids of the prompt with as many words of the instruction as fit."""
    words = instruction.split()
    fits, beyond = 0, len(words)
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        ids = tokenizer.encode(prompt(config, " ".join(words[:middle]), images))
        fits, beyond = (middle, beyond) if len(ids) <= config.tokenizer_max_length else (fits, middle)
    logger.warning("the instruction %r was cut to %d words", instruction, fits)
    return tokenizer.encode(prompt(config, " ".join(words[:fits]), images))


def padding_token(config: GrootConfig, tokenizer: Tokenizer) -> int:
    """Token with which shorter prompts of a batch are padded."""
    found = tokenizer.encode("<|im_end|>" if config.generation == "n1" else "<|endoftext|>")
    return found[0] if len(found) == 1 else 0


def check_tokenizer(config: GrootConfig, tokenizer: Tokenizer) -> None:
    """Raises InputError if the tokenizer's image token is not the policy's."""
    mark = image_mark(config.generation)
    if (found := tokenizer.encode(mark)) != [config.image_token]:
        raise InputError(f"tokenizer: {mark} is {shown(found)}, the policy expects [{config.image_token}]: give "
                         f"{config.tokenizer_of}")


def left_padded(rows: Sequence[list[int]], padding: int, step: int) -> tuple[Tensor, Tensor]:
    """(B, L) int64 ids, padded on the left to a multiple of `step`, and their (B, L) bool mask."""
    longest = -(-max(map(len, rows)) // step) * step
    tokens = torch.full((len(rows), longest), padding, dtype=torch.int64)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, longest - len(row) :] = torch.tensor(row, dtype=torch.int64)
        mask[i, longest - len(row) :] = True
    return tokens, mask
