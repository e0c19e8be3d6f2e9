"""Our own checkpoint folders, for families with a `StandardProcessor`.

config.json: {"family", "policy": sizes, "normalisation": {"state", "action", "style"}, "image_fit"};
model.safetensors: the module's own names; statistics.json: of state, action and images; embodiment.yaml;
tokenizer.json where the policy reads tokens.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from vla_ros.core.errors import InputError
from vla_ros.core.files import new_folder
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.formats.lerobot import ACTION, STATE, LeRobotFolder, Statistics, read_folder
from vla_ros.policies.formats.lerobot import read_statistics as read_statistics_of
from vla_ros.policies.formats.lerobot_robot import find_embodiment, short_name
from vla_ros.policies.formats.weights import TensorFolder
from vla_ros.policies.normalisation import Normalisation, read_statistics, widened, write_statistics
from vla_ros.policies.policy import Policy
from vla_ros.policies.processor import StandardProcessor
from vla_ros.policies.registry import LoadOptions, TrainingData, read_config

MODES = {"IDENTITY": "identity", "MEAN_STD": "mean_std", "MIN_MAX": "min_max", "QUANTILES": "quantiles"}
# Of the pictures that most backbones were trained on first; for fresh policies, as LeRobot does.
IMAGENET = {"mean": np.array([0.485, 0.456, 0.406]), "std": np.array([0.229, 0.224, 0.225])}


class _FamilyConfig(Protocol):
    cameras: tuple[str, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "_FamilyConfig": ...

    @classmethod
    def from_lerobot(cls, folder: LeRobotFolder) -> "_FamilyConfig": ...


Config = TypeVar("Config", bound=_FamilyConfig)


@dataclass(frozen=True)
class Parts:
    """What a folder says besides sizes and weights."""

    embodiment: Embodiment
    state: Normalisation
    actions: Normalisation
    images: Mapping[str, Mapping[str, np.ndarray]]  # image name -> mean and std, (3,) each
    fit: str


def read(path: Path, options: LoadOptions) -> tuple[dict[str, Any], Parts]:
    """`policy` of config.json and the other parts. Raises InputError."""
    data = read_config(path)
    try:
        policy, modes, fit = dict(data["policy"]), data["normalisation"], data["image_fit"]
        kinds, style = (modes["state"], modes["action"]), modes["style"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"checkpoint {path}: config.json: expected policy, normalisation and image_fit: {error!r}"
        ) from error
    statistics = read_statistics(path / "statistics.json")
    for feature in (STATE, ACTION):
        if feature not in statistics:
            raise InputError(f"checkpoint {path}: statistics.json: no {feature!r}, only {sorted(statistics)}")
    embodiment = options.embodiment or Embodiment.load(path / "embodiment.yaml")
    if embodiment.step_dt is None:  # a policy file need not repeat the clock
        embodiment = replace(embodiment, step_dt=Embodiment.load(path / "embodiment.yaml").step_dt)
    return policy, Parts(
        embodiment,
        Normalisation(kinds[0], statistics[STATE], style),
        Normalisation(kinds[1], statistics[ACTION], style),
        {name: rows for name, rows in statistics.items() if name not in (STATE, ACTION)},
        fit,
    )


def open_folder(
    path: Path, layout: str, options: LoadOptions, kind: type[Config], fit: str
) -> tuple[Config, Parts]:
    """Everything of our own folder or a LeRobot one but its weights. `fit` is how LeRobot fits images to their size.

    Raises InputError.
    """
    if layout == "vla_ros":
        sizes, parts = read(path, options)
        return kind.from_dict(sizes), parts
    folder = read_folder(path, read_config(path))
    config = kind.from_lerobot(folder)
    return config, lerobot_parts(folder, config.cameras, options, fit)


def write(
    path: Path, family: str, sizes: Mapping[str, Any], policy: Policy, processor: StandardProcessor,
    images: Mapping[str, Mapping[str, np.ndarray]], tokenizer: Any = None,
) -> None:
    """Write a folder that `read` reads; complete or absent. `tokenizer` has a method `save(folder)`."""
    with new_folder(path, "checkpoint") as folder:
        config = {
            "family": family,
            "policy": dict(sizes),
            "normalisation": {
                "state": processor.state.mode, "action": processor.actions.mode, "style": processor.state.style,
            },
            "image_fit": processor.fit,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        statistics = {STATE: processor.state.statistics, ACTION: processor.actions.statistics, **images}
        write_statistics(folder / "statistics.json", statistics)
        processor.embodiment.save(folder / "embodiment.yaml")
        if tokenizer is not None:
            tokenizer.save(folder)


def lerobot_normalisations(folder: LeRobotFolder, statistics: Statistics) -> tuple[Normalisation, Normalisation]:
    """Of state and actions. Raises InputError for a mode or a guard against zero that is not supported."""
    if folder.epsilon != 1e-8:
        raise InputError(f"checkpoint {folder.path}: normaliser eps {folder.epsilon}, expected 1e-08")
    result = []
    for kind, feature in (("STATE", STATE), ("ACTION", ACTION)):
        mode = folder.modes.get(kind, "IDENTITY")
        if mode not in MODES:
            raise InputError(
                f"checkpoint {folder.path}: normalisation {mode} of {kind}, expected one of {sorted(MODES)}"
            )
        if feature == STATE and not folder.state_dim:
            mode = "IDENTITY"
        result.append(Normalisation(MODES[mode], statistics.get(feature, {}), "lerobot"))
    return result[0], result[1]


def image_statistics(folder: LeRobotFolder, statistics: Statistics) -> dict[str, dict[str, np.ndarray]]:
    """Image name -> the mean and std that bring its pixels in [0, 1] to what the policy takes."""
    mode = folder.modes.get("VISUAL", "IDENTITY")
    result = {}
    for feature in folder.images:
        rows = statistics.get(feature.name, {})
        if mode == "MEAN_STD" and rows:
            result[feature.name] = {"mean": rows["mean"], "std": rows["std"]}
        elif mode == "MIN_MAX" and rows:
            result[feature.name] = {"mean": (rows["max"] + rows["min"]) / 2, "std": (rows["max"] - rows["min"]) / 2}
        elif mode == "IDENTITY" or not rows:
            result[feature.name] = {"mean": np.zeros(3), "std": np.ones(3)}
        else:
            raise InputError(f"checkpoint {folder.path}: normalisation {mode} of images, expected MEAN_STD, MIN_MAX or "
                             "IDENTITY")
    return result


def set_image_statistics(
    policy: nn.Module, names: tuple[str, ...], images: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Put the statistics of each image, (3,) mean and std, into the policy's buffers, which it has if it sees any."""
    if not names:
        return
    for buffer, name in ((policy.image_mean, "mean"), (policy.image_std, "std")):
        rows = np.stack([np.asarray(images[image][name], dtype=np.float32) for image in names])
        buffer.copy_(torch.from_numpy(rows)[:, :, None, None])


def get_image_statistics(policy: nn.Module, names: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
    """The inverse of `set_image_statistics`."""
    return {
        name: {
            "mean": policy.image_mean[i].flatten().double().cpu().numpy(),
            "std": policy.image_std[i].flatten().double().cpu().numpy(),
        }
        for i, name in enumerate(names)
    }


def lerobot_parts(folder: LeRobotFolder, names: tuple[str, ...], options: LoadOptions, fit: str) -> Parts:
    """The parts of a LeRobot folder, of which `names` are the images that the policy reads.

    Of the options' `overrides` it takes `statistics`: which set to use where an old file has several.

    Raises InputError.
    """
    unknown = sorted(set(options.overrides) - {"statistics"})
    if unknown:
        raise InputError(f"overrides {unknown}: expected no other than 'statistics'")
    statistics = read_statistics_of(folder, TensorFolder(folder.path), options.overrides.get("statistics"))
    embodiment = find_embodiment(folder, names, statistics, options)
    return Parts(
        embodiment, *lerobot_normalisations(folder, statistics), image_statistics(folder, statistics), fit
    )


def summary(processor: StandardProcessor) -> dict[str, str]:
    """What `vla-ros info` says about cameras, joints, normalisation and clock."""
    cameras = processor.embodiment.cameras
    modes = sorted({d.mode for d in processor.embodiment.actions if d.joint is not None})
    height, width = processor.image_size
    fits = {"exact": "scaled whole", "pad": "scaled and padded", "pad_top_left": "scaled, padded at top and left"}
    return {
        "cameras": ", ".join(
            f"{short_name(name)} (absent)" if cameras[name] is None else f"{short_name(name)} from {cameras[name]}"
            for name in processor.image_names
        ) or "none",
        "images": f"{width}x{height} pixels, {fits[processor.fit]}",
        "state": f"{len(processor.embodiment.state)} dimensions, normalised by {processor.state.mode}",
        "actions": f"{len(processor.embodiment.actions)} dimensions, {' and '.join(modes)}, normalised by "
                   f"{processor.actions.mode}",
        "joints": ", ".join(processor.joints),
        "horizon": f"{processor.horizon} rows, {processor.step_dt:g} s apart "
                   f"({processor.horizon * processor.step_dt:g} s)",
    }


def fresh_parts(data: TrainingData, mode: str, fit: str = "pad") -> Parts:
    """For a policy with fresh weights that speaks the dataset's own units and order."""
    return Parts(
        Embodiment.identity(data.joints, {name: name for name in data.cameras}, data.step_dt),
        Normalisation(mode, widened(data.statistics[STATE])),
        Normalisation(mode, widened(data.statistics[ACTION])),
        {name: IMAGENET for name in data.cameras},
        fit,
    )


def keep_float32(options: LoadOptions, names: str) -> Callable[[str], torch.dtype]:
    """For `load_weights`: the options' dtype, but float32 for tensors whose names match the regular expression."""
    pattern = re.compile(names)

    def dtype(name: str) -> torch.dtype:
        return torch.float32 if options.dtype is None or pattern.match(name) else options.dtype

    return dtype


def take_data_fields(config: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A training config's `policy` mapping, checked to leave to the dataset what the dataset says."""
    values = dict(config)
    for name in names:
        if name in values:
            raise InputError(f"policy.{name}: {values[name]!r}; it comes from the dataset, expected no such field")
    return values
