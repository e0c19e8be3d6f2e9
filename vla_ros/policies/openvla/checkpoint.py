"""Declaration of the OpenVLA family, and published folders of OpenVLA and OpenVLA-OFT."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Cameras, Dimensions, Rows, read_mapping, value_of
from vla_ros.policies.embodiment import Dimension, Embodiment
from vla_ros.policies.family import Family, Layout
from vla_ros.policies.formats.lerobot_robot import nameless
from vla_ros.policies.normalisation import Normalisation, Statistics
from vla_ros.policies.openvla.config import SPACES, OpenVLAConfig, text_sizes, towers
from vla_ros.policies.openvla.files import HEAD, NOISY, PROPRIO, OpenVLAFolder, check_film, parts
from vla_ros.policies.openvla.model import OpenVLA
from vla_ros.policies.openvla.names import rename
from vla_ros.policies.openvla.processor import OpenVLAProcessor
from vla_ros.policies.openvla.tokens import BINS
from vla_ros.policies.options import ACTION, STATE, LoadOptions, Parts, TrainingData, read_config
from vla_ros.policies.tokenizer import Tokenizer, word_tokenizer
from vla_ros.policies.tool_actions import END_EFFECTOR

FITS = {"resize-naive": "bicubic", "letterbox": "letterbox", "resize-crop": "cover"}


@dataclass(frozen=True)
class Platform:
    """Properties of a robot that are in OFT's code, not in its folders; `mode` is that of the normalisation."""

    chunk: Rows
    action_dim: Dimensions
    state_dim: Dimensions
    cameras: Cameras
    mode: str = "quantiles"
    space: str = "end_effector_delta"


PLATFORMS = {
    "libero": Platform(8, 7, 8, ("full_image", "wrist_image")),
    "aloha": Platform(25, 14, 14, ("full_image", "left_wrist_image", "right_wrist_image"), "min_max", SPACES[0]),
    "bridge": Platform(5, 7, 7, ("full_image",)),
}


def _fresh(values: dict[str, Any], data: TrainingData) -> tuple[dict[str, Any], Tokenizer]:
    """A tokenizer of the instructions' words, followed by the tokens of the actions."""
    tokenizer = word_tokenizer(data.instructions)
    if isinstance(values.get("text"), Mapping):
        values["text"] = {**values["text"], "vocabulary": tokenizer.size + BINS}
    reads_state = values.get("head", "autoregressive") != "autoregressive"
    said = {"action_end": tokenizer.size + BINS, "blank": 0, "stop": tokenizer.bos, "action_dim": data.action_dim,
            "state_dim": len(data.joints) if reads_state else 0, "cameras": data.cameras}
    return said, tokenizer


def _write_actions_alone(policy: OpenVLA, tokenizer: Tokenizer | None, data: TrainingData) -> None:
    """Make words unlikely answers from the start, since no training answer contains any."""
    with torch.no_grad():
        policy.head.weight[: policy.config.action_end - BINS] = 0.0


def _read(family: Family, path: Path, options: LoadOptions) -> tuple[OpenVLAConfig, Parts]:
    data, where = read_config(path), f"checkpoint {path}: config.json"
    shapes = family.layouts["openvla"].open(path, options.base)[0].shapes
    if options.base and (found := [*parts(path).values(), *parts(options.base).values()]):
        raise InputError(f"checkpoint {path}: an adapter, and {found[0]}, a part of OpenVLA-OFT; expected the adapter "
                         "merged into its base, the parts beside the result")
    bins = value_of(int, data.get("n_action_bins", BINS), f"{where}: n_action_bins")
    if bins != BINS:
        raise InputError(f"{where}: n_action_bins {bins}, expected {BINS}")
    sizes = text_sizes(data, where) | towers(data, shapes, where)
    head, platform = _platform(path, shapes, options)
    style = "openvla" if head == "autoregressive" else "openvla_oft"
    mode = platform.mode if platform else "quantiles"
    own = Embodiment.load(path / "embodiment.yaml") if (path / "embodiment.yaml").exists() else None
    statistics, lacks, fine_tuned = _statistics(path, data, options)
    widths = {len(values) for rows in statistics.values() for values in rows[ACTION].values()}
    given = options.embodiment or own
    if platform:
        widths = {platform.action_dim}
    elif given and (options.without_statistics or not widths):  # no weight depends on it
        widths, statistics = {len(given.actions)}, {}
    elif not widths:
        widths = {len(END_EFFECTOR)}
        lacks += f", {len(END_EFFECTOR)} actions are assumed"
    if len(widths) != 1:
        raise InputError(f"checkpoint {path}: actions of {sorted(widths)} dimensions in its statistics, expected one "
                         "number; overrides.unnorm_key or overrides.statistics in the policy file says which to use")
    rows = next(iter(statistics.values())) if len(statistics) == 1 else {}
    state_dim = _state_dim(path, shapes, platform, statistics) if platform else 0
    film = any(".scale." in key for key in shapes if key.startswith("vision_backbone."))
    notes = [] if lacks else [f"statistics of {next(iter(statistics), 'the data')}"]
    if platform and not film:
        check_film(path)
        notes += ["no FiLM, which OFT's recipe for ALOHA has"] if platform == PLATFORMS["aloha"] else []
    space = platform.space if platform else SPACES[1]
    padding = value_of(int, data.get("pad_to_multiple_of", 64), f"{where}: pad_to_multiple_of")
    names = _cameras(own, options, platform.cameras if platform else ("image",))
    config = OpenVLAConfig(
        action_dim=widths.pop(), cameras=names, head=head, chunk=platform.chunk if platform else 1, **sizes,
        state_dim=state_dim, film=film,
        prompt="vicuna" if str(data.get("llm_backbone_id", "")).startswith("vicuna") else "openvla",
        action_end=sizes["text"].vocabulary - padding, space="joint_position" if own and own.tool is None else space,
    )
    embodiment = given or _unknown(config)
    if embodiment.step_dt is None and options.data is not None:
        embodiment = replace(embodiment, step_dt=options.data.step_dt)
    images, fit = _images(path, data, config.pictures, where)
    crop = value_of(bool, options.overrides.get("centre_crop", fine_tuned), "overrides.centre_crop")
    jpeg = value_of(bool, options.overrides.get("jpeg", False), "overrides.jpeg")
    fit = {(True, False): "centre", (False, True): "jpeg", (True, True): "jpeg_centre"}.get((crop, jpeg), fit)
    return config, Parts(
        embodiment, Normalisation(mode, rows.get(STATE, {}) if config.state_dim else {}, style),
        Normalisation(mode, rows.get(ACTION, {}), style), images, fit, no_statistics=lacks,
        notes=tuple(notes),
    )


def _platform(
    path: Path, shapes: Mapping[str, tuple[int, ...]], options: LoadOptions
) -> tuple[str, Platform | None]:
    """The head, and OFT's platform by the sizes of its parts or by `overrides.platform`; None for OpenVLA itself."""
    heads = [key for key in shapes if key.startswith(f"{HEAD}:")]
    head = "tokens" if not heads else "diffusion" if any("noise_predictor" in key for key in heads) else "l1"
    said_head = value_of(str | None, options.overrides.get("head"), "overrides.head")
    if said_head not in (None, head):
        raise InputError(f"overrides.head {shown(said_head)}, expected {head!r}, as the folder's files say")
    if head == "diffusion" and not any(key.startswith(f"{NOISY}:") for key in shapes):
        raise InputError(f"checkpoint {path}: a head that denoises without {NOISY}--*_checkpoint.pt, expected both")
    others = [] if heads else [file.name for file in parts(path).values()]
    if others and said_head is None:
        raise InputError(f"checkpoint {path}: {others[0]} without {HEAD}--*_checkpoint.pt, expected both; of a policy "
                         "that was trained without a head, overrides.head: tokens in the policy file says so")
    said = value_of(str | Platform | None, options.overrides.get("platform"), "overrides.platform")
    if isinstance(said, str) and said not in PLATFORMS:
        raise InputError(f"overrides.platform {shown(said)}, expected one of {sorted(PLATFORMS)} or a mapping of sizes")
    inputs = shapes.get(f"{PROPRIO}:fc1.weight")
    if said is None and said_head is None and not heads:
        return "autoregressive", None
    answers = next((shapes[key] for key in heads if key.endswith(".fc2.bias")), None)
    known = PLATFORMS if said is None else {said: PLATFORMS[said]} if isinstance(said, str) else {"yours": said}
    fitting = [
        name for name, row in known.items()
        if answers in (None, (row.action_dim,)) and (not inputs or inputs[1:] == (row.state_dim,))
    ]
    if len(fitting) != 1:
        lacks = "" if inputs else f" (no {PROPRIO}--*_checkpoint.pt)"
        raise InputError(f"checkpoint {path}: actions of {list(answers or ())} and proprioception of "
                         f"{list(inputs or ())[1:]} dimensions{lacks} fit {fitting or 'none'} of {sorted(known)}; "
                         "overrides.platform in the policy file says what it was trained for")
    return head, known[fitting[0]]


def _state_dim(
    path: Path, shapes: Mapping[str, tuple[int, ...]], platform: Platform, statistics: Mapping[str, Statistics]
) -> int:
    """Size of the proprioception. Raises InputError if its projector is missing but its statistics exist."""
    if any(key.startswith(f"{PROPRIO}:") for key in shapes):
        return platform.state_dim
    if platform.state_dim and any(row.size for rows in statistics.values() for row in rows[STATE].values()):
        sizes = {"chunk": platform.chunk, "action_dim": platform.action_dim, "state_dim": 0,
                 "cameras": list(platform.cameras), "mode": platform.mode, "space": platform.space}
        raise InputError(f"checkpoint {path}: no {PROPRIO}--*_checkpoint.pt, expected it, as there are statistics of "
                         "proprioception; of a policy that was trained without, the policy file says so: overrides: "
                         f"{{platform: {json.dumps(sizes)}}}")
    return 0


def _statistics(path: Path, data: Mapping[str, Any], options: LoadOptions) -> tuple[dict[str, Statistics], str, bool]:
    """Dataset -> statistics of state and actions, only one if it is known; what is missing; whether the folder was
    fine-tuned, so that `dataset_statistics.json` replaces those of config.json."""
    file = path / "dataset_statistics.json"
    fine_tuned = file.exists()
    if given := options.statistics():
        return {str(options.overrides["statistics"]): given}, "", fine_tuned
    where = str(file) if fine_tuned else f"checkpoint {path}: config.json: norm_stats"
    said = read_mapping(file, "checkpoint") if fine_tuned else data.get("norm_stats") or {}
    sets = value_of(dict[str, dict[str, Any]], said, where)
    key = value_of(str | None, options.overrides.get("unnorm_key"), "overrides.unnorm_key")
    if key is None and len(sets) != 1:
        lacks = f"statistics of {shown(sorted(sets))}; overrides.unnorm_key says which to use" if sets else (
            "no norm_stats in config.json")
        return {name: _rows(row, f"{where}.{name}") for name, row in sets.items()}, lacks, fine_tuned
    key = next(iter(sets)) if key is None else key
    if key not in sets:
        raise InputError(f"{where}: no {shown(key)}, expected one of {sorted(sets)}: overrides.unnorm_key")
    return {key: _rows(sets[key], f"{where}.{key}")}, "", fine_tuned


def _rows(row: Mapping[str, Any], where: str) -> Statistics:
    """A dataset's statistics, with the mask as numbers. Raises InputError."""
    found = {}
    for feature, name in ((ACTION, "action"), (STATE, "proprio")):
        rows = value_of(dict[str, Any], row.get(name) or {}, f"{where}.{name}")
        found[feature] = {
            key: np.array(value_of(tuple[bool | float, ...], rows[key], f"{where}.{name}.{key}"), dtype=np.float64)
            for key in ("mean", "std", "min", "max", "q01", "q99", "mask") if rows.get(key) is not None
        }
    return found


def _cameras(own: Embodiment | None, options: LoadOptions, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the images in order: those of the folder's embodiment, or those of the usual ones that are mapped."""
    if own is not None:
        return tuple(own.cameras)
    mapped = options.embodiment.cameras if options.embodiment else usual
    return tuple(name for name in usual if name in mapped) or usual


def _unknown(config: OpenVLAConfig) -> Embodiment:
    """An embodiment without a robot, so that network and processor can run. An end effector's state is the sample's
    joints."""
    if config.space == "joint_position" or not config.state_dim:
        return nameless(config.cameras, config.state_dim, ["absolute"] * config.action_dim)
    state = tuple(f"state_{i}" for i in range(config.state_dim))
    return Embodiment(
        {name: name for name in config.cameras}, tuple(map(Dimension, state)),
        (Dimension(None),) * config.action_dim, hold=state,
    )


def _images(path: Path, data: Mapping[str, Any], names: tuple[str, ...], where: str) -> tuple[Statistics, str]:
    """Tower -> mean and std of its pixels, from preprocessor_config.json, and how images are resized."""
    file = path / "preprocessor_config.json"
    rows = read_mapping(file, "checkpoint")
    found = {}
    for said, name in (("means", "mean"), ("stds", "std")):
        values = value_of(tuple[tuple[float, float, float], ...], rows.get(said), f"{file}: {said}")
        if len(values) != len(names):
            raise InputError(f"{file}: {said} of {len(values)} towers, expected {len(names)}: {list(names)}")
        for tower, row in zip(names, values, strict=True):
            found.setdefault(tower, {})[name] = np.array(row)
    if not all((row["std"] > 0).all() for row in found.values()):
        raise InputError(f"{file}: stds {shown(rows['stds'])}, expected positive numbers")
    strategy = data.get("image_resize_strategy", "resize-naive")
    if strategy not in FITS:
        raise InputError(f"{where}: image_resize_strategy {shown(strategy)}, expected one of {sorted(FITS)}")
    kinds = rows.get("interpolations", ["bicubic"])
    if kinds != ["bicubic"] * len(names) and kinds != ["bicubic"]:
        raise InputError(f"{file}: interpolations {shown(kinds)}, expected bicubic")
    return found, FITS[strategy]


FAMILY = Family(
    "openvla", OpenVLAConfig, OpenVLA, OpenVLAProcessor, title="OpenVLA",
    layouts={
        "openvla": Layout(
            lambda config: config.get("model_type") == "openvla", _read, rename,
            overrides=("centre_crop", "head", "jpeg", "platform", "unnorm_key"), tensors=OpenVLAFolder,
        ),
    },
    fit="bicubic",
    normalisation="quantiles",
    overrides=("gripper", "num_steps", "prompt", "space", "text_length"),
    fresh=_fresh,
    begin=_write_actions_alone,
)
