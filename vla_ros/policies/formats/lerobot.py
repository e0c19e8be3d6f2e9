"""Checkpoint folders as LeRobot writes them: features, processors and statistics, old layout and new.

A folder holds `config.json` (with `type`, the family), `model.safetensors` whose keys start with `model.` or
another prefix of the family, and, since the processors became files of their own (LeRobot 0.4),
`policy_preprocessor.json` and `policy_postprocessor.json` with the statistics in safetensors beside them.
Older folders keep the statistics as buffers among the weights
(`normalize_inputs.buffer_observation_state.mean`: dots of the feature's name became underscores).
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import inside
from vla_ros.core.records import Pixels, read_mapping, value_of
from vla_ros.policies import normalisation
from vla_ros.policies.formats.weights import TensorFolder, check_tensors
from vla_ros.policies.options import ACTION, STATE

Statistics = dict[str, dict[str, np.ndarray]]

PREPROCESSOR = "policy_preprocessor.json"
POSTPROCESSOR = "policy_postprocessor.json"
MOST_STATE = 64 << 20  # bytes of the tensors of a processor step
KINDS = ("VISUAL", "STATE", "ENV", "ACTION")
MODES = {"IDENTITY": "identity", "MEAN_STD": "mean_std", "MIN_MAX": "min_max", "QUANTILES": "quantiles",
         "QUANTILE10": "deciles"}  # LeRobot's name of a normalisation: ours

# Fields of every LeRobot policy's config.json that say how it was trained or stored, not what it computes.
HARMLESS = frozenset(
    "type device use_amp use_peft push_to_hub repo_id private tags license pretrained_path pretrained_revision "
    "pretrained_backbone_weights compile_model compile_mode gradient_checkpointing policy_action_contract "
    "rtc_config".split()
)
HARMLESS_PREFIXES = ("optimizer_", "scheduler_")

# Steps that move data about without changing a value that we compute with.
_PLAIN_STEPS = frozenset(
    {"to_batch_processor", "device_processor", "rename_observations_processor", "normalizer_processor",
     "unnormalizer_processor", "tokenizer_processor", "smolvla_new_line_processor", "newline_task_processor",
     "pi0_new_line_processor", "pi05_prepare_state_tokenizer_processor_step",
     "relative_actions_processor", "absolute_actions_processor", "delta_actions_processor"}
)

_BUFFER = re.compile(
    r"(?:normalize_inputs|unnormalize_outputs|normalize_targets)\.(?:(?P<variant>[^.]+)_)?"
    r"buffer_(?P<feature>.+)\.(?P<statistic>mean|std|min|max)"
)


@dataclass(frozen=True)
class Feature:
    """An input or output of a policy: `kind` is one of KINDS, `shape` (C, H, W) for images, (n,) for vectors."""

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """A processor step: its registered name, its settings, and its tensors where it has any."""

    name: str
    config: Mapping[str, Any]
    state: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class LeRobotFolder:
    """What a folder says besides its weights.

    Attributes:
        config: config.json as it stands.
        inputs, outputs: features by name, in the order of config.json (which is the order of the cameras).
        modes: kind of feature -> normalisation mode, one of MODES.
        epsilon: what normalisation adds to (or puts in place of) a divisor.
        preprocessor, postprocessor: steps; empty in the old layout.
        statistics: feature -> statistic -> 1-D float32 array, from the processors' files; empty in the old layout,
            where `find_statistics` gets them from the weights.
    """

    path: Path
    config: Mapping[str, Any]
    inputs: Mapping[str, Feature]
    outputs: Mapping[str, Feature]
    modes: Mapping[str, str]
    epsilon: float = 1e-8
    preprocessor: tuple[Step, ...] = ()
    postprocessor: tuple[Step, ...] = ()
    statistics: Statistics = field(default_factory=dict)

    @property
    def images(self) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.inputs.values() if feature.kind == "VISUAL")

    @property
    def state_dim(self) -> int:
        """Size of `observation.state`, 0 without one."""
        feature = self.inputs.get(STATE)
        return feature.shape[0] if feature else 0

    @property
    def environment_dim(self) -> int:
        return sum(feature.shape[0] for feature in self.inputs.values() if feature.kind == "ENV")

    @property
    def action_dim(self) -> int:
        return self.outputs[ACTION].shape[0]

    def sizes(self) -> dict[str, Any]:
        """Of a policy that takes all images at one size, by the names of our configs; image_size only with images.

        Raises InputError for images of several sizes.
        """
        found = sorted({feature.shape[1:] for feature in self.images})
        if len(found) > 1:
            raise InputError(f"{self.path / 'config.json'}: images of sizes {found}, expected one size")
        return {
            "action_dim": self.action_dim, "state_dim": self.state_dim, "environment_dim": self.environment_dim,
            "cameras": tuple(feature.name for feature in self.images), **({"image_size": found[0]} if found else {}),
        }

    @property
    def renamed(self) -> Mapping[str, str]:
        """Name in the robot's data -> name of the feature."""
        step = self.step("rename_observations_processor")
        return value_of(dict[str, str], (step.config.get("rename_map") if step else None) or {}, "rename_map")

    def step(self, name: str) -> Step | None:
        """The preprocessor's step of that registered name."""
        return next((step for step in self.preprocessor if step.name == name), None)


def read_folder(path: Path, config: Mapping[str, Any], own_steps: Collection[str] = ()) -> LeRobotFolder:
    """Read the small files of a LeRobot folder.

    Args:
        own_steps: registered names of processor steps that the family reads itself.

    Raises InputError that names the file and the field.
    """
    where = path / "config.json"
    inputs = _features(config.get("input_features"), f"{where}: input_features")
    outputs = _features(config.get("output_features"), f"{where}: output_features")
    if ACTION not in outputs:
        raise InputError(f"{where}: output_features has {sorted(outputs)}, expected {ACTION!r} among them")
    preprocessor = _steps(path / PREPROCESSOR, own_steps)
    postprocessor = _steps(path / POSTPROCESSOR, own_steps)
    modes = _modes(config.get("normalization_mapping"), where)
    epsilon, statistics = 1e-8, {}
    for steps, name in ((postprocessor, "unnormalizer_processor"), (preprocessor, "normalizer_processor")):
        for step in steps:
            if step.name == name:
                epsilon = value_of(float, step.config.get("eps", epsilon), f"{path / PREPROCESSOR}: eps")
                modes |= _modes(step.config.get("norm_map"), path / PREPROCESSOR)
                statistics |= _by_feature(step.state)
    return LeRobotFolder(path, config, inputs, outputs, modes, epsilon, preprocessor, postprocessor, statistics)


def check_fields(config: Mapping[str, Any], known: Collection[str], where: Path) -> None:
    """Raises InputError that names every field of config.json that is neither known nor harmless."""
    unknown = sorted(
        name for name in config
        if name not in known and name not in HARMLESS and not name.startswith(HARMLESS_PREFIXES)
    )
    if unknown:
        raise InputError(f"{where / 'config.json'}: unknown fields {unknown}; expected some of {sorted(known)}. They "
                         "may change what the policy computes, so it is not loaded without them")


def is_statistic(key: str) -> bool:
    """Whether a key among the weights is a normalisation buffer of the old layout."""
    return _BUFFER.fullmatch(key) is not None


def legacy_statistics(folder: LeRobotFolder, tensors: TensorFolder) -> dict[str, Statistics]:
    """The buffers of the old layout: name of the set ("so100", mostly "") -> feature -> statistic -> float32 array."""
    names = {name.replace(".", "_"): name for name in (*folder.inputs, *folder.outputs)}
    found: dict[str, Statistics] = {}
    for key in tensors.shapes:
        match = _BUFFER.fullmatch(key)
        if match is None or match["feature"] not in names:
            continue
        rows = found.setdefault(match["variant"] or "", {}).setdefault(names[match["feature"]], {})
        rows[match["statistic"]] = tensors.read(key).float().numpy().reshape(-1)
    return found


def find_statistics(
    folder: LeRobotFolder, tensors: TensorFolder, variant: str | None = None
) -> tuple[Statistics, str]:
    """The folder's statistics, wherever its layout keeps them, and what they lack of what its modes ask for.

    Raises InputError for a set that is named, but not there, and for one that was never filled.
    """
    statistics = folder.statistics
    if not statistics:
        sets = legacy_statistics(folder, tensors)
        if variant is None and len(sets) > 1:
            return {}, f"statistics of {sorted(sets)} are among the weights; overrides.statistics says which to use"
        if variant is not None and variant not in sets:
            raise InputError(f"checkpoint {folder.path}: no statistics {variant!r}, expected one of {sorted(sets)}")
        statistics = sets[variant] if variant is not None else next(iter(sets.values()), {})
        for feature, rows in statistics.items():
            for name, value in rows.items():
                if not np.isfinite(value).all():
                    raise InputError(f"checkpoint {folder.path}: statistic {feature}.{name} was never set: {value}")
    elif variant is not None:
        raise InputError(f"checkpoint {folder.path}: overrides.statistics {str(variant)!r}: neither a file nor a set "
                         "of statistics among the weights")
    return statistics, lacking(folder, statistics)


def lacking(folder: LeRobotFolder, statistics: Statistics) -> str:
    """The first feature of state and actions whose mode needs more; "" if all is there."""
    for feature in (*folder.inputs.values(), *folder.outputs.values()):
        mode = folder.modes.get(feature.kind, "IDENTITY")
        missing = [name for name in normalisation.MODES[MODES[mode]] if name not in statistics.get(feature.name, {})]
        # A picture without statistics passes unchanged, as it does in LeRobot (empty cameras have none).
        if missing and feature.kind != "VISUAL":
            return f"{feature.name} is normalised by {mode}, but its statistics lack {missing}"
    return ""


def _features(value: Any, where: str) -> dict[str, Feature]:
    features = {}
    for name, row in value_of(dict[str, dict], value, where).items():
        kind = value_of(str, row.get("type"), f"{where}.{name}.type")
        shape = value_of(tuple[Pixels, ...], row.get("shape"), f"{where}.{name}.shape")
        if kind not in KINDS or len(shape) != (3 if kind == "VISUAL" else 1):
            raise InputError(
                f"{where}.{name}: type {shown(kind)}, shape {shown(shape)}; expected one of {KINDS}, "
                "(channels, height, width) for images and one size for the others"
            )
        features[name] = Feature(name, kind, shape)
    return features


def _modes(value: Any, where: Path) -> dict[str, str]:
    modes = value_of(dict[str, str], value or {}, f"{where}: normalisation")
    for kind, mode in modes.items():
        if mode not in MODES:
            raise InputError(f"{where}: normalisation {shown(mode)} of {kind}, expected one of {sorted(MODES)}")
    return modes


def _steps(path: Path, own: Collection[str]) -> tuple[Step, ...]:
    if not path.exists():
        return ()
    steps = []
    rows = value_of(list[dict], read_mapping(path, "processor").get("steps"), f"{path}: steps")
    for index, row in enumerate(rows):
        where = f"{path}: steps[{index}]"
        name = value_of(str, row.get("registry_name"), f"{where}.registry_name")
        config = value_of(dict[str, Any], row.get("config") or {}, f"{where}.config")
        if name not in _PLAIN_STEPS and name not in own:
            raise InputError(f"{where}: step {shown(name)} is not known, expected one of "
                             f"{sorted({*_PLAIN_STEPS, *own})}")
        state = {}
        if file := row.get("state_file"):
            file = inside(path.parent, file, f"{where}.state_file")
            check_tensors(file, MOST_STATE)
            try:
                state = load_file(file)
            except (OSError, SafetensorError) as error:
                raise InputError(f"{file}: cannot be read: {error}") from error
        steps.append(Step(name, config, state))
    return tuple(steps)


def _by_feature(state: Mapping[str, np.ndarray]) -> Statistics:
    statistics: Statistics = {}
    for key, value in state.items():
        feature, _, name = key.rpartition(".")
        statistics.setdefault(feature, {})[name] = np.asarray(value, dtype=np.float32).reshape(-1)
    return statistics
