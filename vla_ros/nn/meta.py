"""Modules on the meta device: for counting parameters, checking shapes and loading weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FILLING = {Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_, torch.nn.init.trunc_normal_}


class _LeaveUnfilled(TorchFunctionMode):
    """Skips initialisations: on the meta device they have no effect, but take seconds."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return args[0] if function in _FILLING else function(*args, **(kwargs or {}))


@contextmanager
def without_numbers() -> Iterator[None]:
    """Modules made in this block have parameters on the meta device: shapes, no memory, nothing initialised."""
    with torch.device("meta"), _LeaveUnfilled():
        yield
