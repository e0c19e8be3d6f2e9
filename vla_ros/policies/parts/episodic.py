"""A working memory of the newest steps, and an episodic one of codes of all stretches since the episode began."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count, Rows, Width
from vla_ros.policies.parts.temporal import Steps, WorkingMemory
from vla_ros.policies.policy import tensors
from vla_ros.policies.window import Window


@dataclass(frozen=True)
class EpisodicSize:
    """Choices.

    Attributes:
        window: steps of a sample in training; of them alone it learns what is worth remembering.
        recent: slots of the working memory, and steps of a stretch.
        slots: stretches that are remembered, the newest ones.
        code, key: widths of a code, and of what is compared with the readers' questions.
        readers: how many questions each step asks; `top`: the codes that answer one, the most similar.
        heads: of the working memory's attention.
    """

    window: Steps = 16
    recent: Steps = 8
    slots: Rows = 1000
    code: Width = 512
    key: Width = 64
    readers: Count = 4
    top: Count = 8
    heads: Count = 8

    def __post_init__(self) -> None:
        if not self.recent <= self.window <= self.slots:
            raise InputError(f"recent {self.recent}, window {self.window}, slots {self.slots}: expected none smaller "
                             "than the one before")


@tensors
class Episode:
    """What is remembered of an episode.

    Attributes:
        recent: the newest summaries.
        codes: of the stretches that ended at each of the newest steps.
    """

    recent: Window
    codes: Window

    def after(self, elapsed: Tensor) -> "Episode":
        """The same (B,) steps later: each part is void after a gap longer than itself."""
        return Episode(self.recent.after(elapsed), self.codes.after(elapsed))


class EpisodicMemory(WorkingMemory):
    """Each step asks the newest steps, then the codes of all stretches; a stretch is the steps up to one, read by a
    GRU, and the codes that answer are those whose keys have the largest cosine with the question."""

    Size = EpisodicSize

    def __init__(self, size: EpisodicSize, width: int) -> None:
        super().__init__(size, width)
        self.size = size
        self.gru = nn.GRU(width, size.code, batch_first=True)
        self.asks, self.keys = nn.Linear(width, size.readers * size.key), nn.Linear(size.code, size.key)
        self.sharpness = nn.Parameter(torch.full((size.readers, 1), 2.0))  # logarithm
        self.last = nn.Linear(size.readers * size.code, width)

    def forward(self, x: Tensor) -> Tensor:
        x, recent = x.to(self.dtype), self.size.recent
        stretches = functional.pad(x, (0, 0, recent - 1, 0)).unfold(1, recent, 1).transpose(2, 3)  # (N, K, R, width)
        codes = self._code(stretches.flatten(0, 1)).unflatten(0, x.shape[:2])
        steps = torch.arange(x.shape[1], device=x.device)
        ago = steps[:, None] - steps
        return self._recalled(self.worked(x, x, attn_mask=(ago < 0) | (ago >= recent)), codes, (ago >= 0)[None])

    def begin(self, size: int, length: int, width: int) -> Episode:
        like = self.last.weight
        return Episode(
            Window.empty(like, size, self.size.recent, width), Window.empty(like, size, self.size.slots, self.size.code)
        )

    def remember(self, memory: Episode, newest: Tensor) -> tuple[Tensor, Episode]:
        newest = newest.to(self.dtype)
        recent = memory.recent.with_newest(newest)
        slots = torch.arange(self.size.recent, device=newest.device)
        place = recent.steps[:, None] - self.size.recent + slots  # (N, R), the newest last; below zero: none
        stretch = recent.window.gather(1, place.clamp(min=0)[..., None].expand_as(recent.window))
        codes = memory.codes.with_newest(self._code(stretch.masked_fill((place < 0)[..., None], 0)))
        x = self.worked(newest[:, None], recent.window, key_padding_mask=slots >= recent.steps[:, None])
        known = torch.arange(self.size.slots, device=newest.device) < codes.steps[:, None]
        return self._recalled(x, codes.window, known[:, None])[:, 0], Episode(recent, codes)

    def _code(self, stretches: Tensor) -> Tensor:
        """(M, R, width), zeros before the first step, to (M, code)."""
        return self.gru(stretches)[0][:, -1]

    def _recalled(self, x: Tensor, codes: Tensor, known: Tensor) -> Tensor:
        """(N, Q, width) with what they are answered by the (N, S, code) codes, of which (N, Q, S) bool are there."""
        asks = functional.normalize(self.asks(x).unflatten(-1, (self.size.readers, -1)), dim=-1)
        keys = functional.normalize(self.keys(codes), dim=-1)
        likeness = asks.flatten(1, 2) @ keys.transpose(1, 2)  # (N, Q * readers, S)
        likeness = likeness.unflatten(1, asks.shape[1:3]) * self.sharpness.exp()
        best, number = likeness.masked_fill(~known[:, :, None], -torch.inf).topk(min(self.size.top, codes.shape[1]))
        weights = torch.zeros_like(likeness).scatter(-1, number, best.softmax(dim=-1))
        return x + self.last((weights.flatten(1, 2) @ codes).unflatten(1, asks.shape[1:3]).flatten(2))
