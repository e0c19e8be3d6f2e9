"""Folders as LeRobot 0.6.1 writes them, from a loaded policy of ours: config.json, weights, processors."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.core.files import new_folder
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.formats.lerobot import MODES
from vla_ros.policies.formats.lerobot_steps import (
    ABSOLUTE_STEP,
    NORMALISERS,
    POSTPROCESSOR,
    PREPROCESSOR,
    RELATIVE_STEPS,
)
from vla_ros.policies.images import FITS
from vla_ros.policies.normalisation import MODES as NEEDED
from vla_ros.policies.normalisation import NAMES, STYLES, Normalisation, Statistics
from vla_ros.policies.options import ACTION, STATE
from vla_ros.policies.processor import StandardProcessor

THEIRS = {ours: theirs for theirs, ours in MODES.items()}
RELATIVE = RELATIVE_STEPS[0]
FIRST = {"rename_observations_processor": {"rename_map": {}}, "to_batch_processor": {}}
DEVICE = {"device_processor": {"device": "cpu", "float_dtype": None}}
PLAIN_STEPS = FIRST | DEVICE | {"normalizer_processor": {}}  # for a policy that reads no text
ROUNDED = "LeRobot does not round the pixels of a scaled image, as this policy does"


@dataclass(frozen=True)
class Form:
    """A policy in LeRobot's form.

    Attributes:
        fields: of config.json, except for features and normalisation; includes `type`.
        steps: the preprocessor's, in order, name -> settings, except for those that all policies have.
        fits: how LeRobot resizes images -> note for the user, "" if it is the same.
        tensors: of model.safetensors.
        files: further files, name -> content.
        relative: the configuration has fields for relative actions.
        notes: for the user.
        after: the postprocessor's steps, except for those that all policies have.
        stateful: the steps that store statistics; relative actions are computed before the first of them.
        statistics: of state and actions as those steps read them, (D,) each; None for LeRobot's own normalisation.
    """

    fields: Mapping[str, Any]
    steps: Mapping[str, Mapping[str, Any]]
    fits: Mapping[str, str]
    tensors: Iterable[tuple[str, Tensor]]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    relative: bool = False
    notes: tuple[str, ...] = ()
    after: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {NORMALISERS[1]: {}})
    stateful: tuple[str, ...] = NORMALISERS
    statistics: Statistics | None = None


def write(path: Path, form: Form, processor: StandardProcessor, images: Statistics) -> tuple[str, ...]:
    """Write the folder, complete or absent, and return notes for the user.

    Args:
        images: image -> mean and std of its pixels, (3,) each; {} for a policy that does not normalise them.

    Raises InputError that names what LeRobot cannot express.
    """
    sizes, embodiment = processor.config, processor.embodiment
    if processor.fit not in form.fits:
        able = " or ".join(FITS[fit].title for fit in form.fits)
        raise InputError(f"export: images are {FITS[processor.fit].title}, expected {able}, as in LeRobot")
    if getattr(sizes, "environment_dim", 0):
        raise InputError("export: the policy reads an environment state, whose statistics it does not have")
    relative, note = _relative(embodiment)
    modes = {"VISUAL": "MEAN_STD" if images else "IDENTITY", "STATE": "IDENTITY", "ACTION": "IDENTITY"}
    statistics = form.statistics
    if statistics is None:
        modes |= {"STATE": THEIRS[processor.state.mode], "ACTION": THEIRS[processor.actions.mode]}
        statistics = joint_statistics(processor)
    statistics = {**images, **statistics}
    start = "observation.images."
    cameras = {name if name.startswith("observation.") else start + name: name for name in sizes.cameras}
    inputs = {full: {"type": "VISUAL", "shape": [3, *processor.size_of(name)]} for full, name in cameras.items()}
    if processor.state_width:
        inputs[STATE] = {"type": "STATE", "shape": [len(embodiment.state)]}
    outputs = {ACTION: {"type": "ACTION", "shape": [len(embodiment.actions)]}}
    config = {
        **form.fields, "input_features": inputs, "output_features": outputs, "normalization_mapping": modes,
        "device": "cpu", "use_amp": False, "push_to_hub": False,
    }
    if form.relative:
        config |= {"use_relative_actions": relative["enabled"], "relative_exclude_joints": relative["exclude_joints"],
                   "action_feature_names": relative["action_names"]}  # fmt: skip
    settings = {"eps": STYLES["lerobot"], "features": inputs | outputs, "norm_map": modes}
    own = {RELATIVE: relative, NORMALISERS[0]: settings, NORMALISERS[1]: settings | {"features": outputs}}
    before, after = {}, {name: own.get(name, said) for name, said in form.after.items()}
    for name, said in form.steps.items():
        if name == form.stateful[0] and relative["enabled"]:
            before[RELATIVE] = relative
        before[name] = own.get(name, said)
    if RELATIVE in before:
        after[ABSOLUTE_STEP] = {"enabled": relative["enabled"]}
    after |= DEVICE
    flat = {f"{full}.{key}": np.asarray(value, np.float32).reshape(-1, 1, 1)
            for full, name in cameras.items() for key, value in statistics.get(name, {}).items()}  # fmt: skip
    for feature in (STATE, ACTION):
        flat |= {f"{feature}.{key}": value.astype(np.float32) for key, value in statistics[feature].items()}
    with new_folder(path, "checkpoint", replace=False) as folder:
        (folder / "config.json").write_text(json.dumps(config, indent=4), encoding="utf-8")
        _processor(folder / PREPROCESSOR, before, form.stateful, flat)
        _processor(folder / POSTPROCESSOR, after, form.stateful, flat)
        embodiment.save(folder / "embodiment.yaml")
        for name, content in form.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        if processor.tokenizer is not None:
            processor.tokenizer.save(folder)
        tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in form.tensors}
        save_file(tensors, folder / "model.safetensors")
    return tuple(filter(None, (*form.notes, form.fits[processor.fit], note)))


def _processor(
    path: Path, steps: Mapping[str, Mapping[str, Any]], stateful: Collection[str], statistics: Mapping[str, np.ndarray]
) -> None:
    rows = []
    for index, (name, config) in enumerate(steps.items()):
        rows.append({"registry_name": name, "config": config})
        if name in stateful:
            rows[-1]["state_file"] = f"{path.stem}_step_{index}_{name}.safetensors"
            save_arrays(dict(statistics), path.parent / rows[-1]["state_file"])
    path.write_text(json.dumps({"name": path.stem, "steps": rows}, indent=2), encoding="utf-8")


def joint_statistics(processor: StandardProcessor) -> dict[str, dict[str, np.ndarray]]:
    """Statistics of state and actions, (D,) each, for LeRobot's normalisation. Raises InputError if there are none."""
    embodiment = processor.embodiment
    return {STATE: _rows(processor.state, len(embodiment.state), STATE),
            ACTION: _rows(processor.actions, len(embodiment.actions), ACTION)}  # fmt: skip


def _rows(normalisation: Normalisation, width: int, feature: str) -> dict[str, np.ndarray]:
    """Statistics, (width,) each, with which LeRobot's protection against division by zero gives the same results."""
    if normalisation.missing:
        raise InputError(f"export: no statistics of {feature}; name a file of them as overrides.statistics")
    rows = {name: np.asarray(normalisation.statistics[name], np.float64)[:width] for name in NAMES
            if name in normalisation.statistics}  # fmt: skip
    if normalisation.style == "openpi" and normalisation.mode != "identity":
        rows[NEEDED[normalisation.mode][1]] += STYLES["openpi"]
        if feature == STATE and normalisation.mode == "mean_std":
            rows["std"] -= STYLES["lerobot"]  # LeRobot adds it when normalising
    return rows


def _relative(embodiment: Embodiment) -> tuple[dict[str, Any], str]:
    """Settings of LeRobot's step, and a note on units. Raises InputError for actions that it does not have."""
    used = [d for d in embodiment.actions if d.joint is not None]
    for index, d in enumerate(embodiment.actions):
        if d.joint is not None and d.mode == "rate":
            raise InputError(f"export: action {index} ({d.joint}) is a difference to the row before, which LeRobot has "
                             "no step for")
        state = embodiment.state[index] if index < len(embodiment.state) else None
        same = state is not None and (state.joint, state.scale, state.offset) == (d.joint, d.scale, d.offset)
        if d.mode == "delta" and not same:
            raise InputError(f"export: action {index} ({d.joint}) is a difference, but not to number {index} of the "
                             "state, which LeRobot takes")
    plain = all((d.scale, d.offset, d.linkage) == (1, 0, None) for d in (*embodiment.state, *used))
    note = "" if plain else "its actions are in the policy's own units; only vla_ros reads embodiment.yaml"
    deltas = [d.mode == "delta" for d in embodiment.actions]
    names = [d.joint or f"unused_{index}" for index, d in enumerate(embodiment.actions)]
    excluded = [name for name, delta in zip(names, deltas, strict=True) if not delta]
    if any(delta and any(word.lower() in name.lower() for word in excluded)
           for name, delta in zip(names, deltas, strict=True)):  # fmt: skip
        names = [f"action_{index:03d}" for index in range(len(names))]  # LeRobot matches parts of names
        excluded = [name for name, delta in zip(names, deltas, strict=True) if not delta]
    enabled = any(deltas)
    return {"enabled": enabled, "exclude_joints": excluded if enabled else [],
            "action_names": names if enabled else None}, note
