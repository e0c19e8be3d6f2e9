"""Checkpoint folders as LeRobot writes them: features, processors and statistics, old layout and new.

A folder contains `config.json` (with `type`, the family), `model.safetensors` whose keys start with `model.` or
another prefix of the family, and, since processors are stored in files (LeRobot 0.4),
`policy_preprocessor.json` and `policy_postprocessor.json` with the statistics in safetensors beside them.
Older folders store the statistics among the weights, see `lerobot_statistics`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Pixels, Rows, value_of
from vla_ros.policies.formats.lerobot_steps import (
    FILES,
    NORMALISERS,
    PREPROCESSOR,
    RENAME,
    TOKENS,
    Step,
    read_steps,
)
from vla_ros.policies.options import ACTION, STATE

KINDS = ("VISUAL", "STATE", "ENV", "ACTION")
MODES = {"IDENTITY": "identity", "MEAN_STD": "mean_std", "MIN_MAX": "min_max", "QUANTILES": "quantiles",
         "QUANTILE10": "deciles"}  # LeRobot's name of a normalisation: ours
DEFAULT_MODES = {  # type -> kind -> mode: defaults of LeRobot's classes, for a folder that names none
    "act": {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    "diffusion": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
    "smolvla": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    "pi0": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    "pi05": {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "QUANTILES"},
}
VIRTUAL_CAMERA = "observation.images.empty_camera_"  # what `empty_cameras` adds to the features: black, masked images

# Fields in the config.json of every LeRobot policy that describe training or storage, not what it computes.
HARMLESS = frozenset(
    "type device use_amp use_peft push_to_hub repo_id private tags license pretrained_path pretrained_revision "
    "pretrained_backbone_weights compile_model compile_mode gradient_checkpointing policy_action_contract "
    "rtc_config".split()
)
HARMLESS_PREFIXES = ("optimizer_", "scheduler_")


@dataclass(frozen=True)
class Feature:
    """An input or output of a policy: `kind` is one of KINDS, `shape` (C, H, W) for images, (n,) for vectors."""

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LeRobotFolder:
    """Contents of a folder besides its weights.

    Attributes:
        config: config.json, unchanged.
        inputs, outputs: features by name, in the order of config.json (which is the order of the cameras).
        modes: kind of feature -> normalisation mode, one of MODES.
        epsilon: number that normalisation adds to a divisor, or replaces it by.
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
        """Images of cameras that a robot has. Those that `empty_cameras` adds are black and masked, the same as
        omitted."""
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
        """Sizes of a policy that takes images at their original size, under the names of our configs; image_size only
        with images.

        Args:
            several: images may have different sizes: image_sizes; image_size then has room for the largest.

        Raises InputError for images of several sizes if `several` is not set.
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
        step = self.step(RENAME)
        where = f"{self.path / PREPROCESSOR}: {RENAME}.rename_map"
        return value_of(dict[str, str], (step.config.get("rename_map") if step else None) or {}, where)

    @property
    def text_length(self) -> int | None:
        """Largest number of tokens of a prompt, at which the preprocessor cuts it; None without a tokenizer step."""
        step = self.step(TOKENS)
        where = f"{self.path / PREPROCESSOR}: {TOKENS}.max_length"
        return value_of(Rows, step.config.get("max_length", 512), where) if step else None  # LeRobot's default

    def of_widths(self, state: int, actions: int) -> "LeRobotFolder":
        """The same with other sizes of state (if it has one) and actions: those without declared padding."""
        def resized(features: Mapping[str, Feature], name: str, size: int) -> Mapping[str, Feature]:
            return {n: replace(f, shape=(size,)) if n == name else f for n, f in features.items()}

        return replace(
            self, inputs=resized(self.inputs, STATE, state), outputs=resized(self.outputs, ACTION, actions)
        )

    def step(self, name: str) -> Step | None:
        """The preprocessor's step with that registered name."""
        return next((step for step in self.preprocessor if step.name == name), None)


def read_folder(path: Path, config: Mapping[str, Any], own_steps: Sequence[str] = ()) -> LeRobotFolder:
    """Read the small files of a LeRobot folder.

    Args:
        own_steps: registered names, in order, of processor steps that the family reads itself and that normalise.

    Raises InputError that names the file and the field.
    """
    where = path / "config.json"
    inputs = _features(config.get("input_features"), f"{where}: input_features")
    outputs = _features(config.get("output_features"), f"{where}: output_features")
    if config.get("type") in ("pi0", "pi05"):  # whose classes add what is missing in a file
        inputs.setdefault(STATE, Feature(STATE, "STATE", (config.get("max_state_dim", 32),)))
        outputs.setdefault(ACTION, Feature(ACTION, "ACTION", (config.get("max_action_dim", 32),)))
    if ACTION not in outputs:
        raise InputError(f"{where}: output_features has {sorted(outputs)}, expected {ACTION!r} among them")
    steps = read_steps(path, config.get("type"), own_steps)
    modes = _modes(config.get("normalization_mapping"), where) or dict(DEFAULT_MODES.get(config.get("type"), {}))
    folder = LeRobotFolder(path, config, inputs, outputs, modes, 1e-8, *steps)
    _check_renamed(folder)
    return _with_normalisation(folder) if (path / PREPROCESSOR).exists() and not own_steps else folder


def _check_renamed(folder: LeRobotFolder) -> None:
    """Raises InputError if a feature has two sources, or one that the policy reads is renamed."""
    where, sources = f"{folder.path / PREPROCESSOR}: {RENAME}.rename_map", {}
    for source, feature in folder.renamed.items():
        if sources.setdefault(feature, source) != source:
            raise InputError(f"{where}: {shown(source)} and {shown(sources[feature])} both become {shown(feature)}, "
                             "expected one of them")
    for source, feature in folder.renamed.items():
        if source in folder.inputs and source not in sources:
            raise InputError(f"{where}: {shown(source)} becomes {shown(feature)}, but the policy reads {shown(source)} "
                             "(input_features of config.json); expected a name that it does not read")


def _with_normalisation(folder: LeRobotFolder) -> LeRobotFolder:
    """With the modes and the epsilon of its processors, which take precedence over config.json."""
    modes, epsilon = dict(folder.modes), None
    for steps, name, file in zip((folder.preprocessor, folder.postprocessor), NORMALISERS, FILES, strict=True):
        where = f"{folder.path / file}: {name}"
        step = next((step for step in steps if step.name == name), None)
        if step is None:
            used = {feature.kind for feature in (*folder.inputs.values(), *folder.outputs.values())}
            if done := sorted(kind for kind in used if modes.get(kind, "IDENTITY") != "IDENTITY"):
                raise InputError(f"{folder.path / file}: no step {name}, expected one, since {done[0]} is normalised "
                                 f"by {modes[done[0]]}")
            continue
        eps = value_of(float, step.config.get("eps", 1e-8), f"{where}.eps")
        said = step.config.get("norm_map")
        # A kind that is not in the map is not normalised. The postprocessor only handles actions.
        left_out = dict.fromkeys(KINDS if name == NORMALISERS[0] else ("ACTION",), "IDENTITY")
        told = modes if said is None else left_out | _modes(said, folder.path / file)
        if name == NORMALISERS[0]:
            modes = modes | told
            _check_normalised(step.config.get("features"), folder.inputs.values(), modes, f"{where}.features")
        _check_kinds(step.config.get("features"), folder.inputs | folder.outputs, f"{where}.features")
        for key, value, first in (("eps", eps, epsilon or eps), *((k, v, modes.get(k, v)) for k, v in told.items())):
            if value != first:
                raise InputError(f"{where}: {key} is {value}, but {first} in {PREPROCESSOR}; expected the same")
        epsilon = eps
    return replace(folder, modes=modes, epsilon=1e-8 if epsilon is None else epsilon)


def _check_normalised(said: Any, inputs: Iterable[Feature], modes: Mapping[str, str], where: str) -> None:
    """Raises InputError for an input that the normaliser would not normalise."""
    features = value_of(dict[str, dict] | None, said, where)
    for feature in inputs if features is not None else ():
        mode = modes.get(feature.kind, "IDENTITY")
        if mode != "IDENTITY" and feature.name not in features and not feature.name.startswith(VIRTUAL_CAMERA):
            raise InputError(f"{where}: no {feature.name}, expected it: {feature.kind} is normalised by {mode}")


def _check_kinds(said: Any, features: Mapping[str, Feature], where: str) -> None:
    """Raises InputError for a feature to which the step assigns another kind than config.json."""
    for name, row in (value_of(dict[str, dict] | None, said, where) or {}).items():
        if name in features and row.get("type") != features[name].kind:
            raise InputError(f"{where}.{name}.type: {shown(row.get('type'))}, expected {features[name].kind}, as in "
                             "config.json")


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
