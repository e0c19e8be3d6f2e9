"""Instructions as sets of words: the smallest text encoder that can tell one task from another."""

import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

_WORD = re.compile(r"[^\W_]+")


def split(text: str) -> list[str]:
    """Lower-case words and numbers of a text, without punctuation."""
    return _WORD.findall(text.lower())


def make_vocabulary(texts: Iterable[str]) -> tuple[str, ...]:
    """Every word of the texts once, sorted."""
    return tuple(sorted({word for text in texts for word in split(text)}))


def unknown(text: str, vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Words of a text that are not in the vocabulary; none if the vocabulary is empty, since no text is read then."""
    return tuple(word for word in dict.fromkeys(split(text)) if vocabulary and word not in vocabulary)


def encode(texts: Sequence[str], vocabulary: Sequence[str]) -> Tensor:
    """(B, W) float32: how often each of the W known words occurs in each text; unknown words are ignored."""
    index = {word: i for i, word in enumerate(vocabulary)}
    counts = torch.zeros(len(texts), len(vocabulary))
    for row, text in enumerate(texts):
        for word in split(text):
            if word in index:
                counts[row, index[word]] += 1
    return counts


class WordEncoder(nn.Module):
    """Word counts to a vector (B, dim): two linear layers with a ReLU between them."""

    TABLE = "layers.0.weight"  # (dim, W)

    def __init__(self, words: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(words, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, counts: Tensor) -> Tensor:
        """(B, W) to (B, dim)."""
        return self.layers(counts)
