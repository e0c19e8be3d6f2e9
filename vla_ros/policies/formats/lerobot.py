"""Checkpoint folders as LeRobot writes them: features, processors and statistics, old layout and new.

A folder holds `config.json` (with `type`, the family), `model.safetensors` whose keys start with `model.` or
another prefix of the family, and, since the processors became files of their own (LeRobot 0.4),
`policy_preprocessor.json` and `policy_postprocessor.json` with the statistics in safetensors beside them.
Older folders keep the statistics among the weights: `lerobot_statistics`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import inside
from vla_ros.core.records import Pixels, Rows, read_mapping, value_of
from vla_ros.policies.formats.weights import check_tensors, numbers
from vla_ros.policies.options import ACTION, STATE

PREPROCESSOR = "policy_preprocessor.json"
POSTPROCESSOR = "policy_postprocessor.json"
MOST_STATE = 64 << 20  # bytes of the tensors of a processor step
KINDS = ("VISUAL", "STATE", "ENV", "ACTION")
MODES = {"IDENTITY": "identity", "MEAN_STD": "mean_std", "MIN_MAX": "min_max", "QUANTILES": "quantiles",
         "QUANTILE10": "deciles"}  # LeRobot's name of a normalisation: ours
DEFAULT_MODES = {  # type -> kind -> mode, of LeRobot's classes; a folder that names none means these
    "act": {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    "diffusion": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
    "smolvla": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    "pi0": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    "pi05": {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "QUANTILES"},
}
VIRTUAL_CAMERA = "observation.images.empty_camera_"  # what `empty_cameras` adds to the features: black, masked images

# Fields of every LeRobot policy's config.json that say how it was trained or stored, not what it computes.
HARMLESS = frozenset(
    "type device use_amp use_peft push_to_hub repo_id private tags license pretrained_path pretrained_revision "
    "pretrained_backbone_weights compile_model compile_mode gradient_checkpointing policy_action_contract "
    "rtc_config".split()
)
HARMLESS_PREFIXES = ("optimizer_", "scheduler_")

NORMALISERS = "normalizer_processor", "unnormalizer_processor"
NORMALISER = frozenset({"eps", "features", "norm_map"})  # settings of a normaliser that we know
# Steps that move data about without changing a value that we compute with.
_PLAIN_STEPS = frozenset(
    {"to_batch_processor", "device_processor", "rename_observations_processor", "normalizer_processor",
     "unnormalizer_processor", "tokenizer_processor", "smolvla_new_line_processor", "newline_task_processor",
     "pi0_new_line_processor", "pi05_prepare_state_tokenizer_processor_step",
     "pi0_fast_prepare_state_tokenizer_processor_step", "action_tokenizer_processor",
     "xvla_image_to_float", "xvla_imagenet_normalize", "xvla_add_domain_id",
     "relative_actions_processor", "absolute_actions_processor", "delta_actions_processor"}
)


@dataclass(frozen=True)
class Feature:
    """An input or output of a policy: `kind` is one of KINDS, `shape` (C, H, W) for images, (n,) for vectors."""

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """A processor step: its registered name, its settings, its tensors in float64 where it has any, and the name
    of their file where it is a normaliser and the folder lacks it."""

    name: str
    config: Mapping[str, Any]
    state: Mapping[str, np.ndarray] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True)
class LeRobotFolder:
    """What a folder says besides its weights.

    Attributes:
        config: config.json as it stands.
        inputs, outputs: features by name, in the order of config.json (which is the order of the cameras).
        modes: kind of feature -> normalisation mode, one of MODES.
        epsilon: what normalisation adds to (or puts in place of) a divisor.
        preprocessor, postprocessor: steps; empty in the old layout.
    """

    path: Path
    config: Mapping[str, Any]
    inputs: Mapping[str, Feature]
    outputs: Mapping[str, Feature]
    modes: Mapping[str, str]
    epsilon: float = 1e-8
    preprocessor: tuple[Step, ...] = ()
    postprocessor: tuple[Step, ...] = ()

    @property
    def images(self) -> tuple[Feature, ...]:
        """Those that a robot has. What `empty_cameras` adds is black and masked, which is the same as left out."""
        return tuple(
            feature for feature in self.inputs.values()
            if feature.kind == "VISUAL" and not feature.name.startswith(VIRTUAL_CAMERA)
        )

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

    def sizes(self, several: bool = False) -> dict[str, Any]:
        """Of a policy that takes images at their own size, by the names of our configs; image_size only with images.

        Args:
            several: cameras may have sizes of their own: image_sizes, of which image_size holds the largest.

        Raises InputError for images of several sizes otherwise.
        """
        images = [feature.shape[1:] for feature in self.images]
        found = sorted(set(images))
        if len(found) > 1 and not several:
            raise InputError(f"{self.path / 'config.json'}: images of sizes {found}, expected one size")
        largest = {"image_size": tuple(map(max, zip(*found, strict=True)))} if found else {}
        return {
            "action_dim": self.action_dim, "state_dim": self.state_dim, "environment_dim": self.environment_dim,
            "cameras": tuple(feature.name for feature in self.images), **largest,
            **({"image_sizes": tuple(images)} if len(found) > 1 else {}),
        }

    @property
    def renamed(self) -> Mapping[str, str]:
        """Name in the robot's data -> name of the feature."""
        step = self.step("rename_observations_processor")
        return value_of(dict[str, str], (step.config.get("rename_map") if step else None) or {}, "rename_map")

    @property
    def text_length(self) -> int | None:
        """Tokens of a prompt at most, as the preprocessor cuts it; None where it does not say."""
        step = self.step("tokenizer_processor")
        where = f"{self.path / PREPROCESSOR}: tokenizer_processor.max_length"
        return value_of(Rows | None, step.config.get("max_length"), where) if step else None

    def of_widths(self, state: int, actions: int) -> "LeRobotFolder":
        """The same with other sizes of state (where it has one) and actions: what is left of declared padding."""
        def resized(features: Mapping[str, Feature], name: str, size: int) -> Mapping[str, Feature]:
            return {n: replace(f, shape=(size,)) if n == name else f for n, f in features.items()}

        return replace(
            self, inputs=resized(self.inputs, STATE, state), outputs=resized(self.outputs, ACTION, actions)
        )

    def step(self, name: str) -> Step | None:
        """The preprocessor's step of that registered name."""
        return next((step for step in self.preprocessor if step.name == name), None)


def read_folder(path: Path, config: Mapping[str, Any]) -> LeRobotFolder:
    """Read the small files of a LeRobot folder. Raises InputError that names the file and the field."""
    where = path / "config.json"
    inputs = _features(config.get("input_features"), f"{where}: input_features")
    outputs = _features(config.get("output_features"), f"{where}: output_features")
    if config.get("type") in ("pi0", "pi05"):  # whose classes add what a file leaves out
        inputs.setdefault(STATE, Feature(STATE, "STATE", (config.get("max_state_dim", 32),)))
        outputs.setdefault(ACTION, Feature(ACTION, "ACTION", (config.get("max_action_dim", 32),)))
    if ACTION not in outputs:
        raise InputError(f"{where}: output_features has {sorted(outputs)}, expected {ACTION!r} among them")
    preprocessor = _steps(path / PREPROCESSOR)
    postprocessor = _steps(path / POSTPROCESSOR)
    modes = _modes(config.get("normalization_mapping"), where) or dict(DEFAULT_MODES.get(config.get("type"), {}))
    epsilon, seen = 1e-8, {}
    for steps, name, file in (
        (preprocessor, NORMALISERS[0], path / PREPROCESSOR), (postprocessor, NORMALISERS[1], path / POSTPROCESSOR),
    ):
        for step in (step for step in steps if step.name == name):
            if unknown := sorted(key for key in step.config.keys() - NORMALISER if step.config[key] is not None):
                raise InputError(f"{file}: {name}: unknown {unknown}, expected some of {sorted(NORMALISER)}")
            said = {"eps": value_of(float, step.config.get("eps", 1e-8), f"{file}: {name}.eps"),
                    **_modes(step.config.get("norm_map"), file)}
            for key, value in said.items():
                if seen.setdefault(key, value) != value:
                    raise InputError(f"{file}: {name}: {key} is {value}, but {seen[key]} in {PREPROCESSOR}; expected "
                                     "the same")
            epsilon = said.pop("eps")
            modes |= said
    return LeRobotFolder(path, config, inputs, outputs, modes, epsilon, preprocessor, postprocessor)


def check_fields(config: Mapping[str, Any], known: Collection[str], where: Path) -> None:
    """Raises InputError that names every field of config.json that is neither known nor harmless."""
    unknown = sorted(
        name for name in config
        if name not in known and name not in HARMLESS and not name.startswith(HARMLESS_PREFIXES)
    )
    if unknown:
        raise InputError(f"{where / 'config.json'}: unknown fields {unknown}; expected some of {sorted(known)}. They "
                         "may change what the policy computes, so it is not loaded without them")


def _features(value: Any, where: str) -> dict[str, Feature]:
    features = {}
    for name, row in value_of(dict[str, dict], value, where).items():
        kind = value_of(str, row.get("type"), f"{where}.{name}.type")
        shape = value_of(tuple[Pixels, ...], row.get("shape"), f"{where}.{name}.shape")
        if kind == "VISUAL" and len(shape) == 3 and shape[2] == 3 != shape[0]:  # as many converters write it
            shape = (shape[2], *shape[:2])
        if kind not in KINDS or (len(shape) != 3 or shape[0] != 3 if kind == "VISUAL" else len(shape) != 1):
            raise InputError(
                f"{where}.{name}: type {shown(kind)}, shape {shown(shape)}; expected one of {KINDS}, "
                "(3 channels, height, width) for images and one size for the others"
            )
        features[name] = Feature(name, kind, shape)
    return features


def _modes(value: Any, where: Path) -> dict[str, str]:
    modes = value_of(dict[str, str], value or {}, f"{where}: normalisation")
    for kind, mode in modes.items():
        if mode not in MODES:
            raise InputError(f"{where}: normalisation {shown(mode)} of {kind}, expected one of {sorted(MODES)}")
    return modes


def _steps(path: Path) -> tuple[Step, ...]:
    if not path.exists():
        return ()
    steps = []
    rows = value_of(list[dict], read_mapping(path, "processor").get("steps"), f"{path}: steps")
    for index, row in enumerate(rows):
        where = f"{path}: steps[{index}]"
        name = value_of(str, row.get("registry_name"), f"{where}.registry_name")
        config = value_of(dict[str, Any], row.get("config") or {}, f"{where}.config")
        if name not in _PLAIN_STEPS:
            raise InputError(f"{where}: step {shown(name)} is not known, expected one of {sorted(_PLAIN_STEPS)}")
        state, missing = {}, ""
        file = row.get("state_file")
        if file and name in NORMALISERS and not inside(path.parent, file, f"{where}.state_file").exists():
            missing = file  # a folder without its statistics can be described
        elif file:
            file = inside(path.parent, file, f"{where}.state_file")
            check_tensors(file, MOST_STATE)
            try:
                tensors = load_file(file)
            except (OSError, SafetensorError, KeyError, AttributeError) as error:  # the latter for an unknown type
                raise InputError(f"{file}: cannot be read: {error}") from error
            state = {key: numbers(tensor, f"{file}: {key}") for key, tensor in tensors.items()}
        steps.append(Step(name, config, state, missing))
    return tuple(steps)
