"""Meaning of the dimensions of X-VLA's actions in its action modes (LeRobot 0.6.1's action spaces)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vla_ros.core.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Term:
    """A term of the loss: the sum over `groups` of the mean over their dimensions, times `weight`.

    Attributes:
        logits: True: the network's numbers are logits of targets in [0, 1] (binary cross-entropy); False: the targets
            themselves (squared error).
    """

    name: str
    weight: float
    groups: tuple[tuple[int, ...], ...]
    logits: bool = False

    def __call__(self, answer: Tensor, actions: Tensor) -> Tensor:
        """The scalar loss of (B, H, D) answers and targets."""
        error: Loss = functional.binary_cross_entropy_with_logits if self.logits else functional.mse_loss
        return self.weight * sum(error(answer[..., group], actions[..., group]) for group in self.groups)


@dataclass(frozen=True)
class Mode:
    """One action mode.

    Attributes:
        width: D, dimensions of the network.
        real: number of the robot's dimensions; the rest is padding.
        grippers: dimensions whose output is a logit, and which are not inputs of the network, neither in actions nor
            in the state.
        poses: whether its actions are poses of end effectors.
    """

    width: int
    real: int
    terms: tuple[Term, ...]
    grippers: tuple[int, ...] = ()
    poses: bool = False

    def seen(self, values: Tensor) -> Tensor:
        """(..., n) actions or states as input of the network: grippers are zero."""
        hidden = torch.zeros(values.shape[-1], dtype=torch.bool, device=values.device)
        hidden[[index for index in self.grippers if index < values.shape[-1]]] = True
        return values.masked_fill(hidden, 0.0)

    def answered(self, actions: Tensor) -> Tensor:
        """From (B, H, D) outputs of the network to the policy's actions: grippers from logits to [0, 1]."""
        if not self.grippers:
            return actions
        logits = torch.zeros(actions.shape[-1], dtype=torch.bool, device=actions.device)
        logits[list(self.grippers)] = True
        return torch.where(logits, actions.sigmoid(), actions)

    def losses(self, answer: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """Every term, for (B, H, D) outputs of the network and targets."""
        return {term.name: term(answer, actions) for term in self.terms}


def _span(first: int, end: int) -> tuple[int, ...]:
    return tuple(range(first, end))


def _poses(gripper: Term, grippers: tuple[int, ...]) -> Mode:
    """Two arms of position, rotation (six numbers) and gripper."""
    position = Term("position_loss", 500.0, (_span(0, 3), _span(10, 13)))
    rotation = Term("rotate6D_loss", 10.0, (_span(3, 9), _span(13, 19)))
    return Mode(20, 20, (position, rotation, gripper), grippers, poses=True)


def _joints(width: int, real: int) -> Mode:
    return Mode(width, real, (Term("joints_loss", 1.0, (_span(0, real),)),))


_ARMS = tuple(index for index in range(14) if index not in (6, 13))
MODES = {
    "ee6d": _poses(Term("gripper_loss", 0.5, ((9,), (19,)), logits=True), (9, 19)),
    "agibot_ee6d": _poses(Term("gripper_loss", 10.0, ((9, 19),)), ()),
    "joint": Mode(14, 14, (Term("joints_loss", 1.0, (_ARMS,)), Term("gripper_loss", 0.05, ((6,), (13,)), logits=True)),
                  (6, 13)),
    "franka_joint7": _joints(20, 7),
    "so101_bimanual": Mode(20, 12, (
        Term("joints_loss", 1.0, (_span(0, 12),)), Term("gripper_loss", 1.0, ((5, 11),)),
        Term("left_arm_loss", 1.0, (_span(0, 6),)), Term("right_arm_loss", 1.0, (_span(6, 12),)),
    ), (5, 11)),
}
AUTO = "auto"  # as many dimensions as the robot's actions


def find_mode(name: str, real: int, width: int) -> Mode:
    """The mode of that name.

    Args:
        real: dimensions of the robot's actions.
        width: of the network's in mode "auto".

    Raises InputError for an unknown name, or actions that do not fit.
    """
    if name == AUTO and not 0 < real <= width:
        raise InputError(f"xvla: actions of {real} dimensions, expected 1 to max_action_dim {width}")
    mode = _joints(width, real) if name == AUTO else MODES.get(name)
    if mode is None:
        raise InputError(f"xvla: action_mode {name!r}, expected one of {sorted((*MODES, AUTO))}")
    if mode.real != real:
        raise InputError(f"xvla: action_mode {name}: actions of {real} dimensions, expected {mode.real}")
    return mode
