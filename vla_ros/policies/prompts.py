"""Instructions as the token ids of a checkpoint's own tokenizer, padded to few lengths."""

import re
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
from torch import Tensor

from vla_ros.core.errors import InputError

FILE = "tokenizer.json"


class PromptTokenizer:
    """A `tokenizer.json` of the tokenizers library; its own template adds what begins and ends a prompt.

    Args:
        inner: the tokenizer.
        max_length: longer prompts are cut.
        step: prompts are padded to a multiple of it, so that few shapes occur; None: always to `max_length`.
        padding: id that fills up.
    """

    def __init__(
        self, inner: tokenizers.Tokenizer, max_length: int, step: int | None = 8, padding: int = 0
    ) -> None:
        self.inner, self.max_length, self.step, self.padding = inner, max_length, step, padding
        self.inner.no_padding()
        self.inner.enable_truncation(max_length)
        self.size = inner.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, L) int64 ids, filled up on the right, and their (B, L) bool mask."""
        ids = [encoding.ids for encoding in self.inner.encode_batch(list(texts))]
        longest = max(1, *(len(row) for row in ids))
        length = self.max_length if self.step is None else min(-(-longest // self.step) * self.step, self.max_length)
        tokens = torch.full((len(ids), length), self.padding, dtype=torch.int64)
        mask = torch.zeros(len(ids), length, dtype=torch.bool)
        for row, values in enumerate(ids):
            tokens[row, : len(values)] = torch.tensor(values, dtype=torch.int64)
            mask[row, : len(values)] = True
        return tokens, mask

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of the text, in lower case, that become <unk>."""
        unknown = self.inner.token_to_id("<unk>")
        words = dict.fromkeys(re.findall(r"\w+", text.lower()))
        return tuple(word for word in words if unknown in self.inner.encode(word, add_special_tokens=False).ids)

    def save(self, folder: Path) -> None:
        """Write the `tokenizer.json` that `read_tokenizer` reads."""
        self.inner.save(str(folder / FILE))


def read_tokenizer(places: Sequence[Path | None], what: str) -> tokenizers.Tokenizer:
    """The `tokenizer.json` of the first place that has one: a folder, or such a file.

    Raises InputError that says whose tokenizer is wanted (`what`) and where it was looked for.
    """
    looked = [place for place in places if place is not None]
    for place in looked:
        file = place / FILE if place.is_dir() else place
        if file.is_file():
            try:
                return tokenizers.Tokenizer.from_file(str(file))
            except Exception as error:  # the library raises plain Exception for every bad file
                raise InputError(f"{file}: not a tokenizer.json: {error}") from error
    raise InputError(f"no {FILE} in {[str(place) for place in looked]}: expected {what}; name its folder as tokenizer")
