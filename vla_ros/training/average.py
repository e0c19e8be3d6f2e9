"""Exponential moving average of weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Moving average of a module's trained parameters: a ← d·a + (1 − d)·w after each step.

    d = min(decay, (1 + n) / (10 + n)) at the n-th update, so that the first weights are forgotten soon.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters() if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, module: nn.Module, n: int) -> None:
        decay = min(self.decay, (1 + n) / (10 + n))
        parameters = dict(module.named_parameters())
        values = list(self.values.values())
        torch._foreach_lerp_(values, [parameters[name].detach() for name in self.values], 1 - decay)

    def load(self, values: Mapping[str, Tensor]) -> None:
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Within the context the module has the averaged weights; nothing is copied."""
        parameters = dict(module.named_parameters())
        own = {name: parameters[name].data for name in self.values}
        try:
            for name, value in self.values.items():
                parameters[name].data = value
            yield
        finally:
            for name, value in own.items():
                parameters[name].data = value
