"""The families, and to which one a checkpoint folder belongs."""

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from vla_ros.core import plugins
from vla_ros.core.errors import InputError, shown
from vla_ros.core.hub import broken_link, folder_of, no_folder, snapshot
from vla_ros.core.records import read_mapping, value_of
from vla_ros.core.resources import is_server
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.family import REFUSED, Family, LoadedPolicy
from vla_ros.policies.formats.adapter import is_adapter
from vla_ros.policies.formats.pickles import not_loaded
from vla_ros.policies.options import LoadOptions, TrainingData, read_config
from vla_ros.policies.processor import Processor

__all__ = ["REFUSED", "Family", "LoadOptions", "LoadedPolicy", "TrainingData", "build", "describe", "export",
           "families", "find_family", "load", "processor", "resolve", "save"]

ENTRY_POINT_GROUP = "vla_ros.policies"
BUILT_IN = {  # in the form of entry points; a family is imported when a checkpoint or a training config needs it
    "pi0": "vla_ros.policies.pi0.checkpoint:FAMILY",
    "pi0_fast": "vla_ros.policies.pi0_fast.checkpoint:FAMILY",
    "act": "vla_ros.policies.act.checkpoint:FAMILY",
    "diffusion": "vla_ros.policies.diffusion.checkpoint:FAMILY",
    "xvla": "vla_ros.policies.xvla.checkpoint:FAMILY",
    "smolvla": "vla_ros.policies.smolvla.checkpoint:FAMILY",
    "go1": "vla_ros.policies.go1.checkpoint:FAMILY",
    "openvla": "vla_ros.policies.openvla.checkpoint:FAMILY",
    "robovlms": "vla_ros.policies.robovlms.checkpoint:FAMILY",
    "groot": "vla_ros.policies.groot.checkpoint:FAMILY",
    "modular": "vla_ros.policies.modular.checkpoint:FAMILY",
    "world_model": "vla_ros.policies.world_model.checkpoint:FAMILY",
}

# Where the newest checkpoint is in a run's folder and in the folders in it.
INSIDE = ("pretrained_model", "last", "last/pretrained_model", "checkpoints/last", "checkpoints/last/pretrained_model")
FOLDERS = {"action_tokenizer", "base_model_path"}  # overrides that name a folder
PATHS = FOLDERS | {"statistics"}  # a file, or a set in the checkpoint
STEP = re.compile(r"(checkpoints/)?(step-)?\d+(/pretrained_model)?")  # a checkpoint of a run, ours or LeRobot's


def families() -> tuple[str, ...]:
    """Names of all families: the built-in ones and those of installed packages (entry points)."""
    return tuple(_points())


def find_family(name: str) -> Family:
    """The family of that name. Raises InputError that names the known ones."""
    points = _points()
    if name not in points:
        raise InputError(f"policy family {name!r}, expected one of {sorted(points)}")
    return plugins.loaded(points[name], "policy family")


def resolve(path: str | Path, options: LoadOptions) -> tuple[Path, LoadOptions]:
    """The checkpoint folder and how to load it, also of a policy file: YAML with `checkpoint`, optionally `base` (of a
    LoRA adapter), `tokenizer`, `overrides` and the fields of an embodiment (only `step_dt`, if the checkpoint contains
    an embodiment).

    Paths in a policy file are relative to the file. The caller's `options` take precedence over the file.
    Raises InputError that names the file and the field.
    """
    if not str(path).strip():
        raise InputError(f"checkpoint {str(path)!r}: expected the path of a folder or of a policy file")
    if is_server(str(path)):
        raise InputError(f"{path}: a server, expected a checkpoint folder or a policy file of one: its weights are "
                         "needed here")
    said, path = str(path), folder_of(Path(path).expanduser())
    if not path.exists():
        raise InputError(f"checkpoint {path}: {no_folder(path, said)}")
    not_loaded(path)
    if options.base is not None:
        if not Path(options.base).exists():
            raise InputError(f"base {options.base}: {no_folder(Path(options.base))}")
        options = replace(options, base=located(Path(options.base)))
    if not path.is_file():
        return located(path), options
    where = f"policy file {path}"
    data = read_mapping(path, "policy file")
    if "server" in data:
        raise InputError(f"{where}: server {shown(data['server'])}, expected 'checkpoint': its weights are needed here")
    if data.get("checkpoint") is None:
        raise InputError(f"{where}: expected the path of a 'checkpoint'")

    def there(field: str) -> Path | None:
        """The path that the file names, which must exist."""
        said = data.pop(field, None)
        if said is None:
            return None
        place = path.parent / _path(said, f"{where}: {field}")
        if not place.exists():
            raise InputError(f"{where}: {field} {place}: {no_folder(place, said)}")
        return place if field == "tokenizer" else located(place)

    folder, base, tokenizer = there("checkpoint"), there("base"), there("tokenizer")
    not_loaded(folder)
    overrides = value_of(dict[str, Any], data.pop("overrides", None) or {}, f"{where}: overrides")
    for name in PATHS & overrides.keys():
        file = path.parent / _path(overrides[name], f"{where}: overrides.{name}")
        if name in FOLDERS and not file.exists():
            raise InputError(f"{where}: overrides.{name} {file}: {no_folder(file, str(overrides[name]))}")
        overrides = overrides | ({name: file} if name in FOLDERS or file.is_file() else {})
    step_dt, embodiment = None, None
    if data.keys() == {"step_dt"}:
        step_dt = Embodiment.clock(data["step_dt"], where)
    elif data:
        if isinstance(tool := data.get("tool_state"), Mapping) and "urdf" in tool:
            data["tool_state"] = tool | {"urdf": str(path.parent / _path(tool["urdf"], f"{where}: tool_state.urdf"))}
        embodiment = Embodiment.from_dict(data, where)
    return folder, replace(
        options, base=options.base or base, tokenizer=options.tokenizer or tokenizer,
        overrides=overrides | dict(options.overrides),
        step_dt=step_dt if options.step_dt is None else options.step_dt,
        embodiment=options.embodiment or embodiment,
    )


def located(path: Path) -> Path:
    """The checkpoint's own folder, if `path` is a folder above it (a run's, ours or LeRobot's, or one of the hub's
    cache) or one of its files. Raises InputError if there are several, or for a broken link."""
    path = snapshot(folder_of(path), "checkpoint")
    if not path.is_dir() or (path / "config.json").exists():
        return path
    for place in INSIDE:
        if (path / place / "config.json").is_file():
            return path / place
    # A run that was copied without its link "last".
    files = (file for start in ("", "checkpoints/") for end in ("", "pretrained_model/")
             for file in path.glob(f"{start}*[0-9]/{end}config.json"))  # fmt: skip
    found = sorted(f.parent for f in files if STEP.fullmatch(f.parent.relative_to(path).as_posix()))
    if len(found) > 1:
        raise InputError(f"checkpoint {path}: no config.json and no link 'last', but {len(found)} checkpoints; name "
                         f"one of them, such as {found[-1]}")
    links = [] if found else [link for place in INSIDE if (link := broken_link(path / place))]
    if links and not is_adapter(path):
        raise InputError(f"checkpoint {path}: no config.json, and {links[0]}")
    return found[0] if found else path


def _path(value: Any, where: str) -> Path:
    """A path that the user wrote into a policy file; `~` is the home folder. Raises InputError."""
    text = value_of(str, value, where)
    if not text.strip():
        raise InputError(f"{where}: {text!r}, expected a path")
    try:
        path = Path(text).expanduser()
        path.exists()
    except (RuntimeError, OSError, ValueError) as error:  # ~nobody, too long, not encodable
        raise InputError(f"{where}: {shown(text)}: {getattr(error, 'strerror', None) or error}") from error
    return path


def load(path: str | Path, **options: Any) -> LoadedPolicy:
    """Load a checkpoint folder, or that of a policy file, of any family and layout; see `LoadOptions` for the options.

    Raises InputError that names the file and, for tensors, every missing, extra or misshapen key.
    """
    folder, chosen = resolve(path, LoadOptions(**options))
    _, family, layout = _recognise(folder)
    return family.load(folder, layout, chosen)


def processor(path: str | Path, **options: Any) -> Processor:
    """The processor of `load`, without the weights. Raises InputError."""
    folder, chosen = resolve(path, LoadOptions(**options))
    _, family, layout = _recognise(folder)
    return family.processor_of(folder, layout, chosen)


def describe(path: str | Path, **options: Any) -> Mapping[str, str]:
    """The report of a checkpoint without its weights: title -> value. Raises InputError."""
    folder, chosen = resolve(path, LoadOptions(**options))
    name, family, layout = _recognise(folder)
    return {"family": name, "layout": layout, **family.describe(folder, layout, chosen)}


def build(family: str, config: Mapping[str, Any], data: TrainingData) -> LoadedPolicy:
    """A policy with fresh weights on the CPU, from torch's random state. Raises InputError for an unknown family
    or a field of `config` that the family does not know."""
    return find_family(family).build(config, data)


def save(path: str | Path, loaded: LoadedPolicy) -> None:
    """Write a folder in our own layout that can be served directly; atomic: complete or absent."""
    find_family(loaded.family).save(Path(path), loaded)


def export(path: str | Path, loaded: LoadedPolicy, layout: str) -> tuple[str, ...]:
    """Write a folder in a published layout ("lerobot"), complete or absent; returns notes for the user.

    Raises InputError that names what the layout cannot express.
    """
    return find_family(loaded.family).export(Path(path), loaded, layout)


def _points() -> dict[str, EntryPoint]:
    built_in = {name: EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in BUILT_IN.items()}
    return built_in | {point.name: point for point in _installed(tuple(sys.path))}


@cache
def _installed(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Families of the packages on Python's `path`. Cached, because finding them opens a file of each package."""
    return tuple(entry_points(group=ENTRY_POINT_GROUP))


def _recognise(path: Path) -> tuple[str, Family, str]:
    config, names = read_config(path), families()
    said = [config[key] for key in ("family", "type", "model_type") if config.get(key)]
    for name in dict.fromkeys((*(name for name in said if name in names), *names)):  # those that the folder names first
        family = find_family(name)
        if layout := family.recognise(path, config):
            return name, family, layout
    raise InputError(
        f"checkpoint {path}: config.json names {shown(said[0] if said else None)}, expected one of the "
        f"families {sorted(names)}"
    )
