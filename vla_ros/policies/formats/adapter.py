"""Low-rank adapters (LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685) as PEFT saves them, over their base.

Such a folder contains `adapter_config.json` and `adapter_model.safetensors` instead of weights. The keys are the base's
with the prefix `base_model.model.`: `….lora_A.weight` (r, in) and `….lora_B.weight` (out, r) for a matrix, and whole
tensors for modules that were trained in full (`modules_to_save`, biases).
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Range, read_mapping, value_of
from vla_ros.policies.formats.weights import Rename, TensorFolder, Unused, check_types

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.*)\.lora_([AB])(?:\.default)?\.weight")
# Fields of the configuration that change the sum of base and product, and the values with which they have no effect;
# also every field whose name ends in _config.
OFF = (False, None, [], {})
PLAIN = dict.fromkeys(
    ("use_dora", "fan_in_fan_out", "lora_bias", "alora_invocation_tokens", "target_parameters", "layer_replication",
     "trainable_token_indices", "use_qalora", "use_bdlora"), OFF,
) | {"init_lora_weights": (True, False, "gaussian", "eva", "orthogonal")}


@dataclass(frozen=True)
class Adapter:
    """Contents of an adapter's folder: W of the base becomes W + scale · B · A.

    Attributes:
        base: the policy that it was trained on, by the name in its configuration.
        factors: key of a base's matrix -> its keys of A and B, and the scale: alpha / r, or alpha / √r (rsLoRA).
        whole: key of a base's tensor -> key of what replaces it.
    """

    base: str
    tensors: TensorFolder
    factors: Mapping[str, tuple[str, str, float]]
    whole: Mapping[str, str]

    def over(self, base: TensorFolder, rename: Rename) -> "AdaptedTensors":
        """The base's tensors with this adapter merged in; keys of another version are matched by the module's names.

        Raises InputError for a key that is missing in the base and for a shape that does not fit.
        """
        names = {rename(key): key for key in base.shapes}

        def found(key: str) -> str:
            theirs = key if key in base.shapes else names.get(rename(key))
            if theirs is None:
                raise InputError(f"adapter {self.tensors.path}: {key} is not among the tensors of {base.path}; "
                                 f"expected the base it was trained on, {shown(self.base)}")
            return theirs

        read = [key for key in (*self.factors, *self.whole) if not isinstance(rename(key), Unused)]
        result = AdaptedTensors(base, self, {found(key): key for key in read})
        if len(result.changed) < len(read):
            raise InputError(f"adapter {self.tensors.path}: several of its tensors change one of {base.path}, expected "
                             "factors or a whole tensor")
        for theirs, key in result.changed.items():
            shape, expected = self.shape(key), base.shapes[theirs]
            if shape != expected:
                raise InputError(f"adapter {self.tensors.path}: {key} {list(shape)}, expected {list(expected)} as in "
                                 f"{base.path}")
        return result

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of what it adds to a tensor or replaces it by; () for factors that do not fit together."""
        shapes = self.tensors.shapes
        if key in self.whole:
            return shapes[self.whole[key]]
        a, b, _ = self.factors[key]
        fits = len(shapes[a]) == len(shapes[b]) == 2 and shapes[a][0] == shapes[b][1]
        return (shapes[b][0], shapes[a][1]) if fits else ()


@dataclass
class AdaptedTensors:
    """Like `TensorFolder`, for a base with an adapter merged in; at most one tensor is in memory."""

    base: TensorFolder
    adapter: Adapter
    changed: Mapping[str, str]  # key of the base -> the adapter's
    shapes: Mapping[str, tuple[int, ...]] = field(init=False)
    dtypes: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.shapes, self.dtypes = self.base.shapes, self.base.dtypes

    def pieces(self, key: str) -> Iterator[tuple[Any, Tensor]]:
        """Like `TensorFolder.pieces`."""
        name, adapter = self.changed.get(key), self.adapter
        if name is None:
            yield from self.base.pieces(key)
        elif name in adapter.whole:
            yield ..., adapter.tensors.read(adapter.whole[name])
        else:
            *factors, scale = adapter.factors[name]
            a, b = (adapter.tensors.read(factor).float() for factor in factors)
            for rows, piece in self.base.pieces(key):
                yield rows, piece.float() + scale * (b[rows] @ a)


def is_adapter(path: Path) -> bool:
    """Whether a folder contains an adapter instead of weights."""
    return not (path / "model.safetensors").exists() and ((path / CONFIG).exists() or (path / WEIGHTS).exists())


def open_tensors(path: Path, base: Path | None) -> tuple[TensorFolder, Adapter | None]:
    """A checkpoint's tensors; for an adapter's folder those of its base, and the adapter. Raises InputError."""
    check_base(path, base)
    if not is_adapter(path) or base is None:
        return TensorFolder(path), None
    return TensorFolder(base), _read(path, *_config(path))


def check_base(path: Path, base: Path | None) -> None:
    """Raises InputError for an adapter without a base, and for a base that is given for a checkpoint that needs
    none."""
    if not is_adapter(path):
        if base is not None:
            raise InputError(f"checkpoint {path}: base {base} is given, but it is not an adapter; remove it")
    elif base is None:
        raise InputError(f"checkpoint {path}: a PEFT adapter of {shown(_config(path)[1])}, no whole policy; name the "
                         "folder of that policy in a policy file, as in `base: ~/checkpoints/base`, or merge it with "
                         "peft first")


def _config(path: Path) -> tuple[dict[str, Any], str]:
    """The adapter's configuration, and the name of the base in it. Raises InputError."""
    config = read_mapping(path / CONFIG, "adapter")
    where = f"adapter {path / CONFIG}: base_model_name_or_path"
    return config, value_of(str | None, config.get("base_model_name_or_path"), where) or "unknown"


def _read(path: Path, config: Mapping[str, Any], base: str) -> Adapter:
    """Raises InputError for anything other than a plain LoRA."""
    where = f"adapter {path / CONFIG}"
    kind = value_of(str, config.get("peft_type"), f"{where}: peft_type")
    if kind != "LORA":
        raise InputError(f"{where}: peft_type {shown(kind)}, expected LORA; merge it into {shown(base)} with peft")
    for name, value in config.items():
        plain = PLAIN.get(name, OFF if name.endswith("_config") else (value,))
        if value not in plain:
            raise InputError(f"{where}: {name} {shown(value)}, expected {plain[0]!r}; merge it into {shown(base)} with "
                             "peft")
    tensors = TensorFolder(path, WEIGHTS)
    check_types(tensors, tensors.shapes, f"adapter {path / WEIGHTS}")
    factors: dict[str, dict[str, str]] = {}
    whole = {}
    for key in tensors.shapes:
        match = _FACTOR.fullmatch(key)
        if not key.startswith(PREFIX) or "lora_" in key and not match:
            raise InputError(f"adapter {path / WEIGHTS}: tensor {shown(key)}, expected {PREFIX}*.lora_A.weight, "
                             "lora_B.weight and what was trained whole")
        if match:
            factors.setdefault(f"{match[1].removeprefix(PREFIX)}.weight", {})[match[2]] = key
        else:
            whole[key.removeprefix(PREFIX).replace("modules_to_save.default.", "")] = key
    pairs = {}
    for key, both in factors.items():
        if both.keys() != {"A", "B"}:
            raise InputError(f"adapter {path / WEIGHTS}: {key}: only lora_{'/'.join(both)}, expected lora_A and lora_B")
        shape = tensors.shapes[both["A"]]
        rank = shape[0] if len(shape) == 2 else 0
        pairs[key] = both["A"], both["B"], _scale(config, key.removesuffix(".weight"), rank, where)
    return Adapter(base, tensors, pairs, whole)


def _scale(config: Mapping[str, Any], module: str, rank: int, where: str) -> float:
    """Scale of one module: alpha (of its pattern, or the global one) over the rank of its tensors."""
    patterns = value_of(dict[str, float], config.get("alpha_pattern") or {}, f"{where}: alpha_pattern")
    ranks = value_of(dict[str, int], config.get("rank_pattern") or {}, f"{where}: rank_pattern")
    alpha = _of(patterns, module, value_of(float, config.get("lora_alpha", 8), f"{where}: lora_alpha"))
    said = _of(ranks, module, value_of(Annotated[int, Range(1, 100_000)], config.get("r", 8), f"{where}: r"))
    if rank != said:
        raise InputError(f"{where}: r {said} of {module}, whose tensors have {rank}; expected the same")
    root = value_of(bool | None, config.get("use_rslora"), f"{where}: use_rslora")
    return alpha / (math.sqrt(rank) if root else rank)


def _of(patterns: Mapping[str, Any], module: str, usual: Any) -> Any:
    """The value of the first pattern that the module's name ends with, as in PEFT."""
    for pattern, value in patterns.items():
        try:
            if re.fullmatch(rf"(.*\.)?({pattern})", module):
                return value
        except re.error:
            raise InputError(f"adapter: pattern {shown(pattern)}, expected a regular expression") from None
    return usual
