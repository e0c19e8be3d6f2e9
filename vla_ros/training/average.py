"""Exponential moving average of weights."""

import copy
from collections.abc import Mapping

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

    def applied(self, module: nn.Module) -> nn.Module:
        """A copy of the module with the averaged weights; the module itself is left as it is."""
        averaged = copy.deepcopy(module)
        parameters = dict(averaged.named_parameters())
        with torch.no_grad():
            for name, value in self.values.items():
                parameters[name].copy_(value)
        return averaged
