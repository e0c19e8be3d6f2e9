"""Our own checkpoint folders.

config.json: {"family", "policy": sizes, "normalisation": {"state", "action", "style"}, "image_fit"};
model.safetensors: the module's own names; statistics.json: of state, action and images; embodiment.yaml;
tokenizer.json or tokenizer.model if the policy reads tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import new_folder
from vla_ros.core.records import record, value_of
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.images import FITS
from vla_ros.policies.normalisation import Normalisation, Statistics, read_statistics, write_statistics
from vla_ros.policies.options import ACTION, STATE, LoadOptions, Parts, read_config
from vla_ros.policies.policy import Policy
from vla_ros.policies.processor import StandardProcessor


@dataclass(frozen=True)
class _Modes:
    state: str
    action: str
    style: str


def read(path: Path, options: LoadOptions, fit: str) -> tuple[dict[str, Any], Parts]:
    """`policy` of config.json and the other parts; `fit` is used for older folders that do not name one.

    Raises InputError that names the file and the field.
    """
    data = read_config(path)
    where = f"checkpoint {path}: config.json"
    policy = value_of(dict[str, Any], data.get("policy"), f"{where}: policy")
    modes = record(_Modes, data.get("normalisation"), f"{where}: normalisation")
    fit = value_of(str, data.get("image_fit", fit), f"{where}: image_fit")
    if fit not in FITS:
        raise InputError(f"{where}: image_fit {shown(fit)}, expected one of {sorted(FITS)}")
    statistics = read_statistics(path / "statistics.json")
    if missing := {STATE, ACTION} - statistics.keys():
        raise InputError(f"checkpoint {path}: statistics.json: no {sorted(missing)}, only {shown(sorted(statistics))}")
    if given := options.statistics():
        statistics |= {feature: given[feature] for feature in (STATE, ACTION)}
    clock = policy.pop("step_dt", None)  # older folders of π0 stored it among the sizes
    clock = None if clock is None else Embodiment.clock(clock, where)
    own = Embodiment.load(path / "embodiment.yaml")
    embodiment = options.embodiment or own
    for index, (new, old) in enumerate(zip(embodiment.actions, own.actions, strict=False)):
        if new.joint is not None and new.mode != old.mode:  # the statistics only hold for one of the two modes
            raise InputError(f"checkpoint {path}: action {index} ({new.joint}) is {new.mode}, but it was trained on "
                             f"{old.mode} ones; expected mode: {old.mode} in the policy file")
    if embodiment.step_dt is None:  # a policy file need not repeat the time step
        embodiment = replace(embodiment, step_dt=own.step_dt or clock)
    return policy, Parts(
        embodiment,
        Normalisation(modes.state, statistics[STATE], modes.style),
        Normalisation(modes.action, statistics[ACTION], modes.style),
        {name: rows for name, rows in statistics.items() if name not in (STATE, ACTION)},
        fit,
    )


def write(
    path: Path, family: str, sizes: Mapping[str, Any], policy: Policy, processor: StandardProcessor, images: Statistics
) -> None:
    """Write a folder that `read` reads; complete or absent."""
    with new_folder(path, "checkpoint") as folder:
        modes = {"state": processor.state.mode, "action": processor.actions.mode, "style": processor.state.style}
        config = {"family": family, "policy": dict(sizes), "normalisation": modes, "image_fit": processor.fit}
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        statistics = {STATE: processor.state.statistics, ACTION: processor.actions.statistics, **images}
        write_statistics(folder / "statistics.json", statistics)
        processor.embodiment.save(folder / "embodiment.yaml")
        if processor.tokenizer is not None:
            processor.tokenizer.save(folder)
