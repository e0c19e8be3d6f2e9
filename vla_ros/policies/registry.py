"""Which families there are, and which one a checkpoint folder belongs to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.policies.embodiment import Embodiment, read_yaml
from vla_ros.policies.policy import Policy
from vla_ros.policies.processor import Processor

ENTRY_POINT_GROUP = "vla_ros.policies"
BUILT_IN = {  # as entry points are written: a module, or an object in one
    "pi0": "vla_ros.policies.pi0",
    "act": "vla_ros.policies.act:FAMILY",
    "diffusion": "vla_ros.policies.diffusion:FAMILY",
    "smolvla": "vla_ros.policies.smolvla:FAMILY",
}


@dataclass
class LoadedPolicy:
    """A policy with all that is needed to serve, train or save it.

    Attributes:
        family: registered name ("pi0", "act", ...).
        layout: where the weights came from ("vla_ros", "lerobot", "openpi", "transformers").
        report: what `vla-ros info` prints: title -> value, in order.
    """

    family: str
    policy: Policy
    processor: Processor
    layout: str = "vla_ros"
    report: Mapping[str, str] = field(default_factory=dict)


class Family(Protocol):
    """What the module of a family (built in, or named by an entry point) offers.

    recognise(path, config): layout name if the folder is a checkpoint of this family, else None.
    load(path, layout, options): the policy with its weights.
    describe(path, layout, options): the report alone, without reading the weights.
    save(path, loaded): write a folder in our own layout that `load` reads back.
    build(config, data): a policy with fresh weights from a training config's `policy` mapping, its processor with
        the data's joints, cameras, clock and statistics (and, where it trains one, a tokenizer of its instructions).
    """

    def recognise(self, path: Path, config: Mapping[str, Any]) -> str | None: ...
    def load(self, path: Path, layout: str, options: "LoadOptions") -> LoadedPolicy: ...
    def describe(self, path: Path, layout: str, options: "LoadOptions") -> Mapping[str, str]: ...
    def save(self, path: Path, loaded: LoadedPolicy) -> None: ...


class LoadOptions:
    """How to load.

    Attributes:
        device, dtype: where the weights go and the type of the matrices; None: the family's own choice.
        embodiment: how the robot's cameras and joints map to the policy's; None: as the checkpoint says.
        robot: without an embodiment, lets a checkpoint that does not know its robot be mapped by names and order.
        tokenizer: folder or file of the prompt's tokenizer; None: the checkpoint's.
        overrides: what the checkpoint does not say or says wrongly; each family documents the names it takes.
    """

    def __init__(
        self,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        embodiment: Embodiment | None = None,
        tokenizer: str | Path | None = None,
        robot: RobotSpec | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = dtype
        self.embodiment = embodiment
        self.robot = robot
        self.tokenizer = Path(tokenizer) if tokenizer else None
        self.overrides = dict(overrides or {})


@dataclass(frozen=True)
class TrainingData:
    """What a new policy takes from the dataset it will be trained on.

    Attributes:
        joints: J names in the order of states and actions.
        cameras: names of the cameras.
        step_dt: s between frames, the policy's clock.
        statistics: "observation.state", "action" -> mean, std, min, max, q01, q99, each (J,).
        instructions: the distinct instructions.
    """

    joints: tuple[str, ...]
    cameras: tuple[str, ...]
    step_dt: float
    statistics: Mapping[str, Mapping[str, np.ndarray]]
    instructions: tuple[str, ...]


def families() -> dict[str, Family]:
    """Every family by name: the built-in ones and those of installed packages (entry points)."""
    found = {name: _built_in(name) for name in BUILT_IN}
    found.update({point.name: point.load() for point in entry_points(group=ENTRY_POINT_GROUP)})
    return found


def read_config(path: Path) -> dict[str, Any]:
    """`config.json` of a checkpoint folder. Raises InputError."""
    if not path.is_dir():
        raise InputError(f"checkpoint {path}: no such folder")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"checkpoint {path}: config.json: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"checkpoint {path}: config.json: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"checkpoint {path}: config.json: expected an object, got {type(config).__name__}")
    return config


def _recognise(path: Path) -> tuple[str, Family, str]:
    config = read_config(path)
    said = config.get("family") or config.get("type") or config.get("model_type")
    if said in BUILT_IN:  # the usual case: only that family is imported
        family = _family(said)
        layout = family.recognise(path, config)
        if layout:
            return said, family, layout
    known = families()
    for name, family in known.items():
        layout = family.recognise(path, config)
        if layout:
            return name, family, layout
    raise InputError(f"checkpoint {path}: config.json names {said!r}, expected one of the families {sorted(known)}")


def resolve(path: str | Path, options: LoadOptions) -> Path:
    """The checkpoint folder, also of a policy file: YAML with `checkpoint`, perhaps `tokenizer` and `overrides`, and
    the fields of an embodiment.

    Paths in a policy file count from the file. What the caller gave in `options` goes before what the file says.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        return path
    data = read_yaml(path)
    if not isinstance(data, dict) or not isinstance(data.get("checkpoint"), str):
        raise InputError(f"policy file {path}: expected a mapping with the path of a 'checkpoint'")
    folder = path.parent / Path(data.pop("checkpoint")).expanduser()
    tokenizer = data.pop("tokenizer", None)
    if tokenizer is not None and options.tokenizer is None:
        options.tokenizer = path.parent / Path(str(tokenizer)).expanduser()
    overrides = data.pop("overrides", None) or {}
    if not isinstance(overrides, dict):
        raise InputError(f"policy file {path}: overrides {overrides!r}, expected a mapping")
    if "statistics" in overrides:
        overrides["statistics"] = path.parent / Path(str(overrides["statistics"])).expanduser()
    options.overrides = overrides | options.overrides
    if data and options.embodiment is None:
        options.embodiment = Embodiment.from_dict(data, f"policy file {path}")
    return folder


def load(path: str | Path, **options: Any) -> LoadedPolicy:
    """Load a checkpoint folder, or that of a policy file, of any family and layout; see `LoadOptions` for the options.

    Raises InputError that names the file and, for tensors, every missing, extra or misshapen key.
    """
    chosen = LoadOptions(**options)
    folder = resolve(path, chosen)
    _, family, layout = _recognise(folder)
    return family.load(folder, layout, chosen)


def describe(path: str | Path, **options: Any) -> Mapping[str, str]:
    """The report of a checkpoint without its weights: title -> value. Raises InputError."""
    chosen = LoadOptions(**options)
    folder = resolve(path, chosen)
    name, family, layout = _recognise(folder)
    return {"family": name, "layout": layout, **family.describe(folder, layout, chosen)}


def build(family: str, config: Mapping[str, Any], data: TrainingData) -> LoadedPolicy:
    """A policy with fresh weights on the CPU, from torch's random state. Raises InputError for an unknown family
    or a field of `config` that the family does not know."""
    return _family(family).build(config, data)


def save(path: str | Path, loaded: LoadedPolicy) -> None:
    """Write a folder in our own layout that serves as it is; atomic: complete or absent."""
    _family(loaded.family).save(Path(path), loaded)


def _built_in(name: str) -> Family:
    return EntryPoint(name, BUILT_IN[name], ENTRY_POINT_GROUP).load()


def _family(name: str) -> Family:
    if name in BUILT_IN:
        return _built_in(name)
    known = families()
    if name not in known:
        raise InputError(f"policy family {name!r}, expected one of {sorted(known)}")
    return known[name]
