"""Windows of steps: in training they are read at once, when serving the policy remembers them step by step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vla_ros.policies.policy import tensors
from vla_ros.policies.processor import StandardProcessor


@dataclass(frozen=True)
class WindowProcessor(StandardProcessor):
    """Of a policy with a memory: all steps of a window in training, `config.past` beside the newest, and one step when
    serving."""

    def steps(self, training: bool = False) -> dict[str, tuple[int, ...]]:
        steps = tuple(range(-self.config.past, 1)) if training else (0,)
        return dict.fromkeys((*self.cameras, "joint_states", *self.streams), steps)


@tensors
class Window:
    """The newest K steps at most.

    Attributes:
        window: (B, K, width), the oldest first; rows after the last step are not read.
        steps: (B,) int64, number of steps.
    """

    window: Tensor
    steps: Tensor

    @classmethod
    def empty(cls, like: Tensor, size: int, length: int, width: int) -> "Window":
        """For `size` new episodes, (size, length, width) in the type and on the device of `like`."""
        return cls(like.new_zeros(size, length, width), torch.zeros(size, dtype=torch.int64, device=like.device))

    def after(self, elapsed: Tensor) -> "Window":
        """The same (B,) steps later: empty after a gap longer than the window."""
        return Window(self.window, torch.where(elapsed > self.window.shape[1], 0, self.steps))

    def with_newest(self, newest: Tensor) -> "Window":
        """With one more step (B, width); the oldest is dropped if there are K already."""
        length = self.window.shape[1]
        place = self.steps.clamp(max=length - 1)
        full = (self.steps >= length)[:, None, None]
        window = torch.where(full, self.window.roll(-1, dims=1), self.window)
        here = torch.arange(length, device=place.device) == place[:, None]
        return Window(torch.where(here[..., None], newest[:, None], window), place + 1)

    def newest(self, rows: Tensor) -> Tensor:
        """The row (B, C) of the newest step in (B, K, C)."""
        place = (self.steps - 1)[:, None, None].expand(-1, 1, rows.shape[-1])
        return rows.gather(1, place)[:, 0]
