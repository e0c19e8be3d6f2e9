"""Prompts of π0 and π0.5 (openpi `models/tokenizer.py`)."""

import logging

import numpy as np

from vla_ros.policies.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


def state_steps(state: np.ndarray) -> np.ndarray:
    """The normalised state in 256 steps over [-1, 1): ints; below -1 gives -1, 1 and above 255."""
    return np.digitize(state, np.linspace(-1, 1, 257)[:-1]) - 1


def prompt_ids(tokenizer: Tokenizer, instruction: str, kind: str, state: np.ndarray) -> list[int]:
    """Token ids of a prompt.

    Args:
        kind: "pi0": the instruction and a line feed; "pi05", "pi05_padded": instruction and state as text.
        state: (S,) the normalised state, without its padding but for "pi05_padded".
    """
    text = instruction.strip().replace("_", " ").replace("\n", " ")
    if kind == "pi0":
        return [tokenizer.bos, *tokenizer.encode(text), *tokenizer.encode("\n")]
    steps = " ".join(str(step) for step in state_steps(state))
    return [tokenizer.bos, *tokenizer.encode(f"Task: {text}, State: {steps};\nAction: ")]


def prompt_length(tokens: int, most: int) -> int:
    """The length to which a prompt is padded: the next multiple of 16 (of 32 for long prompts), at most `most`."""
    bucket = 16 if most <= 64 else 32
    return min(-(-tokens // bucket) * bucket, most)


def padded(ids: list[int], length: int) -> tuple[np.ndarray, np.ndarray]:
    """(length,) int64 ids filled up with 0, and the (length,) bool mask; a longer prompt is cut, with a warning."""
    if len(ids) > length:
        logger.warning("a prompt of %d tokens was cut to %d", len(ids), length)
        ids = ids[:length]
    tokens = np.zeros(length, dtype=np.int64)
    tokens[: len(ids)] = ids
    return tokens, np.arange(length) < len(ids)
