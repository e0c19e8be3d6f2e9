"""What a head that reads several steps remembers of the steps before."""

import torch
from torch import Tensor

from vla_ros.policies.policy import tensors


@tensors
class Window:
    """The newest K steps at most.

    Attributes:
        window: (B, K, width), the oldest first; rows behind the last are not read.
        steps: (B,) int64, how many there are.
    """

    window: Tensor
    steps: Tensor

    @classmethod
    def empty(cls, like: Tensor, size: int, length: int, width: int) -> "Window":
        """Of `size` episodes that begin, (size, length, width) in the type and on the device of `like`."""
        return cls(like.new_zeros(size, length, width), torch.zeros(size, dtype=torch.int64, device=like.device))

    def after(self, elapsed: Tensor) -> "Window":
        """The same (B,) steps later: void after a gap longer than the window."""
        return Window(self.window, torch.where(elapsed > self.window.shape[1], 0, self.steps))

    def with_newest(self, newest: Tensor) -> "Window":
        """With a step (B, width) more; the oldest makes way where there are K."""
        length = self.window.shape[1]
        place = self.steps.clamp(max=length - 1)
        full = (self.steps >= length)[:, None, None]
        window = torch.where(full, self.window.roll(-1, dims=1), self.window)
        here = torch.arange(length, device=place.device) == place[:, None]
        return Window(torch.where(here[..., None], newest[:, None], window), place + 1)

    def newest(self, rows: Tensor) -> Tensor:
        """The row (B, C) of the newest step, of (B, K, C) rows of all."""
        place = (self.steps - 1)[:, None, None].expand(-1, 1, rows.shape[-1])
        return rows.gather(1, place)[:, 0]
