"""The processor steps of a LeRobot folder: which steps, orders and settings compute the same as this package.

LeRobot runs whatever steps `policy_preprocessor.json` and `policy_postprocessor.json` list. Our computation from an
observation to an action is fixed, so a list is accepted if its steps compute the same; anything else is refused by
name. Order and settings are those of LeRobot 0.4.0 to 0.6.1 (`policies/*/processor_*.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import inside
from vla_ros.core.records import read_mapping, value_of
from vla_ros.policies.formats.weights import check_tensors, numbers

FILES = PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
MOST_STATE = 64 << 20  # bytes of the tensors of a step

RENAME, BATCH, DEVICE = "rename_observations_processor", "to_batch_processor", "device_processor"
NORMALISERS = NORMALISE, RESTORE = "normalizer_processor", "unnormalizer_processor"
RELATIVE_STEPS = ("relative_actions_processor", "delta_actions_processor")  # LeRobot from 0.6, and until 0.5.1
ABSOLUTE_STEP = "absolute_actions_processor"
NEWLINE, TOKENS, ACTION_TOKENS = "smolvla_new_line_processor", "tokenizer_processor", "action_tokenizer_processor"
STATE_PROMPT = "pi05_prepare_state_tokenizer_processor_step"
FAST_PROMPT = "pi0_fast_prepare_state_tokenizer_processor_step"
TO_FLOAT, IMAGENET, DOMAIN = "xvla_image_to_float", "xvla_imagenet_normalize", "xvla_add_domain_id"
_SAME = {"pi0_new_line_processor": NEWLINE, RELATIVE_STEPS[1]: RELATIVE_STEPS[0]}  # two names of one step
_REPEATED = {BATCH, DEVICE}  # applying it twice is the same as once

_READ = ()  # any value: it is read elsewhere, or does not affect the computation
_NORMALISER = {"eps": _READ, "features": _READ, "norm_map": _READ, "device": _READ, "stats": (None,), "dtype": (None,),
               "normalize_observation_keys": (None,)}
_PROMPT = {"max_state_dim": (32,), "task_key": ("task",)}
# Step -> setting -> allowed values: LeRobot's defaults, except for settings that are read.
_SETTINGS: Mapping[str, Mapping[str, tuple]] = {
    RENAME: {"rename_map": _READ}, BATCH: {}, DEVICE: {"device": _READ, "float_dtype": (None, "float32")},
    NORMALISE: _NORMALISER, RESTORE: _NORMALISER,
    RELATIVE_STEPS[0]: {"enabled": _READ, "exclude_joints": _READ, "action_names": _READ},
    ABSOLUTE_STEP: {"enabled": _READ},
    NEWLINE: {}, STATE_PROMPT: _PROMPT, FAST_PROMPT: _PROMPT,
    TOKENS: {"tokenizer_name": _READ, "max_length": _READ, "task_key": ("task",), "padding_side": ("right",),
             "padding": ("max_length", "longest"), "truncation": (True,)},
    ACTION_TOKENS: {"action_tokenizer_name": _READ, "trust_remote_code": _READ, "max_action_tokens": _READ,
                    "fast_skip_tokens": _READ, "paligemma_tokenizer_name": _READ},
    TO_FLOAT: {"image_keys": (None,), "validate_range": _READ}, IMAGENET: {"image_keys": (None,)},
    DOMAIN: {"domain_id": _READ},
}
# Step -> steps that must precede it, if present, because it reads their output. The order of all others is free.
_BEFORE = {
    RELATIVE_STEPS[0]: (RENAME,), TO_FLOAT: (RENAME,), IMAGENET: (RENAME, TO_FLOAT), DOMAIN: (BATCH,),
    NORMALISE: (RENAME, RELATIVE_STEPS[0], TO_FLOAT, IMAGENET),
    STATE_PROMPT: (RENAME, BATCH, NORMALISE), FAST_PROMPT: (RENAME, BATCH, NORMALISE),
    TOKENS: (NEWLINE, STATE_PROMPT, FAST_PROMPT), ACTION_TOKENS: (NORMALISE,), ABSOLUTE_STEP: (RESTORE,),
}
_COMMON = (RENAME, BATCH, DEVICE, NORMALISE, *RELATIVE_STEPS)  # of every preprocessor
_AFTER = (RESTORE, ABSOLUTE_STEP, DEVICE)  # of every postprocessor
# Type -> further steps of its preprocessor, which are required unless they are in _SPARE.
_OWN = {"act": (), "diffusion": (), "smolvla": (NEWLINE, TOKENS), "pi0": ("pi0_new_line_processor", TOKENS),
        "pi05": (STATE_PROMPT, TOKENS), "pi0_fast": (FAST_PROMPT, TOKENS, ACTION_TOKENS),
        "xvla": (TOKENS, TO_FLOAT, IMAGENET, DOMAIN)}
_SPARE = {ACTION_TOKENS, DOMAIN}  # only for training; the user is asked for it if it is missing


@dataclass(frozen=True)
class Step:
    """A processor step: its registered name, its settings, its tensors (if any) in float64, and, for a normaliser, the
    name of their file if it is missing in the folder."""

    name: str
    config: Mapping[str, Any]
    state: Mapping[str, np.ndarray] = field(default_factory=dict)
    missing: str = ""


def read_steps(folder: Path, kind: Any, own: Sequence[str] = ()) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Steps of the preprocessor and of the postprocessor; none for folders older than LeRobot 0.4, which do not have
    them.

    Args:
        kind: `type` of config.json.
        own: registered names, in order, of steps that the family reads itself and whose settings it checks.

    Raises InputError that names file, step and setting if something else would be computed.
    """
    files = [folder / name for name in FILES]
    if not any(file.exists() for file in files):
        return (), ()
    for file in files:
        if not file.exists():
            raise InputError(f"{file}: not there, expected it: LeRobot writes {' and '.join(FILES)}")
    if own:
        known = (RENAME, BATCH, DEVICE, *RELATIVE_STEPS, *own), (DEVICE, ABSOLUTE_STEP, *own)
    else:
        known = (*_COMMON, *_OWN.get(kind, _SETTINGS.keys() - {*_COMMON, *_AFTER})), _AFTER
    before, after = (_read(file, names, own) for file, names in zip(files, known, strict=True))
    there = {_kind(step.name) for step in before}
    for name in _OWN.get(kind, ()):
        if name in (TO_FLOAT, IMAGENET) and not there & {TO_FLOAT, IMAGENET}:
            continue  # in X-VLA's published preprocessors these are part of LeRobot's environments
        if name not in _SPARE and _kind(name) not in there:
            raise InputError(f"{files[0]}: no step {name}, expected one: {kind} reads its output")
    return before, after


def _kind(name: str) -> str:
    return _SAME.get(name, name)


def _read(path: Path, known: Sequence[str], own: Sequence[str]) -> tuple[Step, ...]:
    steps: list[Step] = []
    rows = value_of(list[dict], read_mapping(path, "processor").get("steps"), f"{path}: steps")
    for index, row in enumerate(rows):
        where = f"{path}: steps[{index}]"
        if row.get("registry_name") is None and "class" in row:
            raise InputError(f"{where}: class {shown(row['class'])}: a step that is said by its code, which is not "
                             f"run; expected a registry_name, one of {sorted(known)}")
        name = value_of(str, row.get("registry_name"), f"{where}.registry_name")
        if _kind(name) not in map(_kind, known):
            raise InputError(f"{where}: step {shown(name)} is not known here, expected one of {sorted(known)}")
        where += f" {name}"
        config = value_of(dict[str, Any], row.get("config") or {}, f"{where}.config")
        if name not in own:
            _check_settings(config, _SETTINGS[_kind(name)], where)
        _check_place(name, [step.name for step in steps], own, where)
        steps.append(_with_state(Step(name, config), row.get("state_file"), path.parent, where))
    return tuple(steps)


def _check_settings(config: Mapping[str, Any], known: Mapping[str, tuple], where: str) -> None:
    for name, value in config.items():
        if name not in known:
            raise InputError(f"{where}: unknown setting {shown(name)}, expected {sorted(known) or 'none'}; it may "
                             "change what the step computes")
        allowed = known[name]
        if allowed and not any(type(value) is type(one) and value == one for one in allowed):
            raise InputError(f"{where}.{name}: {shown(value)}, expected {' or '.join(map(repr, allowed))}: nothing "
                             "else is supported")


def _check_place(name: str, earlier: Sequence[str], own: Sequence[str], where: str) -> None:
    """Raises InputError for a repeated step, and for one before a step whose output it reads."""
    kinds = [_kind(step) for step in earlier]
    if _kind(name) in kinds and _kind(name) not in _REPEATED:
        raise InputError(f"{where}: the file has it twice, expected once")
    for step in earlier:
        wrong = _kind(name) in _BEFORE.get(_kind(step), ()) or step == ABSOLUTE_STEP and name in own
        wrong = wrong or step in own and name in (RENAME, BATCH, *RELATIVE_STEPS)
        if wrong or step in own and name in own and own.index(name) < own.index(step):
            raise InputError(f"{where}: it is after {step}, expected before: {step} reads its output")


def _with_state(step: Step, file: Any, folder: Path, where: str) -> Step:
    if not file:
        return step
    path = inside(folder, file, f"{where}.state_file")
    if step.name in NORMALISERS and not path.exists():
        return replace(step, missing=file)  # a folder without statistics can be described
    check_tensors(path, MOST_STATE)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, KeyError, AttributeError) as error:  # the latter for an unknown type
        raise InputError(f"{path}: cannot be read: {error}") from error
    return replace(step, state={key: numbers(tensor, f"{path}: {key}") for key, tensor in tensors.items()})
