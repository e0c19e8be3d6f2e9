"""Text to token ids, from the files of a checkpoint."""

import json
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import tokenizers
import torch
from torch import Tensor

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import inside, read_bytes, regular
from vla_ros.core.hub import no_folder
from vla_ros.core.records import Range, read_mapping, value_of

logger = logging.getLogger(__name__)

MOST_BYTES = 256 << 20  # of a tokenizer file
MOST_HOLES = 1000  # ids without a token
Id = Annotated[int, Range(0, 10_000_000)]  # of a token

# Words that instructions may contain besides those of a dataset. Their embeddings start at zero, without effect.
COMMON_WORDS = (
    "a above again all and arm at away back bag behind below beside black blue bottle bowl box brown can close colour "
    "cube cup down drawer drop finger fold for from front go grab grasp gray green grip gripper hand hold in into it "
    "left lift me middle move near now of off on onto open orange out over pick pink place plate please point pour "
    "press purple push put raise reach red release right robot rotate stack start stop table take tap that the then "
    "this to touch turn under up white with yellow your"
).split()


class Tokenizer(ABC):
    """Text to ids.

    Attributes:
        size: how many ids there are.
        words: how many of them are in the vocabulary itself, without added tokens.
        unknown: id of <unk>, None if every text can be encoded.
        eos: id of the token that ends a text, None if there is none.
        padding: id of the padding token; 0 if there is none.
        special: ids of tokens that do not stand for their text, but for example for an image, and that `encode` returns
            if a text contains them.
    """

    size: int
    words: int
    unknown: int | None
    eos: int | None
    padding: int
    special: frozenset[int] = frozenset()

    @property
    @abstractmethod
    def bos(self) -> int:
        """Id of the token that starts a prompt. Raises InputError if there is none."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of the text, without the start token. Unknown words get the id of <unk>, never an error."""

    def prompts(self, texts: Sequence[str], most: int) -> list[list[int]]:
        """Ids of each text with the tokens that the tokenizer's own template adds, at most `most`."""
        return [cut(self.encode(text), most) for text in texts]

    @abstractmethod
    def token(self, name: str) -> int:
        """Id of a token that never results from text, such as "<|im_end|>". Raises InputError if there is none."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the files that `load_tokenizer` reads back."""

    @property
    def whole_words(self) -> dict[str, int]:
        """The ids of the words, if every token is one (`word_tokenizer`)."""
        return {}

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of the text, in lower case, that map to <unk>."""
        words = dict.fromkeys(re.findall(r"\w+", text.lower()))
        return tuple(word for word in words if self.unknown in self.encode(word))


class JsonTokenizer(Tokenizer):
    """A `tokenizer.json` of the tokenizers library."""

    FILE = "tokenizer.json"

    def __init__(self, inner: tokenizers.Tokenizer, where: str) -> None:
        self.inner, self.where = inner, where
        self.inner.no_padding()
        self.inner.no_truncation()
        numbers = inner.get_vocab(with_added_tokens=True).values()
        self.size = 1 + max(numbers, default=-1)
        if self.size > 2 * len(numbers) + MOST_HOLES:  # the library prints each missing one when it saves
            raise InputError(f"{where}: {len(numbers)} tokens with ids up to {self.size - 1}, expected few gaps")
        self.words = inner.get_vocab_size(with_added_tokens=False)
        self.unknown = inner.token_to_id("<unk>")
        self.padding = inner.token_to_id("<pad>") or 0
        self.eos = next((i for i in map(inner.token_to_id, ("<eos>", "</s>")) if i is not None), None)

    @property
    def bos(self) -> int:
        found = [self.inner.token_to_id(token) for token in ("<bos>", "<s>")]
        if found == [None, None]:
            raise InputError(f"{self.where}: no token <bos> or <s>, expected one that starts a prompt")
        return next(token for token in found if token is not None)

    @property
    def whole_words(self) -> dict[str, int]:
        return self.inner.get_vocab() if isinstance(self.inner.model, tokenizers.models.WordLevel) else {}

    @cached_property
    def special(self) -> frozenset[int]:
        found = {number for number, token in self.inner.get_added_tokens_decoder().items() if token.special}
        unknown = self.inner.token_to_id(str(getattr(self.inner.model, "unk_token", None) or "<unk>"))
        return frozenset(found - {unknown, self.unknown})

    def encode(self, text: str) -> list[int]:
        with _library(self.where):
            return self.inner.encode(text, add_special_tokens=False).ids

    def token(self, name: str) -> int:
        found = self.inner.token_to_id(name)
        if found is None:
            raise InputError(f"{self.where}: no token {name}, expected one that the policy's prompt has")
        return found

    def prompts(self, texts: Sequence[str], most: int) -> list[list[int]]:
        with _library(self.where):
            self.inner.enable_truncation(most)  # keeps what the template adds at the end
            encodings = self.inner.encode_batch(list(texts))
        for encoding, text in zip(encodings, texts, strict=True):
            added = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
            spoken([number for number, template in added if not template], self, text)
            if encoding.overflowing:
                logger.warning("the prompt %r was cut to %d tokens", text, most)
        return [encoding.ids for encoding in encodings]

    def save(self, folder: Path) -> None:
        with _library(self.where):
            self.inner.save(str(folder / self.FILE))


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model, as used by PaliGemma and therefore the published π0, and the tokens that a folder adds to
    it.

    Attributes:
        added: name -> id, from `added_tokens.json` or from `added_tokens_decoder` in `tokenizer_config.json`. `encode`
            never returns them: their names in a text are encoded as text.
    """

    FILE, ADDED, CONFIG = "tokenizer.model", "added_tokens.json", "tokenizer_config.json"

    def __init__(self, path: Path) -> None:
        import sentencepiece

        self.where = str(path)
        self.proto = read_bytes(path, "tokenizer", MOST_BYTES)
        if not self.proto:  # the library accepts it as no model, and ends the process at the first call
            raise InputError(f"{path}: not a SentencePiece model: empty")
        try:
            self.inner = sentencepiece.SentencePieceProcessor(model_proto=self.proto)
        except RuntimeError as error:
            raise InputError(f"{path}: not a SentencePiece model: {error}") from error
        self.size = self.words = self.inner.vocab_size()
        self.unknown = self.inner.unk_id()
        self.padding = max(self.inner.pad_id(), 0)
        self.eos = self.inner.eos_id() if self.inner.eos_id() >= 0 else None
        self.added = self._added(path.parent)

    def _added(self, folder: Path) -> dict[str, int]:
        found: dict[str, int] = {}
        if (file := folder / self.CONFIG).exists():
            rows = read_mapping(file, "tokenizer").get("added_tokens_decoder") or {}
            for number, row in value_of(dict[str, dict], rows, f"{file}: added_tokens_decoder").items():
                if not number.isdecimal() or len(number) > 8:
                    raise InputError(f"{file}: added_tokens_decoder: {shown(number)}, expected the number of a token")
                found[value_of(str, row.get("content"), f"{file}: added_tokens_decoder.{number}.content")] = int(number)
        if (file := folder / self.ADDED).exists():
            found |= value_of(dict[str, Id], read_mapping(file, "tokenizer"), str(file))
        return found

    @property
    def bos(self) -> int:
        if self.inner.bos_id() < 0:
            raise InputError(f"{self.where}: the model has no <bos> token, expected one that starts a prompt")
        return self.inner.bos_id()

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text)

    def token(self, name: str) -> int:
        found = self.added.get(name, self.inner.piece_to_id(name))
        if found == self.unknown:
            raise InputError(f"{self.where}: no token {name}, neither in it nor in {self.ADDED} or {self.CONFIG} "
                             "beside it, expected one that the policy's prompt has")
        return found

    def save(self, folder: Path) -> None:
        (folder / self.FILE).write_bytes(self.proto)
        if self.added:
            (folder / self.ADDED).write_text(json.dumps(self.added, indent=1, ensure_ascii=False), encoding="utf-8")


@contextmanager
def _library(where: str) -> Iterator[None]:
    """Errors of the tokenizers library for a bad file, when it reads or uses it: a plain Exception, or a panic, which
    is not an Exception."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise InputError(f"{where}: not a tokenizer.json that can be used: {error}") from error
        raise


def spoken(ids: list[int], tokenizer: Tokenizer, instruction: str, more: Collection[int] = ()) -> list[int]:
    """The ids of an instruction, unchanged, if they stand for text only.

    Args:
        more: ids that do not stand for text, besides the tokenizer's special ones.

    Raises InputError for an instruction that contains such a token: the policy would read it as an image, or as the end
    of its prompt.
    """
    if wrong := tokenizer.special.union(more).intersection(ids):
        raise InputError(f"instruction {shown(instruction)}: token {min(wrong)}, expected words, none of the "
                         "tokenizer's special tokens")
    return ids


def cut(ids: list[int], most: int) -> list[int]:
    """The first `most` ids, with a warning if there are more."""
    if len(ids) > most:
        logger.warning("a prompt of %d tokens was cut to %d", len(ids), most)
    return ids[:most]


def filled(rows: Sequence[list[int]], most: int, step: int, padding: int = 0) -> tuple[Tensor, Tensor]:
    """(B, L) int64 ids, padded on the right, and their (B, L) bool mask.

    L is a multiple of `step`, so that there are few shapes, and at most `most`.
    """
    longest = max(1, *(len(row) for row in rows))
    length = min(-(-longest // step) * step, most)
    tokens = torch.full((len(rows), length), padding, dtype=torch.int64)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[i, : len(row)] = True
    return tokens, mask


def find_tokenizer(folder: Path, given: str | Path | None, vlm: Any = None) -> Tokenizer | None:
    """The tokenizer that was given, else the checkpoint's own, else that of the vision-language model it names, else
    None.

    Raises InputError for one that cannot be read, or if `given` contains none.
    """
    if given is not None:
        return load_tokenizer(Path(given))
    for place in (folder, *part_folders(folder, "vlm", vlm)):
        if file := _file_in(place):
            return load_tokenizer(file)
    return None


def part_folders(folder: Path, usual: str, name: Any) -> list[Path]:
    """Where a checkpoint folder may contain a part, such as its vision-language model, that its config.json calls
    `name`: in the `usual` folder or one of that name. Never outside the checkpoint: the name is usually one of a hub or
    of the training machine."""
    places = [folder / usual]
    with suppress(InputError):
        places.append(inside(folder, name, "name"))
    return places


def load_tokenizer(path: Path) -> Tokenizer:
    """From a folder (tokenizer.json, else a single *.model file) or one such file. Raises InputError."""
    if not path.exists():
        raise InputError(f"tokenizer {path}: {no_folder(path).replace('folder', 'file or folder', 1)}")
    if path.is_dir():
        folder, path = path, _file_in(path)
        if path is None:
            raise InputError(f"tokenizer: neither {JsonTokenizer.FILE} nor one *.model file in {folder}; give the "
                             "folder of the checkpoint's tokenizer (π0: PaliGemma's)")
    if path.suffix == ".model":
        return SentencePieceTokenizer(path)
    regular(path, "tokenizer", MOST_BYTES)
    with _library(str(path)):
        inner = tokenizers.Tokenizer.from_file(str(path))
    return JsonTokenizer(inner, str(path))


def _file_in(folder: Path) -> Path | None:
    files = [folder / JsonTokenizer.FILE] if (folder / JsonTokenizer.FILE).exists() else list(folder.glob("*.model"))
    return files[0] if len(files) == 1 else None


def instruction_words(instructions: Iterable[str]) -> list[str]:
    """Every word and sign of the instructions, in lower case, sorted."""
    return sorted({word for text in instructions for word in re.findall(r"\w+|[^\w\s]+", text.lower())})


def word_tokenizer(instructions: Iterable[str], more: Sequence[str] = (), places: int = 0) -> JsonTokenizer:
    """A word-level tokenizer for small policies: <pad>, <bos>, <unk>, the words of the instructions, common words.

    Case is ignored; an unknown word becomes <unk>. `more` are tokens that never result from text; so are the `places`
    after the words.
    """
    words = instruction_words(instructions)
    words += [word for word in COMMON_WORDS if word not in words]
    words += [f"<place {index}>" for index in range(places)]
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<bos>", "<unk>", *more, *words])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer = tokenizers.normalizers.Lowercase()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return JsonTokenizer(inner, "word tokenizer")
