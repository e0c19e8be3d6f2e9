"""Text to token ids, from the files a checkpoint brings along."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import tokenizers

from vla_ros.core.errors import InputError

# Words of instructions beyond those of a dataset. They start with a zero embedding: known, but without effect.
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
        bos: id of the token that starts a prompt.
    """

    size: int
    bos: int
    unknown: int | None  # id that stands for every unknown word, None where any text can be spelled

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of the text, without the starting token. Unknown words give the id of <unk>, never an error."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the file that `load_tokenizer` reads back."""

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of the text, in lower case, that become <unk>."""
        words = dict.fromkeys(re.findall(r"\w+", text.lower()))
        return tuple(word for word in words if self.unknown in self.encode(word))


class JsonTokenizer(Tokenizer):
    """A `tokenizer.json` of the tokenizers library."""

    FILE = "tokenizer.json"

    def __init__(self, inner: tokenizers.Tokenizer, where: str) -> None:
        self.inner = inner
        self.size = inner.get_vocab_size(with_added_tokens=True)
        bos = next((inner.token_to_id(t) for t in ("<bos>", "<s>") if inner.token_to_id(t) is not None), None)
        if bos is None:
            raise InputError(f"{where}: no token <bos> or <s>, expected one that starts a prompt")
        self.bos = bos
        self.unknown = inner.token_to_id("<unk>")

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False).ids

    def save(self, folder: Path) -> None:
        self.inner.save(str(folder / self.FILE))


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model, as PaliGemma and so the published π0 use it."""

    FILE = "tokenizer.model"

    def __init__(self, path: Path) -> None:
        import sentencepiece

        try:
            self.proto = path.read_bytes()
            self.inner = sentencepiece.SentencePieceProcessor(model_proto=self.proto)
        except (OSError, RuntimeError) as error:
            raise InputError(f"{path}: not a SentencePiece model: {error}") from error
        self.size = self.inner.vocab_size()
        self.bos = self.inner.bos_id()
        self.unknown = self.inner.unk_id()
        if self.bos < 0:
            raise InputError(f"{path}: the model has no <bos> token, expected one that starts a prompt")

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text)

    def save(self, folder: Path) -> None:
        (folder / self.FILE).write_bytes(self.proto)


def load_tokenizer(path: Path) -> Tokenizer:
    """From a folder (tokenizer.json, else a single *.model file) or one such file. Raises InputError."""
    if path.is_dir():
        models = sorted(path.glob("*.model"))
        if (path / JsonTokenizer.FILE).is_file():
            path = path / JsonTokenizer.FILE
        elif len(models) == 1:
            path = models[0]
        else:
            raise InputError(
                f"tokenizer: neither {JsonTokenizer.FILE} nor one *.model file in {path}; give the folder of the "
                "checkpoint's tokenizer (π0: PaliGemma's)"
            )
    if path.suffix == ".model":
        return SentencePieceTokenizer(path)
    try:
        return JsonTokenizer(tokenizers.Tokenizer.from_file(str(path)), str(path))
    except InputError:
        raise
    except Exception as error:  # the library raises plain Exception for every bad file
        raise InputError(f"{path}: not a tokenizer.json: {error}") from error


def instruction_words(instructions: Iterable[str]) -> list[str]:
    """Every word and sign of the instructions, in lower case, sorted."""
    return sorted({word for text in instructions for word in re.findall(r"\w+|[^\w\s]+", text.lower())})


def word_tokenizer(instructions: Iterable[str]) -> JsonTokenizer:
    """A word-level tokenizer for small policies: <pad>, <bos>, <unk>, the words of the instructions, common words.

    Case is ignored; a word it does not know becomes <unk>.
    """
    words = instruction_words(instructions)
    words += [word for word in COMMON_WORDS if word not in words]
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<bos>", "<unk>", *words])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer = tokenizers.normalizers.Lowercase()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return JsonTokenizer(inner, "word tokenizer")
