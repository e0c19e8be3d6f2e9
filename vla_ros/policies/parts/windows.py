"""RoboVLMs' heads as parts: an LSTM and a GPT that read a window of steps, and layers that only read the newest
step."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count, Range, Width
from vla_ros.policies.parts import kinds
from vla_ros.policies.parts.kinds import Features
from vla_ros.policies.policy import Draws, Fixed, Steer
from vla_ros.policies.robovlms import heads
from vla_ros.policies.robovlms.config import GPT_HEADS


@dataclass(frozen=True)
class FcSize:
    """`hidden`: width of the body; `gripper`: the last number is predicted as open or closed (1, -1), by a separate
    part."""

    hidden: Width = 1024
    gripper: bool = False
    gripper_weight: Annotated[float, Range(0, 1000)] = 0.01


@dataclass(frozen=True)
class WindowSize(FcSize):
    """Like `FcSize`; `window`: number of steps."""

    window: Count = 8


@dataclass(frozen=True)
class GptSize(WindowSize):
    def __post_init__(self) -> None:
        if self.hidden % GPT_HEADS:
            raise InputError(f"hidden {self.hidden}, expected a multiple of {GPT_HEADS}")


class WindowHead(kinds.Head):
    """A head that reads the summaries of several steps.

    Attributes:
        window: K, steps of a window.
        width: of a summary.
    """

    window: int
    width: int

    def read(self, x: Tensor) -> Tensor:
        """(N, K, width) summaries, the oldest first, to (N, K, C), each from itself and the steps before it."""
        raise NotImplementedError

    def decode(self, x: Tensor) -> Tensor:
        """(N, C) to (N, H, D) actions."""
        raise NotImplementedError

    def losses(self, x: Tensor, actions: Tensor, kept: Tensor) -> dict[str, Tensor]:
        """Losses of (N, K, width) summaries for (N, K, H, D) actions, over the rows in (N, K, H) `kept`."""
        raise NotImplementedError

    def act(
        self, features: Features, draws: Draws | None = None, fixed: Fixed = None, steer: Steer | None = None,
        step: None = None,
    ) -> Tensor:
        """Answer for a window of one step."""
        return self.decode(self.read(features.summary[:, None].to(self.dtype))[:, 0])

    def loss(self, features: Features, actions: Tensor, pad: Tensor | None, **draws: Tensor) -> dict[str, Tensor]:
        kept = actions[..., 0].isfinite() if pad is None else ~pad
        return self.losses(features.summary[:, None].to(self.dtype), actions[:, None], kept[:, None])


class RoboVLMsHead(WindowHead):
    """Poses in [-1, 1] and gripper from separate trunks; Huber loss and cross entropy."""

    kind: ClassVar[str]
    bounded = True

    def __init__(self, size: FcSize, width: int, horizon: int, action_dim: int) -> None:
        super().__init__()
        if action_dim - size.gripper < 1:
            raise InputError(f"action of {action_dim} numbers, expected a gripper and another, or gripper: false")
        self.window, self.width, self.weight = getattr(size, "window", 1), width, size.gripper_weight
        self.head = heads.Head(
            self.kind, width, size.hidden, self.window, horizon, action_dim - size.gripper, size.gripper
        )

    def read(self, x: Tensor) -> Tensor:
        return self.head.body(x)

    def decode(self, x: Tensor) -> Tensor:
        return heads.joined(*self.head.decode(x))

    def losses(self, x: Tensor, actions: Tensor, kept: Tensor) -> dict[str, Tensor]:
        return heads.losses(*self.head.decode(self.head.body(x)), actions, kept, self.weight)


class LstmHead(RoboVLMsHead):
    Size, kind = WindowSize, "lstm"


class GptHead(RoboVLMsHead):
    Size, kind = GptSize, "gpt"


class FcHead(RoboVLMsHead):
    Size, kind = FcSize, "fc"
