"""Tensors of a checkpoint folder into a module: every key accounted for, one tensor in memory at a time."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vla_ros.core.errors import InputError

Shape = tuple[int, ...]
LISTED = 12  # keys of a kind that an error shows


class Tensors(Protocol):
    """Named tensors whose shapes are known before any of them is read."""

    shapes: Mapping[str, Shape]

    def read(self, key: str) -> Tensor: ...


class TensorFolder:
    """The safetensors of a folder: `model.safetensors`, or the shards that its index names.

    Args:
        path: the checkpoint folder.
        name: file name of the unsharded form.

    Raises InputError for a folder without weights and for a damaged file.
    """

    def __init__(self, path: Path, name: str = "model.safetensors") -> None:
        self.path = path
        index = path / f"{name}.index.json"
        if (path / name).is_file():
            files = [name]
        elif index.is_file():
            try:
                files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise InputError(f"checkpoint {index}: not an index of shards: {error!r}") from error
        else:
            raise InputError(f"checkpoint {path}: neither {name} nor {index.name} is there")
        self._file_of: dict[str, str] = {}
        self._opened: tuple[str, Any] | None = None  # the file that is mapped into memory, and its handle
        self._mapped = 0  # bytes read through this mapping
        self._most_mapped = sum((path / file).stat().st_size for file in files if (path / file).is_file()) // 64
        self.shapes: dict[str, Shape] = {}
        for file in files:
            try:
                with safe_open(path / file, framework="pt") as opened:
                    for key in opened.keys():
                        self._file_of[key] = file
                        self.shapes[key] = tuple(opened.get_slice(key).get_shape())
            except (OSError, SafetensorError) as error:
                raise InputError(f"checkpoint {path / file}: cannot be read, is it complete? {error}") from error

    def read(self, key: str) -> Tensor:
        """A tensor, valid for as long as it is held.

        A mapped file keeps every page that was read in memory, so the mapping is given up now and then: the host
        never holds much more than what was made of the tensors.
        """
        tensor = self._handle(key).get_tensor(key)
        self._mapped += tensor.nbytes
        return tensor

    def pieces(self, key: str) -> Iterator[tuple[slice, Tensor]]:
        """A tensor in blocks of rows, so that even the largest is never held whole beside its copy."""
        shape = self.shapes[key]
        rows = max(self._most_mapped // max(math.prod(shape[1:]) * 4, 1), 1)
        if not shape or shape[0] <= rows:
            yield slice(None), self.read(key)
            return
        for start in range(0, shape[0], rows):
            block = slice(start, min(start + rows, shape[0]))
            tensor = self._handle(key).get_slice(key)[block]
            self._mapped += tensor.nbytes
            yield block, tensor

    def _handle(self, key: str) -> Any:
        file = self._file_of[key]
        if self._opened is None or self._opened[0] != file or self._mapped > self._most_mapped:
            self._opened = None  # the old mapping goes before the new one comes
            self._opened, self._mapped = (file, safe_open(self.path / file, framework="pt")), 0
        return self._opened[1]


def check_keys(wanted: Mapping[str, Shape], found: Mapping[str, Shape], where: str) -> None:
    """One InputError that lists all missing, extra and misshapen keys; none if all is there."""
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    misshapen = [
        f"{key} {list(found[key])}, expected {list(wanted[key])}"
        for key in sorted(wanted.keys() & found.keys())
        if tuple(found[key]) != tuple(wanted[key])
    ]
    parts = [
        _listed(kind, keys) for kind, keys in (("missing", missing), ("extra", extra), ("misshapen", misshapen)) if keys
    ]
    if parts:
        raise InputError(f"checkpoint {where}: its tensors do not fit its configuration: " + "; ".join(parts))


def load_weights(
    module: nn.Module,
    tensors: Tensors,
    where: str,
    rename: Callable[[str], str | None] = lambda key: key,
    optional: Iterable[str] = (),
    device: torch.device | str = "cpu",
    dtype: torch.dtype | Callable[[str], torch.dtype] | None = None,
) -> None:
    """Give a module built on the meta device its weights, each read straight to its device and dtype.

    Args:
        rename: key in the file -> key in the module, or None for a tensor that is known not to be used.
        optional: keys of the module that a file may lack; whoever names them fills them himself.
        dtype: of floating-point parameters, or a function from their names to it; None keeps the file's. Buffers
            keep their own dtype.

    Raises InputError that lists every missing, extra and misshapen key, before anything is changed.
    """
    source: dict[str, str] = {}
    for key in tensors.shapes:
        name = rename(key)
        if name is None:
            continue
        if name in source:
            raise InputError(f"checkpoint {where}: {source[name]} and {key} both stand for {name}")
        source[name] = key
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name in optional:
        if name not in source:
            wanted.pop(name, None)
    check_keys(wanted, {name: tensors.shapes[key] for name, key in source.items()}, where)
    for name, key in source.items():
        prefix, _, leaf = name.rpartition(".")
        owner = module.get_submodule(prefix)
        tensor = tensors.read(key)
        if leaf in owner._parameters:
            wanted_dtype = dtype(name) if callable(dtype) else dtype
            if wanted_dtype is None or not tensor.is_floating_point():
                wanted_dtype = tensor.dtype
            grad = owner._parameters[leaf].requires_grad
            owner._parameters[leaf] = nn.Parameter(tensor.to(device, wanted_dtype), requires_grad=grad)
        else:
            owner._buffers[leaf] = tensor.to(device, owner._buffers[leaf].dtype)
    for owner in module.modules():  # what is computed, not stored: positions and the like
        for leaf, buffer in owner._buffers.items():
            if buffer is None:
                continue
            if buffer.is_meta and torch.device(device).type != "meta":
                raise RuntimeError(f"{type(owner).__name__}.{leaf}: neither in the file nor computed")
            owner._buffers[leaf] = buffer.to(device)


def _listed(kind: str, keys: list[str]) -> str:
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return f"{len(keys)} {kind}: " + ", ".join(keys[:LISTED]) + more
