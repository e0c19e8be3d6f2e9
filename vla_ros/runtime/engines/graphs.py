"""A method of a policy as a graph of its own, of fixed shapes, which other programs read."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vla_ros.policies.policy import Policy


class Slot(NamedTuple):
    """The place of a tensor in a tree."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Shape:
    """A tree without its tensors: `leaves` has a `Slot` in the place of each. Trees with equal ones share a graph."""

    spec: pytree.TreeSpec
    leaves: tuple[Any, ...]

    def filled(self, tensors: Sequence[Tensor]) -> Any:
        """The tree with these tensors."""
        rest = iter(tensors)
        return pytree.tree_unflatten([next(rest) if isinstance(x, Slot) else x for x in self.leaves], self.spec)


def apart(tree: Any) -> tuple[list[Tensor], Shape]:
    """The tensors of a tree, and the tree without them."""
    leaves, spec = pytree.tree_flatten(tree)
    slots = tuple(Slot(tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x for x in leaves)
    return [x for x in leaves if isinstance(x, Tensor)], Shape(spec, slots)


def names(tree: Any) -> tuple[str, ...]:
    """Of the tree's tensors by their places in it: "batch.images", "context.keys.0"."""
    found, _ = pytree.tree_flatten_with_path(tree)
    return tuple(".".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)
                 for path, value in found if isinstance(value, Tensor))  # fmt: skip


@dataclass(frozen=True)
class Graph:
    """A method for arguments of fixed shapes.

    Attributes:
        program: takes the arguments' tensors and gives the result's, both in the trees' order.
        result: the tree that the method answers, without its tensors.
    """

    program: torch.export.ExportedProgram
    result: Shape


class _Flat(nn.Module):
    """The method from tensors to tensors; the policy is a part of it, so its weights are constants of the graph."""

    def __init__(self, policy: Policy, method: Callable, shape: Shape, constants: Any, answered: Callable) -> None:
        super().__init__()
        self.policy, self._method, self._shape = policy, method, shape
        fixed, self._constants = apart(constants)
        for number, tensor in enumerate(fixed):
            self.register_buffer(f"fixed_{number}", tensor.clone())
        self._count, self._answered = len(fixed), answered

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        constants = self._constants.filled([getattr(self, f"fixed_{number}") for number in range(self._count)])
        found, shape = apart(self._method(**self._shape.filled(tensors), **constants))
        self._answered(shape)
        return tuple(found)


def arguments(method: Callable, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The arguments of a call by their names."""
    return dict(inspect.signature(method).bind(*args, **(kwargs or {})).arguments)


def trace(
    policy: Policy, method: Callable, given: Mapping[str, Any], constants: Mapping[str, Any] | None = None
) -> Graph:
    """A method of the policy for arguments of the shapes of `given`; `constants` are arguments that become part of it.

    Raises whatever torch.export does where the method's work depends on values.
    """
    with torch.inference_mode(False), torch.no_grad():
        tensors, shape = apart(dict(given))
        results: list[Shape] = []
        flat = _Flat(policy, method, shape, dict(constants or {}), results.append)
        program = torch.export.export(flat, tuple(tensor.clone() for tensor in tensors))
    return Graph(program, results[-1])
