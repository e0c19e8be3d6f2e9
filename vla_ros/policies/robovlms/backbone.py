"""Interface of a vision-language model as the backbone of a RoboVLM."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.nn.attention import KeyValueCache, causal_mask, grouped_attention

Shapes = Mapping[str, tuple[int, ...]]


def check_heads(what: str, width: int, heads: int) -> None:
    """Raises InputError unless the heads divide the width."""
    if width % heads:
        raise InputError(f"robovlms: {what} {width} wide, of {heads} heads; expected a number that divides the width")


class Backbone(nn.Module, ABC):
    """Images and text to embeddings, embeddings to hidden states.

    A new backbone defines `Size`, `see`, and `layers` with `project(x) -> query, key, value` (B, heads, S, head_dim)
    and `finish(x, attended) -> x`, or its own `read`; those with published weights also `rules` and `size_of`.

    Attributes:
        Size: frozen dataclass with at least `width` (of an embedding), `vocabulary`, `heads` and `image` (pixels).
        size: an instance of `Size`.
        embedding: of the words; its weight also computes the logits.
        norm: the last one.
        scale: factor on all embeddings when they are read.
        float32: parameters whose names begin with one of these stay float32.
        keys: (heads, width) of the keys of a layer.
    """

    Size: ClassVar[type]
    layers: nn.ModuleList
    norm: nn.Module
    scale = 1.0
    float32: tuple[str, ...] = ()
    keys = property(lambda self: (self.size.heads, self.size.width // self.size.heads))

    def __init__(self, size: Any, cameras: int) -> None:
        super().__init__()
        self.size = size
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        nn.init.normal_(self.embedding.weight, std=size.width**-0.5)

    @classmethod
    def rules(cls, size: Any) -> tuple[tuple[str, str], ...]:
        """For `weights.renamed`: published keys after "model." to names in a `RoboVLM`."""
        return ()

    @classmethod
    def size_of(cls, shapes: Shapes, said: Mapping[str, Any], where: str) -> Any:
        """The size of published tensors, whose names are given without "model.backbone.".

        Args:
            said: config.json of the vision-language model, {} if it does not exist.

        Raises InputError.
        """
        raise NotImplementedError

    @abstractmethod
    def see(self, images: Tensor, text: Tensor, valid: Tensor) -> Tensor:
        """Tokens of the images.

        Args:
            images: (N, C, 3, image, image) normalised.
            text: (N, T, width) embedded, for towers that locate what it names; valid: (N, T) bool.

        Returns:
            (N, C, P, width).
        """

    def cache(self, rows: int, length: int) -> KeyValueCache:
        """An empty cache, in which `read` stores the keys and values of `rows` x `length` tokens."""
        heads, width = self.keys
        return KeyValueCache(self.embedding.weight.new_empty(2, len(self.layers), rows, heads, 0, width), length)

    def read(self, x: Tensor, valid: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Hidden states after the last norm, each from itself and the tokens before it.

        Args:
            x: (N, S, width) embeddings, without `scale`.
            valid: (N, P + S) bool, of the P tokens in the cache and of these.
            cache: earlier tokens; these are stored after them.

        Returns:
            (N, S, width).
        """
        start = valid.shape[1] - x.shape[1]
        x = self.placed(x * self.scale, start).to(self.embedding.weight.dtype)
        mask = self.mask(valid, start)
        for i, layer in enumerate(self.layers):
            query, key, value = layer.project(x)
            if cache is not None:
                key, value = cache.store(i, key, value)
            x = layer.finish(x, grouped_attention(query, key, value, mask))
        return self.norm(x)

    def words(self, hidden: Tensor) -> Tensor:
        """(..., width) hidden states to (..., vocabulary) logits."""
        return functional.linear(hidden, self.embedding.weight)

    def placed(self, x: Tensor, start: int) -> Tensor:
        """(N, S, width) with position embeddings, counted from `start`; unchanged if positions are part of the
        attention."""
        return x

    def mask(self, valid: Tensor, start: int) -> Tensor:
        """Mask of the tokens from `start` on, for `grouped_attention`: (N, 1, S, P + S)."""
        return causal_mask(valid, 1)[:, :, start:]
