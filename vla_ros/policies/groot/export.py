"""A GR00T N1.7 in the form of LeRobot 0.6.1."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.policies.formats.inverse import published
from vla_ros.policies.formats.lerobot_writer import DEVICE, FIRST, Form, joint_statistics
from vla_ros.policies.groot.config import GrootConfig
from vla_ros.policies.groot.export_base import FOLDER, base_files
from vla_ros.policies.groot.groups import Group, split_statistics
from vla_ros.policies.groot.metadata import NUMBERS
from vla_ros.policies.groot.model import Groot
from vla_ros.policies.groot.names import N1_7, PREFIX
from vla_ros.policies.groot.processor import GrootProcessor
from vla_ros.policies.groot.published import TUNED
from vla_ros.policies.groot.steps import DECODE, ENCODE, PACK, UNPACK
from vla_ros.policies.options import ACTION, STATE
from vla_ros.policies.processor import short_name

PATHS = {  # image path: LeRobot's switches
    "square": (False, False), "letterbox_square": (False, True), "shortest": (True, False), "letterbox": (True, True),
}
# Values that LeRobot treats as those of an N1.5, and changes.
CHANGED = {"max_state_dim": 64, "max_action_dim": 32, "chunk_size": 50, "valid_horizon": 50}
NOT_PUBLISHED = (
    "its network is not the published one: LeRobot finds its parts where it is started in the folder; that it finds no "
    f"weights in {FOLDER}/ is as it should be, model.safetensors has them"
)
KINDS = {"joints": ("NON_EEF", "DEFAULT"), "pose": ("EEF", "XYZ_ROT6D")}  # of a relative group: type and format


def to_lerobot(policy: Groot, processor: GrootProcessor) -> Form:
    """Raises InputError that names what LeRobot does not have."""
    config, tokenizer, embodiment = policy.config, processor.ask_tokenizer(), processor.embodiment
    _check(config)
    base, vlm, files = base_files(config, tokenizer)
    relative = any(group.relative for group in config.action_groups)
    fields = {name: getattr(config, name) for name in TUNED} | {
        "type": "groot", "n_obs_steps": 1, "chunk_size": config.chunk_size, "n_action_steps": config.valid_horizon,
        "max_state_dim": config.max_state_dim, "max_action_dim": config.max_action_dim, "base_model_path": base,
        "action_decode_transform": None, "embodiment_tag": config.embodiment_tag, "rtc_ramp_rate": config.ramp_rate,
        "num_inference_timesteps": config.num_steps, "use_flash_attention": False, "use_bf16": False,
        "model_params_fp32": True, "relative_exclude_joints": [],
        "use_relative_actions": relative or any(d.mode == "delta" for d in embodiment.actions),
    }  # fmt: skip
    restoring, statistics, packed, unpacked = _normalisation(processor)
    ordered = list(config.cameras) == sorted(config.cameras)
    pack = {
        "state_horizon": 1, "action_horizon": config.chunk_size, "valid_action_horizon": config.valid_horizon,
        "video_horizon": None, "max_state_dim": config.max_state_dim, "max_action_dim": config.max_action_dim,
        "language_key": "task", "formalize_language": config.formalise, "embodiment_tag": config.embodiment_tag,
        "embodiment_mapping": NUMBERS["n1.7"] | {config.embodiment_tag: config.embodiment}, "state_dropout_prob": 0.0,
        "video_modality_keys": None if ordered else [short_name(name) for name in config.cameras], **packed,
    }  # fmt: skip
    steps = FIRST | {PACK: pack, ENCODE: _images(config, vlm)} | DEVICE
    notes = () if not files else (NOT_PUBLISHED,)
    return Form(
        fields, steps, {"exact": ""}, _tensors(policy), files, notes=notes, stateful=(PACK, UNPACK),
        statistics=statistics, after={restoring: {"env_action_dim": len(embodiment.actions), **unpacked}},
    )  # fmt: skip


def _check(config: GrootConfig) -> None:
    if config.generation != "n1.7":
        raise InputError(f"export: generation {config.generation!r}, LeRobot 0.6.1 has 'n1.7' alone")
    for name, expected in (
        ("state_steps", (0,)), ("video_steps", (0,)), ("listed", False), ("projected", False),
        ("image_size", (config.image_size[0],) * 2),
    ):
        if (found := getattr(config, name)) != expected:
            raise InputError(f"export: {name} {found!r}, LeRobot's GR00T has {expected!r}")
    if config.image_path not in PATHS:
        raise InputError(f"export: image_path {config.image_path!r}, LeRobot's GR00T has {sorted(PATHS)}")
    for name, value in CHANGED.items():
        if getattr(config, name) == value:
            raise InputError(f"export: {name} {value}, which LeRobot takes for an N1.5's and changes")


def _images(config: GrootConfig, vlm: str) -> dict[str, Any]:
    """Settings of the step that resizes images, in LeRobot's own form if possible."""
    side, (albumentations, boxed) = config.image_size[0], PATHS[config.image_path]
    kept = round(side * config.crop)
    whole = kept / side == config.crop < 1
    return {
        "model_name": vlm, "image_crop_size": [kept, kept] if whole else None, "image_target_size": [side, side],
        "shortest_image_edge": None, "crop_fraction": None if whole else config.crop,
        "use_albumentations": albumentations, "letter_box_transform": boxed, "device": "cpu",
    }  # fmt: skip


Way = tuple[str, dict[str, dict[str, np.ndarray]], dict[str, Any], dict[str, Any]]


def _normalisation(processor: GrootProcessor) -> Way:
    """The step that restores actions, the statistics, and the settings of this step and of the normalising one."""
    config, ways = processor.config, {"state": processor.state, "action": processor.actions}
    groups = {"state": config.state_groups, "action": config.action_groups}
    for kind, way in ways.items():
        if way.missing:
            raise InputError(f"export: no statistics of the {kind}; name a file of them as overrides.statistics")
        if not groups[kind]:
            if way.mode not in ("min_max", "identity"):
                raise InputError(f"export: {kind} normalised by {way.mode}, LeRobot's GR00T has min_max")
            dimensions = processor.embodiment.state if kind == "state" else processor.embodiment.actions
            groups[kind] = (Group(kind, len(dimensions), way.mode),)
    if not _simple(groups):
        return _by_groups(config, groups, {kind: way.statistics for kind, way in ways.items()})
    [state], [action] = groups["state"], groups["action"]
    bounded = state.mode == "min_max"
    pack = {"normalize_min_max": bounded, "clip_outliers": state.clip, "use_percentiles": False, "raw_stats": {},
            "modality_config": {}}  # fmt: skip
    return UNPACK, joint_statistics(processor), pack, {
        "normalize_min_max": bounded, "clip_normalized_action": action.clip_back, "libero_gripper_action": False,
        "libero_gripper_binarize": True,
    }  # fmt: skip


def _by_groups(
    config: GrootConfig, groups: Mapping[str, Sequence[Group]], statistics: Mapping[str, Mapping[str, np.ndarray]]
) -> Way:
    """The same for several groups, whose statistics are in the JSON of the steps."""
    percentiles = _check_groups(groups)
    raw = {kind: _rows(groups[kind], statistics[kind]) for kind in groups}
    bounds = {"min": "q01", "max": "q99"} if percentiles else {}
    flat = {  # in the form of LeRobot's normalising step, one group after another
        feature: {name: np.concatenate([np.ravel(raw[kind][g.name][name if g.relative else bounds.get(name, name)])
                                        for g in groups[kind]]) for name in ("min", "max", "mean", "std")}
        for feature, kind in ((STATE, "state"), (ACTION, "action"))
    }  # fmt: skip
    raw["relative_action"] = {g.name: raw["action"][g.name] for g in groups["action"] if g.relative}
    for g in groups["action"]:  # for a relative group only the number of its actions is read here
        raw["action"][g.name] = {name: np.reshape(values, (-1, g.numbers))[0].tolist()
                                 for name, values in raw["action"][g.name].items()}  # fmt: skip
    modality = {
        "video": {"delta_indices": [0], "modality_keys": [short_name(name) for name in config.cameras]},
        "state": {"delta_indices": [0], "modality_keys": [g.name for g in groups["state"]]},
        "action": {"delta_indices": list(range(config.valid_horizon)),
                   "modality_keys": [g.name for g in groups["action"]],
                   "action_configs": [_about(group) for group in groups["action"]]},
        "language": {"delta_indices": [0], "modality_keys": ["task"]},
    }  # fmt: skip
    shared = {"raw_stats": raw, "modality_config": modality, "use_percentiles": percentiles}
    clips = {"normalize_min_max": True, "clip_outliers": groups["state"][0].clip}
    relative = any(g.relative for g in groups["action"])
    return DECODE, flat, shared | clips, shared | {"use_relative_action": relative, "action_decode_transform": None}


def _simple(groups: Mapping[str, Sequence[Group]]) -> bool:
    """Whether LeRobot's simple step is enough: one group each, of one mode."""
    alone = [kind for kind, each in groups.items() if [g.name for g in each] == [kind]]
    modes = {(g.mode, g.rotation, g.relative, g.difference) for each in groups.values() for g in each}
    return len(alone) == 2 and modes in ({("min_max", "", "", False)}, {("identity", "", "", False)})


def _check_groups(groups: Mapping[str, Sequence[Group]]) -> bool:
    """Whether percentiles are the bounds. Raises InputError for a group that LeRobot does not decode."""
    absolute = {g.mode for each in groups.values() for g in each if not g.relative}
    usual = "percentiles" if "percentiles" in absolute else "min_max"
    for kind, each in groups.items():
        for g in each:
            expected = "min_max" if g.relative else usual
            if (g.mode != expected or g.rotation or g.relative not in ("", *KINDS)
                    or kind == "action" and not g.clip_back or g.clip != groups["state"][0].clip):  # fmt: skip
                raise InputError(f"export: {kind} group {g.name!r} is {g.described()}, clip {g.clip}, clip_back "
                                 f"{g.clip_back}; LeRobot has {expected} of joints, or poses relative to the state, "
                                 "clipped alike")
    return usual == "percentiles"


def _rows(groups: Sequence[Group], statistics: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Statistics of each group; rows of a chunk with statistics of their own stay apart."""
    return {
        group.name: {name: (values if group.rows else values[0]).tolist() for name, values in row.items()}
        for group, row in zip(groups, split_statistics(groups, statistics), strict=True)
    }


def _about(group: Group) -> dict[str, Any]:
    kind, form = KINDS.get(group.relative, KINDS["joints"])
    rep = "RELATIVE" if group.relative else "DELTA" if group.difference else "ABSOLUTE"
    return {"rep": rep, "type": kind, "format": form, "state_key": group.reference or None}


def _tensors(policy: Groot) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in published(dict(_apart(policy.state_dict())), N1_7):
        if key.endswith("embed_tokens.weight"):  # LeRobot's file contains the head that is tied to it
            yield f"{PREFIX}backbone.model.lm_head.weight", tensor
            yield f"{PREFIX}{key.replace('embed_tokens', 'norm')}", torch.ones(tensor.shape[1])  # not read
        else:
            yield f"{PREFIX}{key}", tensor


def _apart(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Names of queries, keys and values, as blocks of one tensor, of the layers that attend to the features."""
    for name, tensor in state.items():
        match = re.fullmatch(r"(head\.layers\.\d+)\.(query|key_value)\.(.*)", name)
        if match is None:
            yield name, tensor
        elif match[2] == "query":
            yield f"{match[1]}.qkv.{match[3]}[0]", tensor
        else:
            yield from ((f"{match[1]}.qkv.{match[3]}[{n}]", part) for n, part in enumerate(tensor.chunk(2), 1))
