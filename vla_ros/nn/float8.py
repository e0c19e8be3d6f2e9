"""Products of eight-bit floating point numbers (e4m3) with fixed scales, for GPUs that multiply them (Ada, Hopper)."""

import torch
from torch import Tensor, nn

from vla_ros.nn.gemma import GemmaLayer
from vla_ros.nn.siglip import SiglipLayer

KIND = torch.float8_e4m3fn
MOST = torch.finfo(KIND).max
LEAST = 1 << 20  # numbers in a matrix; below it, converting the other factor costs more than it saves


class Float8Linear(nn.Module):
    """Replaces a linear layer: both factors are divided by a scale, clipped to e4m3's largest number and rounded; sums
    are float32, the result has the type of `x`.

    Args:
        largest: largest magnitude of `x` that was measured.
    """

    def __init__(self, linear: nn.Linear, largest: float) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax().float().clamp(min=1e-12) / MOST
        self.register_buffer("numbers", _small(weight, scale))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("scale", torch.full_like(scale, max(largest, 1e-12) / MOST))
        self.weight = nn.Parameter(weight[:0].clone(), requires_grad=False)  # empty: only its type and device are read
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        rows = _small(x.flatten(0, -2), self.scale)
        out = torch._scaled_mm(rows, self.numbers.t(), self.scale, self.weight_scale, self.bias, out_dtype=x.dtype)
        return out.unflatten(0, x.shape[:-1])


def _small(x: Tensor, scale: Tensor) -> Tensor:
    return (x.float() / scale).clamp(-MOST, MOST).to(KIND)  # rounded once


def large_products(module: nn.Module) -> dict[str, nn.Linear]:
    """Name -> linear layers of Gemma's and SigLIP's blocks that are large enough; tensor cores need multiples of 16."""
    return {
        f"{place}.{name}": linear
        for place, block in module.named_modules() if isinstance(block, GemmaLayer | SiglipLayer)
        for name, linear in block.named_children()
        if isinstance(linear, nn.Linear) and linear.weight.numel() >= LEAST
        and linear.in_features % 16 == 0 and linear.out_features % 16 == 0
    }  # fmt: skip


def put_float8(module: nn.Module, largest: dict[str, float]) -> None:
    """Replace the large products; `largest`: name -> largest magnitude of the input of each."""
    for name, linear in large_products(module).items():
        place, _, last = name.rpartition(".")
        setattr(module.get_submodule(place), last, Float8Linear(linear, largest[name]))
