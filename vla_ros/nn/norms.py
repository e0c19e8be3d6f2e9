"""Normalisation layers of the Gemma towers, LayerNorm beside bfloat16 matrices, and batch normalisation without padding
rows."""

import torch
from torch import Tensor, nn
from torch.nn import functional

Modulation = tuple[Tensor, Tensor, Tensor]  # 1 + scale, shift, gate


def rms_normalised(x: Tensor, eps: float, weight: Tensor | None = None) -> Tensor:
    """(..., width) to x / sqrt(mean(x²) + eps), times a (width,) float32 weight, (..., width) float32.

    On a GPU it is one kernel.
    """
    return functional.rms_norm(x.float(), x.shape[-1:], weight, eps)


def layer_normalised(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm of (..., width) in float32 whatever the type of `x`, which is that of the result (the weights may be
    kept in float32 beside bfloat16 matrices)."""
    bias = None if norm.bias is None else norm.bias.float()
    out = functional.layer_norm(x.float(), norm.normalized_shape, norm.weight.float(), bias, norm.eps)
    return out.to(x.dtype)


class RMSNorm(nn.Module):
    """Gemma's form: the weight is used as (1 + weight). Its gate is None, see AdaptiveRMSNorm."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(width))

    def scale(self) -> Tensor:
        """(width,) float32."""
        return 1 + self.weight.float()

    def forward(self, x: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(..., width) to the normalised tensor in the type of `x`, and no gate; `scale`: result of `scale()`, if
        already known."""
        return rms_normalised(x, self.eps, self.scale() if scale is None else scale).to(x.dtype), None


class AdaptiveRMSNorm(nn.Module):
    """adaRMS of π0.5: scale, shift and the gate of the residual come from a condition (here: the time).

    out = x̂ · (1 + scale) + shift; the caller adds `gate · sublayer(out)` to its residual. `dense` starts at zero,
    so a fresh layer is a plain RMSNorm whose sublayer is switched off.
    """

    def __init__(self, width: int, condition_width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.dense = nn.Linear(condition_width, 3 * width)
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def modulation(self, condition: Tensor, dtype: torch.dtype) -> Modulation:
        """1 + scale and shift in float32 and the gate in `dtype`, each (N, R, width), for an
        (N, R, condition_width) condition; R is 1 (the same for all rows) or the number of rows."""
        scale, shift, gate = self.dense(condition.to(self.dense.weight.dtype)).chunk(3, dim=-1)
        return 1 + scale.float(), shift.float(), gate.to(dtype)

    def forward(self, x: Tensor, modulation: Modulation) -> tuple[Tensor, Tensor]:
        """(B, S, width) to the normalised tensor in the type of `x` and the gate (N, R, width)."""
        scale, shift, gate = modulation
        return torch.addcmul(shift, rms_normalised(x, self.eps), scale).to(x.dtype), gate


class RealBatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose statistics ignore padding rows. Without padding it is `nn.BatchNorm1d`."""

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(..., width), of which the (...) bool rows are real, to the same in float32."""
        x, mean, variance = x.float(), self.running_mean, self.running_var
        if self.training:
            rows, count = real[..., None], real.sum().clamp(min=1)
            mean = self._sum(x, rows) / count
            variance = self._sum((x - mean).square(), rows) / count
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias

    @staticmethod
    def _sum(x: Tensor, rows: Tensor) -> Tensor:
        """(width,)."""
        return x.masked_fill(~rows, 0).sum(dim=tuple(range(x.ndim - 1)))
