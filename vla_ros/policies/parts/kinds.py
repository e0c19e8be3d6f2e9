"""Inputs and outputs of each kind of part. A part of your own derives from one of these classes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.policies.policy import Draws, Fixed, Steer, tensors
from vla_ros.policies.window import Window


@dataclass(frozen=True)
class NoSize:
    """Size of a part without options."""


@tensors
class Features:
    """Output of the language model for N observations.

    Attributes:
        tokens: (N, S, width) hidden states; None for a head that only reads the summary.
        valid: (N, S) bool, False for padding.
        summary: (N, width), the hidden state of the last token that is not padding.
    """

    tokens: Tensor | None
    valid: Tensor | None
    summary: Tensor


class Part(nn.Module, ABC):
    """One part.

    Attributes:
        Size: frozen dataclass of the options in a configuration; its `__post_init__` raises InputError. The types of
            its fields must be ones that `core.records.record` reads; most fields have a default.
        float32: regular expressions; parameters whose names begin with one stay float32 whatever the rest is in.
    """

    Size: ClassVar[type] = NoSize
    float32: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, to which a part casts its inputs."""
        return next(self.parameters()).dtype

    @classmethod
    def folder_size(cls, folder: Path) -> Mapping[str, Any]:
        """Fields of `Size` from a folder of pretrained weights. Raises InputError."""
        raise InputError(f"folder {folder}: {cls.__name__} takes no pretrained weights, expected no `folder`")

    def take(self, folder: Path) -> None:
        """Load the weights of such a folder. Raises InputError."""
        raise InputError(f"folder {folder}: {type(self).__name__} takes no pretrained weights, expected no `folder`")


class Vision(Part):
    """Images to tokens.

    Constructed as `Vision(size, cameras, text_width)`, with the number of cameras and the width of the instruction's
    summary.

    Attributes:
        mean, std: of the colour values 0 to 1 in its training, three each.
        image: height and width of its images, pixels.
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
            text: (B, text_width) float32 of unit variance, for a tower that locates what the instruction names.

        Returns:
            (B, N, tokens, width).
        """


class Projector(Part):
    """Tokens of a tower to the language model's width; constructed as `Projector(size, width, tokens, out)`.

    Attributes:
        tokens: number of output tokens.
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
        camera: name of the policy's image that it sees beside its stream, "" for none.
    """

    tokens: int
    counted: ClassVar[bool] = False
    camera: str = ""

    @abstractmethod
    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        """(B, *shape) float32 to (B, tokens, out); count: (B,) int64, where it is `counted`.

        One with a `camera` gets a third argument, its image: (B, 3, height, width) float32, levels from 0 to 1.
        """


class Fusion(Part):
    """From tokens of several sources to those that the language model reads; constructed as `Fusion(size, width,
    tokens)`, with the number of tokens of each source.

    Attributes:
        tokens: number of output tokens.
    """

    tokens: int

    @abstractmethod
    def forward(self, sources: Mapping[str, Tensor]) -> Tensor:
        """name -> (B, n, width), in the order of `tokens`, to (B, tokens, width)."""


class Language(Part):
    """A language model that reads embeddings; constructed as `Language(size)`.

    Attributes:
        width: of an embedding and of a hidden state.
        vocabulary: number of tokens that it can embed. `Size` has a field of that name, 0: as many as the tokenizer
            has.
        most: largest number of tokens that it reads; 0: any.
    """

    most: ClassVar[int] = 0

    width: int
    vocabulary: int

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """(B, T) ids to (B, T, width)."""

    def forget(self, tokens: Sequence[int]) -> None:
        """Set the embeddings of tokens that do not occur in training to zero: random vectors would have an arbitrary
        effect. Does nothing without such a table."""

    @abstractmethod
    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Hidden states of all tokens after the last norm; padding does not change the others.

        Args:
            x: (B, S, width) embeddings.
            valid: (B, S) bool, False for padding.

        Returns:
            (B, S, width).
        """


class Temporal(Part):
    """Computes the head's input from a window of steps; constructed as `Temporal(size, width)`. Its Size has a field
    `window`."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(N, K, width) summaries, the oldest first, to the same shape, each from itself and the steps before it."""

    def begin(self, size: int, length: int, width: int) -> Any:
        """The memory of `size` episodes that begin: of the newest `length` steps, or what the part remembers instead.
        It is made with `policies.policy.tensors`, and has `after(elapsed)` as `Window` does."""
        return Window.empty(next(self.parameters()), size, length, width)

    def remember(self, memory: Any, newest: Tensor) -> tuple[Tensor, Any]:
        """What `forward` makes of the newest summary (N, width) behind those that are remembered, (N, width), and the
        memory with it."""
        memory = memory.with_newest(newest.to(memory.window.dtype))
        return memory.newest(self(memory.window)), memory


class Head(Part):
    """From hidden states to actions; constructed as `Head(size, width, horizon, action_dim)`.

    A head whose Size has a field `window` above 1 reads that many steps: it derives from `WindowHead`.

    Attributes:
        reads: "summary", or "tokens" for all hidden states.
        guidance: forms of `Steer` that `act` accepts, see `policies.policy.Traits`.
        steps: it denoises in steps, with its own `prepare` and `step`.
        bounded: its output is within [-1, 1], so actions must be normalised by bounds.
    """

    reads: ClassVar[str] = "summary"
    guidance: ClassVar[tuple[str, ...]] = ()
    steps: ClassVar[bool] = False
    bounded: ClassVar[bool] = False

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        """Name -> (size, ...), standard normal numbers that `act` needs."""
        return {}

    def prepare(self, num_steps: int | None = None) -> Fixed:
        """What only depends on weights and number of steps."""
        return None

    def ready(self, features: Features) -> Any:
        """The part of the input from the observation that all steps of one answer share, computed once."""
        return features

    def step(self, ready: Any, x: Tensor, constants: Any) -> Tensor:
        """The network's output in one denoising step, (B, H, D)."""
        raise NotImplementedError

    @abstractmethod
    def act(
        self, features: Features, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None,
        step: Any = None,
    ) -> Tensor:
        """(B, H, D) normalised actions; `step` is called in place of `self.step`."""

    @abstractmethod
    def loss(self, features: Features, actions: Tensor, pad: Tensor | None, **draws: Tensor) -> dict[str, Tensor]:
        """"loss" and others to log, of (B, H, D) normalised actions; pad: (B, H) bool, rows that are ignored."""
