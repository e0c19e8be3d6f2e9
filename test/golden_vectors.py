"""Golden vectors: inputs and outputs of tiny published-code policies, whose weights are derived from their keys.

They lie in `test/data/golden`, or in the folder that VLA_GOLDEN_DIR names.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

FOLDER = Path(__file__).parent / "data" / "golden"


def load(name: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, tuple[int, ...]]]:
    """Tensors, configuration, and every checkpoint key with its shape."""
    path = Path(os.environ.get("VLA_GOLDEN_DIR") or FOLDER) / f"{name}.safetensors"
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    shapes = {key: tuple(shape) for key, shape in json.loads(meta["keys"]).items() if not isinstance(shape, dict)}
    return tensors, json.loads(meta["config"]), shapes


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    """The float32 weight that belongs to a checkpoint key."""
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if len(shape) >= 2:
        x = x / np.float32(np.sqrt(np.prod(shape[1:])))
    elif key.endswith("running_var"):
        x = 1 + np.float32(0.1) * np.abs(x)
    else:
        x = np.float32(0.1) * x + (1 if key.endswith("weight") else 0)
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))


class Filled:
    """The tensors of such a checkpoint, for `vla_ros.policies.formats.weights.load_weights`.

    Args:
        shapes: key -> shape of the derived weights.
        extra: tensors that stood at their initial values when the vectors were made.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], extra: Mapping[str, Tensor] | None = None) -> None:
        self._extra = dict(extra or {})
        self.shapes = dict(shapes) | {key: tuple(value.shape) for key, value in self._extra.items()}
        self.dtypes = dict.fromkeys(self.shapes, "F32")

    def pieces(self, key: str) -> Iterator[tuple[object, Tensor]]:
        yield ..., self._extra[key] if key in self._extra else fill(key, self.shapes[key])


class Scaled(Filled):
    """With some weights, or rows of them, multiplied, as when the vectors were made.

    Args:
        rules: rows of `key`, `mul` and, perhaps, `rows` (from, to).
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], rules: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(shapes)
        self._rules = rules

    def pieces(self, key: str) -> Iterator[tuple[object, Tensor]]:
        for place, piece in super().pieces(key):
            for rule in self._rules:
                if rule["key"] == key:
                    piece[slice(*rule["rows"]) if "rows" in rule else ...] *= rule["mul"]
            yield place, piece


class ShapesOnly:
    """A checkpoint of any size without its data: what it reads lies on the meta device."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.dtypes = dict.fromkeys(self.shapes, "F32")

    def pieces(self, key: str) -> Iterator[tuple[object, Tensor]]:
        yield ..., torch.empty(self.shapes[key], device="meta")


def assert_close(actual: Tensor, golden: Tensor, relative: float = 1e-5) -> None:
    """The largest difference is at most `relative` times the largest golden value."""
    assert actual.shape == golden.shape
    error = (actual - golden).abs().max() / golden.abs().max()
    assert error <= relative, f"relative error {float(error):.1e}"
