"""The tensors of an OFT folder: a merged OpenVLA in safetensors, and parts beside it, written by torch.save."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.core.records import read_mapping, value_of
from vla_ros.policies.formats.adapter import WEIGHTS
from vla_ros.policies.formats.pickles import TorchFile
from vla_ros.policies.formats.weights import Shape, TensorFolder

HEAD, PROPRIO, NOISY, FILM = "action_head", "proprio_projector", "noisy_action_projector", "vision_backbone"
_ADAPTED = re.compile(r"(.+)\.(base_layer|lora_[AB]\.default)\.(weight|bias)")


def parts(path: Path) -> dict[str, Path]:
    """Name of a part -> its file, `NAME--STEP_checkpoint.pt`. Raises InputError for a part of several steps."""
    found = {}
    for name in (HEAD, PROPRIO, NOISY, FILM):
        files = sorted(path.glob(f"{name}--*_checkpoint.pt"))
        if len(files) > 1:
            raise InputError(f"checkpoint {path}: {[file.name for file in files]}, expected one of them: remove the "
                             "other steps")
        if files:
            found[name] = files[0]
    return found


def check_film(path: Path) -> None:
    """Raises InputError if a folder without FiLM's part was trained with FiLM: its adapters wrap FiLM's blocks, or its
    name contains "film", which OFT's recipe adds to the name of a run."""
    adapters = path / "lora_adapter"
    keys = TensorFolder(adapters, WEIGHTS).shapes if (adapters / WEIGHTS).exists() else ()
    said = f"the folder's name {path.name!r} says film"
    if wrapped := next((key for key in keys if re.search(r"vision_backbone\..*blocks\.\d+\.block\.", key)), None):
        said = f"{adapters.name} has {wrapped}"
    elif "film" not in path.name.lower().split("--"):
        return
    raise InputError(f"checkpoint {path}: trained with FiLM ({said}), but there is no {FILM}--*_checkpoint.pt; "
                     "expected that file of the same step beside the shards")


class Part:
    """A file written by torch.save beside the shards, with its own prefix. Raises InputError."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._file = TorchFile(path)
        # The wrapper of FiLM repeats a prefix.
        self._keys = {
            prefix + re.sub(r"^(vision_backbone\.)+(?=vision_backbone\.)", "", key): key for key in self._file.shapes
        }
        self.shapes = {name: self._file.shapes[key] for name, key in self._keys.items()}
        self.dtypes = {name: self._file.dtypes[key] for name, key in self._keys.items()}

    def pieces(self, key: str) -> Iterator[tuple[Any, Tensor]]:
        return self._file.pieces(self._keys[key])


class Merged:
    """Tensors with low-rank adapters (peft) merged into the weights that they adapt: W + alpha / rank · B A.

    Args:
        source: has `shapes`, `dtypes` and `pieces` like a `TensorFolder`.
        alpha: None: min(rank, 16), as OFT trains.
    """

    def __init__(self, source: Any, alpha: float | None = None, where: str = "") -> None:
        self._source, self._alpha, self._where = source, alpha, where
        self._names: dict[str, str] = {}
        for key in source.shapes:
            match = _ADAPTED.fullmatch(key)
            if match is None:
                self._names[key] = key
            elif match[2] == "base_layer":
                self._names[f"{match[1]}.{match[3]}"] = key
        self.shapes: dict[str, Shape] = {name: source.shapes[key] for name, key in self._names.items()}
        self.dtypes = {name: source.dtypes[key] for name, key in self._names.items()}

    def pieces(self, key: str) -> Iterator[tuple[Any, Tensor]]:
        yield ..., self.read(key)

    def read(self, key: str) -> Tensor:
        """A tensor with its adapter. Raises InputError if the adapter does not fit."""
        weight = self._plain(self._names[key])
        module = key.removesuffix(".weight")
        down, up = (f"{module}.lora_{letter}.default.weight" for letter in "AB")
        if module == key or down not in self._source.shapes and up not in self._source.shapes:
            return weight
        shapes = [self._source.shapes.get(name, ()) for name in (down, up)]
        a, b = shapes
        if len(a) < 2 or len(b) < 2 or a[0] != b[1] or a[1:] != tuple(weight.shape[1:]) or b[0] != weight.shape[0]:
            raise InputError(f"checkpoint {self._where}: adapter of {module}: {list(a)} and {list(b)} do not fit "
                             f"{list(weight.shape)}")
        scale = (min(a[0], 16) if self._alpha is None else self._alpha) / a[0]
        product = self._plain(up).float().flatten(1) @ self._plain(down).float().flatten(1)
        return weight.float() + scale * product.view(weight.shape)

    def _plain(self, key: str) -> Tensor:
        return next(piece for _, piece in self._source.pieces(key))


class OpenVLAFolder(TensorFolder):
    """The safetensors, and under "NAME:" the tensors of the parts; a part for FiLM replaces the vision's."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._parts: dict[str, Any] = {}  # key -> the file that it is read from
        for name, file in parts(path).items():
            found: Any = Part(file, "" if name == FILM else f"{name}:")
            if name == FILM:
                found = Merged(found, _alpha(path), str(file))
                for key in [key for key in self.shapes if key.startswith("vision_backbone.")]:
                    del self.shapes[key], self.dtypes[key]
            self.shapes |= found.shapes
            self.dtypes |= found.dtypes
            self._parts |= dict.fromkeys(found.shapes, found)

    def pieces(self, key: str) -> Iterator[tuple[Any, Tensor]]:
        return self._parts[key].pieces(key) if key in self._parts else super().pieces(key)


def _alpha(path: Path) -> float | None:
    """alpha of the adapters, if the folder contains their configuration."""
    file = path / "lora_adapter" / "adapter_config.json"
    if not file.exists():
        return None
    return value_of(float, read_mapping(file, "checkpoint").get("lora_alpha"), f"{file}: lora_alpha")
