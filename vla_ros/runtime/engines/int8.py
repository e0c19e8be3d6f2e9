"""Weights of eight bits: each row of a matrix as whole numbers from -127 to 127 and one float32 scale.

What is computed with them stays float32. The matrices are those of linear layers; what a family keeps in float32 beside
bfloat16 (`Policy.float32`), embeddings and convolutions stay as they are.
"""

import re
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from vla_ros.policies.policy import Policy
from vla_ros.runtime.network import private_copy

if TYPE_CHECKING:
    import openvino

LEAST = 1024  # numbers of a matrix that is worth it


def rounded(policy: Policy) -> Policy:
    """A private copy whose matrices have only values that eight bits can hold, in float32."""
    copied = private_copy(policy)
    for name, module in copied.named_modules():
        kept = any(re.match(pattern, f"{name}.weight") for pattern in policy.float32)
        if isinstance(module, nn.Linear) and module.weight.numel() >= LEAST and not kept:
            weight = module.weight.detach()
            scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
            module.weight = nn.Parameter((weight / scale).round() * scale, requires_grad=False)
    return copied


def compress(model: "openvino.Model") -> None:
    """Keep the matrices of a graph that `rounded` has made as whole numbers and scales, which OpenVINO multiplies with
    as they are."""
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type().get_type_name() != "f32":
            continue
        if len(node.get_output_shape(0)) == 2 and (parts := whole(np.asarray(node.data))):
            numbers, scale = map(opset13.constant, parts)
            wide = opset13.multiply(opset13.convert(numbers, "f32"), scale)
            node.output(0).replace(wide.output(0))


def whole(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The int8 numbers and the scales of the rows, or columns, of a matrix that has no other values; else None."""
    for axis in (1, 0) if matrix.size >= LEAST else ():
        scale = np.abs(matrix).max(axis=axis, keepdims=True) / np.float32(127)
        numbers = matrix / np.where(scale > 0, scale, 1)
        if np.abs(numbers - np.rint(numbers)).max() < 1e-3:
            return np.rint(numbers).astype(np.int8), scale
    return None
