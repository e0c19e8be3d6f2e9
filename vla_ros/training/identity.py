"""What tells, when a run is resumed, whether it still is the same run."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from vla_ros.training.samples import Samples

_LOOKED_AT = 32  # samples
_EXACT, _ROUGH = 1e-4, 1e-2  # relative and absolute; two versions decode and resize images with other roundings


def seen(samples: Samples) -> dict[str, Tensor]:
    """What the processor makes of some samples: it depends on the dataset and on the statistics, units and words of
    the policy. Of images and the like, (B, N, ...), the means (B, N) float64."""
    numbers = np.linspace(0, len(samples) - 1, min(_LOOKED_AT, len(samples))).astype(int)
    batch = samples.processor.inputs(samples.get(numbers))
    return {name: value.flatten(2).double().mean(2) if value.ndim > 3 else value for name, value in batch.items()}


def sums(policy: nn.Module) -> Tensor:
    """(parameters,) float64, which tell one checkpoint from another."""
    return torch.stack([parameter.detach().abs().sum(dtype=torch.float64) for parameter in policy.parameters()]).cpu()


def unlike(then: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> list[str]:
    """The names of what `seen` says otherwise than then, by more than rounding."""
    return sorted(
        name for name in then.keys() | now.keys()
        if name not in then or name not in now
        or not same(then[name], now[name], _ROUGH if now[name].dtype == torch.float64 else _EXACT)
    )


def same(then: Tensor, now: Tensor, near: float) -> bool:
    """Whether two tensors are the same but for rounding."""
    alike = then.shape == now.shape and then.dtype == now.dtype
    return alike and torch.allclose(then.cpu().double(), now.cpu().double(), near, near, equal_nan=True)
