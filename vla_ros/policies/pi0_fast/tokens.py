"""FAST (Pertsch et al. 2025, arXiv 2501.09747): chunks of actions as tokens.

The cosine transform of every dimension along time is multiplied by `scale` and rounded; the coefficients, by frequency
and then by dimension, become characters whose codes are the coefficients minus the smallest one; byte-pair encoding
gives the tokens.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tokenizers

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Range, read_mapping, record
from vla_ros.policies.options import no_folder
from vla_ros.policies.tokenizer import JsonTokenizer, Tokenizer, load_tokenizer, part_folders

FOLDER = "fast"  # of the action tokenizer in a checkpoint folder
SETTINGS = "processor_config.json"
PUBLISHED = "lerobot/fast-action-tokenizer"
PUBLISHED_SIZE, PUBLISHED_MIN = 2048, -354  # of the published one: ids, and smallest coefficient
OPENING, END = "Action: ", "|"  # of a chunk
LARGEST = 0xD7FF  # character code, below the surrogates
UNREADABLE = "\ufffd"  # replaces bytes that are not text


@dataclass(frozen=True)
class FastSettings:
    """Settings in `processor_config.json`.

    Attributes:
        scale: factor on the coefficients before rounding.
        min_token: the smallest coefficient; smaller ones become it.
        max_token: likewise the largest; None: no limit (the published tokenizer has none).
    """

    scale: Annotated[float, Range(1e-6, 1e6)] = 10.0
    min_token: Annotated[int, Range(-50_000, 0)] = 0
    max_token: Annotated[int, Range(0, 50_000)] | None = None


class ActionTokens:
    """From chunks of normalised actions to ids and back.

    Attributes:
        size: number of ids.
    """

    def __init__(self, inner: tokenizers.Tokenizer, settings: FastSettings) -> None:
        self.inner, self.settings = inner, settings
        self.size = inner.get_vocab_size(with_added_tokens=True)

    def encode(self, actions: np.ndarray) -> list[int]:
        """Ids of (H, D) normalised actions. Raises InputError for actions that the tokenizer cannot write."""
        settings = self.settings
        coefficients = np.around(cosines(len(actions)) @ actions * settings.scale)
        highest = LARGEST + settings.min_token if settings.max_token is None else settings.max_token
        if not np.isfinite(coefficients).all() or settings.max_token is None and coefficients.max() > highest:
            raise InputError(f"actions: a coefficient of {coefficients.max():.4g}, expected at most {highest}; are the "
                             "statistics those of the data?")
        codes = np.clip(coefficients, settings.min_token, highest).astype(int) - settings.min_token
        text = "".join(map(chr, codes.ravel()))
        ids = self.inner.encode(text, add_special_tokens=False).ids
        if self.inner.decode(ids, skip_special_tokens=False) != text:
            raise InputError("actions: the action tokenizer does not write every coefficient; is it FAST's?")
        return ids

    def decode(self, ids: Sequence[int], rows: int, width: int, ended: bool = True) -> np.ndarray:
        """(rows, width) normalised actions; missing coefficients are zero, excess ones are dropped.

        Args:
            ended: whether the chunk has its end token; if not, no coefficient may be missing.

        Raises InputError for ids that are not coefficients, or too few without an end token.
        """
        text = self.inner.decode(list(ids), skip_special_tokens=False)
        if not text or UNREADABLE in text:
            raise InputError(f"{len(ids)} action tokens {list(ids[:8])}, which are not coefficients")
        if not ended and len(text) < rows * width:
            raise InputError(f"{len(text)} coefficients and no end in {len(ids)} action tokens; raise "
                             "max_decoding_steps if it needs more")
        found = np.array([ord(letter) for letter in text[: rows * width]], dtype=np.float64) + self.settings.min_token
        coefficients = np.zeros(rows * width)
        coefficients[: len(found)] = found
        return cosines(rows).T @ (coefficients.reshape(rows, width) / self.settings.scale)

    def save(self, folder: Path) -> None:
        """Write what `load_actions` reads."""
        folder.mkdir()
        self.inner.save(str(folder / JsonTokenizer.FILE))
        (folder / SETTINGS).write_text(json.dumps(asdict(self.settings)), encoding="utf-8")


class FastTokenizer(Tokenizer):
    """The prompt's tokenizer, and the action tokens, which use ids of its vocabulary, counted from its end.

    Attributes:
        text, actions: the two.
        opening: text tokens at the start of a chunk.
        end: the text token after a chunk.
    """

    def __init__(self, text: Tokenizer, actions: ActionTokens) -> None:
        """Raises InputError for a text tokenizer that has no token to end a chunk."""
        self.text, self.actions = text, actions
        self.size, self.words, self.unknown = text.size, text.words, text.unknown
        self.eos, self.padding = text.eos, text.padding
        self.opening, end = text.encode(OPENING), text.encode(END)
        if len(end) != 1 or end[0] == text.unknown:
            raise InputError(f"tokenizer: {END!r} is {end}, expected one token of its own, which ends a chunk")
        self.end = end[0]

    @property
    def bos(self) -> int:
        return self.text.bos

    @property
    def special(self) -> frozenset[int]:
        return self.text.special

    @property
    def whole_words(self) -> dict[str, int]:
        return self.text.whole_words

    def encode(self, text: str) -> list[int]:
        return self.text.encode(text)

    def token(self, name: str) -> int:
        return self.text.token(name)

    def save(self, folder: Path) -> None:
        self.text.save(folder)
        self.actions.save(folder / FOLDER)


def cosines(rows: int) -> np.ndarray:
    """(rows, rows) the orthonormal cosine transform (DCT-II); row k has frequency k / (2 rows)."""
    k, t = np.mgrid[:rows, :rows]
    matrix = np.sqrt(2 / rows) * np.cos(np.pi * (2 * t + 1) * k / (2 * rows))
    matrix[0] /= math.sqrt(2)
    return matrix


def load_actions(folder: Path) -> ActionTokens:
    """From a folder as the published tokenizer's: tokenizer.json and processor_config.json. Raises InputError."""
    data = read_mapping(folder / SETTINGS, "action tokenizer")
    known = {name: data[name] for name in FastSettings.__dataclass_fields__ if name in data}
    settings = record(FastSettings, known, f"{folder / SETTINGS}")
    inner = folder / "bpe_tokenizer"  # where transformers 5 stores a processor's tokenizer
    text = load_tokenizer((inner if inner.is_dir() else folder) / JsonTokenizer.FILE)
    return ActionTokens(text.inner, settings)


def find_actions(folder: Path, given: Any, name: Any) -> ActionTokens:
    """The action tokenizer in the folder `given`, else the checkpoint's: in its folder "fast", or the published `name`.

    Raises InputError if there is none.
    """
    if given is not None:
        if not (there := Path(str(given))).is_dir():
            raise InputError(f"overrides.action_tokenizer {str(given)!r}: {no_folder(there)}")
        return load_actions(there)
    for place in part_folders(folder, FOLDER, name):
        if (place / SETTINGS).exists():
            return load_actions(place)
    raise InputError(
        f"no action tokenizer in it, expected the files of {shown(name) if name else PUBLISHED} "
        f"({JsonTokenizer.FILE}, {SETTINGS}); put them into its folder {FOLDER}, or name theirs as "
        "overrides.action_tokenizer"
    )


def is_published(actions: ActionTokens) -> bool:
    """Whether size and settings are those of the published tokenizer."""
    return actions.size == PUBLISHED_SIZE and actions.settings == FastSettings(min_token=PUBLISHED_MIN)


def fresh_actions(rows: int) -> ActionTokens:
    """A small tokenizer for chunks of actions in about [-2, 2], with one token for every coefficient."""
    scale = 10.0
    reach = math.ceil(2 * scale * math.sqrt(rows))
    vocabulary = {chr(code): code for code in range(2 * reach + 1)}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    inner.decoder = tokenizers.decoders.Fuse()
    return ActionTokens(inner, FastSettings(scale, -reach, reach))
