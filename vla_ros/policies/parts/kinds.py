"""What a part of each kind gives and takes. A part of your own derives from one of these classes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.policies.policy import Draws, Fixed, Steer, tensors


@dataclass(frozen=True)
class NoSize:
    """Of a part that has nothing to choose."""


@tensors
class Features:
    """What the language model made of N observations.

    Attributes:
        tokens: (N, S, width) hidden states; None for a head that reads the summary alone.
        valid: (N, S) bool, which of them are no padding.
        summary: (N, width), the hidden state of the last token that is no padding.
    """

    tokens: Tensor | None
    valid: Tensor | None
    summary: Tensor


class Part(nn.Module, ABC):
    """One part.

    Attributes:
        Size: frozen dataclass of what a configuration may choose; its `__post_init__` raises InputError. A field has
            a type that `core.records.record` reads, and most of them a default.
        float32: regular expressions; parameters whose names begin with one stay float32 whatever the rest is in.
    """

    Size: ClassVar[type] = NoSize
    float32: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, which a part casts what enters it to."""
        return next(self.parameters()).dtype

    @classmethod
    def folder_size(cls, folder: Path) -> Mapping[str, Any]:
        """Fields of `Size` that a folder of pretrained weights says. Raises InputError."""
        raise InputError(f"folder {folder}: {cls.__name__} takes no pretrained weights, expected no `folder`")

    def take(self, folder: Path) -> None:
        """Take the weights of such a folder. Raises InputError."""
        raise InputError(f"folder {folder}: {type(self).__name__} takes no pretrained weights, expected no `folder`")


class Vision(Part):
    """Images to tokens.

    A new one is made as `Vision(size, cameras, text_width)`, with the number of cameras and the width of what
    summarises the instruction.

    Attributes:
        mean, std: of the levels 0 to 1 that it was trained on, three each.
        image: pixels of both sides of its images.
        tokens: of an image; width: of a token.
    """

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image: int
    tokens: int
    width: int

    @abstractmethod
    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """Tokens of each image.

        Args:
            images: (B, N, 3, image, image) float32, less `mean` and divided by `std`.
            text: (B, text_width) float32 of unit variance, for one that locates what the instruction names.

        Returns:
            (B, N, tokens, width).
        """


class Projector(Part):
    """Tokens of a tower to the language model's width; made as `Projector(size, width, tokens, out)`.

    Attributes:
        tokens: how many come out.
    """

    tokens: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, P, width) to (B, tokens, out)."""


class Encoder(Part):
    """What a sensor measured to tokens; made as `Encoder(size, shape, out)`, with the shape of one value of the stream
    and the language model's width.

    Attributes:
        tokens: how many come out.
        counted: it asks how many rows of a stream of varying length are real.
    """

    tokens: int
    counted: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        """(B, *shape) float32 to (B, tokens, out); count: (B,) int64, where it is `counted`."""


class Fusion(Part):
    """Tokens of several sources to those that the language model reads; made as `Fusion(size, width, tokens)`, with the
    number of tokens of each source.

    Attributes:
        tokens: how many come out.
    """

    tokens: int

    @abstractmethod
    def forward(self, sources: Mapping[str, Tensor]) -> Tensor:
        """name -> (B, n, width), in the order of `tokens`, to (B, tokens, width)."""


class Language(Part):
    """A language model that reads embeddings; made as `Language(size)`.

    Attributes:
        width: of an embedding and of a hidden state.
        vocabulary: how many tokens it embeds. `Size` has a field of that name, 0: as many as the tokenizer has.
        most: tokens that it reads at most; 0: any number.
    """

    most: ClassVar[int] = 0

    width: int
    vocabulary: int

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """(B, T) ids to (B, T, width)."""

    def forget(self, tokens: Sequence[int]) -> None:
        """Zero what fresh weights embed tokens to that training will never show: random vectors would have an arbitrary
        effect. Does nothing where there is no such table."""

    @abstractmethod
    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Hidden states of all tokens after the last norm; padding changes none of the others'.

        Args:
            x: (B, S, width) embeddings.
            valid: (B, S) bool, False for padding.

        Returns:
            (B, S, width).
        """


class Temporal(Part):
    """What the head reads of a window of steps; made as `Temporal(size, width)`. Its Size has a field `window`."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(N, K, width) summaries, the oldest first, to the same shape, each of what is before it."""


class Head(Part):
    """Hidden states to actions; made as `Head(size, width, horizon, action_dim)`.

    A head whose Size has a field `window` above 1 reads that many steps: it derives from `WindowHead`.

    Attributes:
        reads: "summary", or "tokens" where it asks for all hidden states.
        guidance: forms of `Steer` that `act` follows, see `policies.policy.Traits`.
        steps: it works in steps: `prepare` and `step` are its own.
        bounded: it answers within [-1, 1], so that actions are normalised by bounds.
    """

    reads: ClassVar[str] = "summary"
    guidance: ClassVar[tuple[str, ...]] = ()
    steps: ClassVar[bool] = False
    bounded: ClassVar[bool] = False

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        """Name -> (size, ...), the standard normal numbers that `act` needs."""
        return {}

    def prepare(self, num_steps: int | None = None) -> Fixed:
        """What weights and number of steps decide."""
        return None

    def ready(self, features: Features) -> Any:
        """What all steps of one answer read of the observation, computed once."""
        return features

    def step(self, ready: Any, x: Tensor, constants: Any) -> Tensor:
        """The network's output of one step of denoising, (B, H, D)."""
        raise NotImplementedError

    @abstractmethod
    def act(
        self, features: Features, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None,
        step: Any = None,
    ) -> Tensor:
        """(B, H, D) normalised actions; `step` is called in place of `self.step`."""

    @abstractmethod
    def loss(self, features: Features, actions: Tensor, pad: Tensor | None, **draws: Tensor) -> dict[str, Tensor]:
        """"loss" and others to log, of (B, H, D) normalised actions; pad: (B, H) bool, rows that do not count."""
