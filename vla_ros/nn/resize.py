"""Smooth resizing: bilinear, with antialiasing when the image becomes smaller."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_smooth(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) to (N, C, *size).

    OpenVINO's and ONNX's converters do not have torch's operation: a graph that is exported has what it computes, a
    product with the weights of the pixels along either side.
    """
    if not torch.compiler.is_exporting():
        return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    rows, columns = (_weights(*pair).to(x) for pair in zip(x.shape[2:], size, strict=True))
    return rows @ x @ columns.t()


def _weights(size: int, wanted: int) -> Tensor:
    """(wanted, size) weights of the pixels of a line: triangles around each position, as wide as two of the larger
    pixels."""
    scale = size / wanted
    places = (torch.arange(wanted)[:, None] + 0.5) * scale
    weights = (1 - (torch.arange(size) + 0.5 - places).abs() / max(scale, 1.0)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)
