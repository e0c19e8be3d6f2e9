"""Load the tensors of a checkpoint folder into a module: all keys are checked, one tensor is in memory at a time."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import inside, regular
from vla_ros.core.records import read_mapping, value_of
from vla_ros.policies.formats.pickles import LONGEST_KEY, hint
from vla_ros.policies.policy import Policy

Shape = tuple[int, ...]
MOST_HEADER = 32 << 20  # bytes; a header has about 150 per tensor
# Integers would be those of a quantised network, which are meaningless without their scales.
NUMBERS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ")
LISTED = 12  # largest number of keys of each kind in an error


class TensorFolder:
    """The safetensors of a folder: `model.safetensors`, or the shards that its index names.

    Args:
        path: the checkpoint folder.
        name: file name if it is not sharded.

    Raises InputError for a folder without weights and for a damaged file.
    """

    def __init__(self, path: Path, name: str = "model.safetensors") -> None:
        self.path = path
        index = path / f"{name}.index.json"
        if (path / name).exists():
            files = [name]
        elif index.exists():
            where = f"checkpoint {index}: weight_map"
            shards = value_of(dict[str, str], read_mapping(index, "checkpoint").get("weight_map"), where)
            files = sorted(set(shards.values()))
            for file in files:
                inside(path, file, where)
        else:
            raise InputError(f"checkpoint {path}: neither {name} nor {index.name} exists{hint(path)}")
        self._file_of: dict[str, str] = {}
        self._opened: tuple[str, Any] | None = None  # the memory-mapped file, and its handle
        self._mapped = 0  # bytes read through this mapping
        self._most_mapped = sum((path / file).stat().st_size for file in files if (path / file).is_file()) // 64
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, str] = {}
        for file in files:
            check_tensors(path / file)
            try:
                with safe_open(path / file, framework="pt") as opened:
                    for key in opened.keys():
                        if len(key) > LONGEST_KEY:
                            raise InputError(f"checkpoint {path / file}: tensor {shown(key)}: a name too long")
                        self._file_of[key] = file
                        part = opened.get_slice(key)
                        self.shapes[key], self.dtypes[key] = tuple(part.get_shape()), part.get_dtype()
            except (OSError, SafetensorError) as error:
                raise InputError(f"checkpoint {path / file}: cannot be read, is it complete? {error}") from error

    def read(self, key: str) -> Tensor:
        """A tensor, valid for as long as it is held.

        A mapped file keeps every page that was read in memory, so it is mapped again from time to time: the host's
        memory contains little more than the tensors made from it.
        """
        try:
            tensor = self._handle(key).get_tensor(key)
        except (SafetensorError, KeyError, AttributeError) as error:
            raise InputError(f"checkpoint {self.path}: {key} of type {self.dtypes[key]} cannot be read: "
                             f"{error}") from error
        self._mapped += tensor.nbytes
        return tensor

    def pieces(self, key: str) -> Iterator[tuple[Any, Tensor]]:
        """(n, ...) rows of a tensor, block by block, so that even the largest is never in memory twice."""
        shape = self.shapes[key]
        rows = max(self._most_mapped // max(math.prod(shape[1:]) * 4, 1), 1)
        if not shape or shape[0] <= rows:
            yield ..., self.read(key)
            return
        for start in range(0, shape[0], rows):
            block = slice(start, min(start + rows, shape[0]))
            tensor = self._handle(key).get_slice(key)[block]
            self._mapped += tensor.nbytes
            yield block, tensor

    def _handle(self, key: str) -> Any:
        file = self._file_of[key]
        if self._opened is None or self._opened[0] != file or self._mapped > self._most_mapped:
            self._opened = None  # release the old mapping before the new one is made
            self._opened, self._mapped = (file, safe_open(self.path / file, framework="pt")), 0
        return self._opened[1]


def numbers(tensor: Tensor, where: str) -> np.ndarray:
    """The tensor in float64, for any real type. Raises InputError for another type."""
    try:
        if not tensor.is_complex():
            return tensor.double().numpy()
    except RuntimeError:  # types that torch stores but cannot compute with, such as four-bit floats
        pass
    raise InputError(f"{where}: numbers of {str(tensor.dtype).removeprefix('torch.')}, expected real ones of a type "
                     "that torch converts")


def check_tensors(path: Path, most: int | None = None) -> None:
    """Refuse a file that is not safetensors, or is larger than `most` bytes, before it is mapped: its JSON header takes
    many times its length in memory. Raises InputError."""
    with regular(path, "checkpoint", most).open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or length > min(MOST_HEADER, path.stat().st_size - 8):
        raise InputError(
            f"checkpoint {path}: begins with {start.hex() or 'nothing'}, expected the length and the "
            "header of a safetensors file; is it complete?"
        )


def check_keys(wanted: Mapping[str, Shape], found: Mapping[str, Shape], where: str) -> None:
    """Raises one InputError that lists all missing, extra and misshapen keys, if there are any."""
    kinds = {
        "missing": sorted(wanted.keys() - found.keys()),
        "extra": sorted(found.keys() - wanted.keys()),
        "misshapen": [
            f"{key} {list(found[key])}, expected {list(wanted[key])}"
            for key in sorted(wanted.keys() & found.keys()) if tuple(found[key]) != tuple(wanted[key])
        ],
    }
    if parts := [_listed(kind, keys) for kind, keys in kinds.items() if keys]:
        raise InputError(f"checkpoint {where}: its tensors do not fit its configuration: " + "; ".join(parts))


class Unused(str):
    """The reason why a tensor of a file is not needed, in place of a name."""


# Key in a file -> name in the module, "name[n]" for the n-th block of rows of a fused parameter, or Unused.
Rename = Callable[[str], str]


def renamed(key: str, rules: Sequence[tuple[str, str]]) -> str:
    """Names by the first rule whose regular expression matches the whole key; a key without a rule keeps its name."""
    for pattern, name in rules:
        if match := re.fullmatch(pattern, key):
            return name if isinstance(name, Unused) else match.expand(name)
    return key


def plain_name(key: str) -> str:
    """A key without the parts that torch.compile adds to the names of a module."""
    return key.replace("_orig_mod.", "")


def load_weights(
    module: nn.Module, tensors: TensorFolder, where: str, rename: Rename = lambda key: key,
    optional: Iterable[str] = (), device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
) -> None:
    """Give a module built on the meta device its weights, each read straight into its place, in its final type.

    The host's memory contains only what is loaded and a small part of the file; if loading to a GPU, only the latter.

    Args:
        optional: keys of the module that may be missing in the file; the caller fills them.
        dtype: of parameters, except for those that `Policy.float32` names. Buffers keep their own dtype.

    Raises InputError that lists every missing, extra and misshapen key, before anything is changed; and for a tensor
    with a number that is not finite, or becomes so in the final type.
    """
    sources = check_weights(module, tensors, where, rename, optional)
    stored = module.stored_dtype if isinstance(module, Policy) else lambda name, dtype: dtype
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    meta = torch.device(device).type == "meta"
    for name, keys in () if meta else sources.items():
        prefix, _, leaf = name.rpartition(".")
        owner = module.get_submodule(prefix)
        parameter = owner._parameters.get(leaf)
        kind = owner._buffers[leaf].dtype if parameter is None else stored(name, dtype)
        target = torch.empty(shapes[name], device=device, dtype=kind)
        start = 0
        for key in keys:
            rows = slice(start, start + tensors.shapes[key][0]) if len(keys) > 1 else ...
            start += tensors.shapes[key][0] if len(keys) > 1 else 0
            for part, piece in tensors.pieces(key):
                check_finite(target[rows][part].copy_(piece), f"checkpoint {where}: {key}")
        if parameter is None:
            owner._buffers[leaf] = target
        else:
            owner._parameters[leaf] = nn.Parameter(target, requires_grad=parameter.requires_grad)
    for owner in module.modules():  # buffers that are computed, not stored, such as positions
        for leaf, buffer in owner._buffers.items():
            if buffer is None:
                continue
            if buffer.is_meta and not meta:
                raise RuntimeError(f"{type(owner).__name__}.{leaf}: neither in the file nor computed")
            owner._buffers[leaf] = buffer.to(device)


def check_weights(
    module: nn.Module, tensors: TensorFolder, where: str, rename: Rename = lambda key: key,
    optional: Iterable[str] = (),
) -> dict[str, tuple[str, ...]]:
    """Name in the module -> the keys whose rows form it, in order; only headers of files are read.

    Raises InputError for tensors that `load_weights` would refuse, except for numbers that are not finite.
    """
    sources = _sources(tensors, rename, where)
    state = module.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in optional:
        if name not in sources:
            wanted.pop(name, None)
    check_keys(wanted, {name: _shape(tensors, keys) for name, keys in sources.items()}, where)
    check_types(tensors, (key for name, keys in sources.items() if state[name].is_floating_point() for key in keys),
                f"checkpoint {where}")
    return sources


def check_types(tensors: TensorFolder, keys: Iterable[str], where: str) -> None:
    """Raises InputError for a tensor whose type cannot be used for weights."""
    for key in keys:
        if tensors.dtypes[key] not in NUMBERS:
            raise InputError(f"{where}: {key} is {tensors.dtypes[key]}, expected one of {NUMBERS}")


def check_finite(tensor: Tensor, where: str) -> None:
    """Raises InputError for NaN and infinite numbers; the check takes a tenth of the time of copying."""
    if tensor.is_floating_point() and tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):
        raise InputError(f"{where}: NaN or infinite numbers in {str(tensor.dtype).removeprefix('torch.')}, expected "
                         "finite ones; the training diverged, or the file is damaged")


def _sources(tensors: TensorFolder, rename: Rename, where: str) -> dict[str, tuple[str, ...]]:
    """Name in the module -> the keys whose rows form it, in order."""
    blocks: dict[str, dict[int, str]] = {}
    for key in tensors.shapes:
        name = rename(key)
        if isinstance(name, Unused):
            continue
        block = re.fullmatch(r"(.*)\[(\d{1,3})\]", name)
        name, index = (block[1], int(block[2])) if block else (name, 0)
        known = blocks.setdefault(name, {})
        if index in known:
            raise InputError(f"checkpoint {where}: {known[index]} and {key} both map to {name}")
        known[index] = key
    return {name: tuple(known[index] for index in sorted(known)) for name, known in blocks.items()}


def _shape(tensors: TensorFolder, keys: tuple[str, ...]) -> Shape:
    """Shape of the tensors stacked by rows; () if they do not fit together."""
    first, *others = (tuple(tensors.shapes[key]) for key in keys)
    if not others:
        return first
    if not first or any(shape[1:] != first[1:] for shape in others):
        return ()
    return (first[0] + sum(shape[0] for shape in others), *first[1:])


def _listed(kind: str, keys: list[str]) -> str:
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return f"{len(keys)} {kind}: " + ", ".join(keys[:LISTED]) + more
