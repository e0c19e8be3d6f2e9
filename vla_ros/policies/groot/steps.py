"""LeRobot's own processor steps of GR00T, and the embodiment that they describe."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import check_only, value_of
from vla_ros.policies.formats.lerobot import LeRobotFolder
from vla_ros.policies.formats.lerobot_steps import POSTPROCESSOR, PREPROCESSOR, RELATIVE_STEPS
from vla_ros.policies.groot.groups import Group
from vla_ros.policies.groot.metadata import (
    NUMBERS,
    Said,
    chosen_tag,
    from_modalities,
    image_fields,
    joined,
    number_of,
)
from vla_ros.policies.options import ACTION, STATE
from vla_ros.policies.processor import short_name

PACK, ENCODE, DECODE, UNPACK = (
    "groot_n1_7_pack_inputs_v1", "groot_n1_7_vlm_encode_v1", "groot_n1_7_action_decode_v1",
    "groot_action_unpack_unnormalize_v2",
)
OLD_PACK, OLD_UNPACK = "groot_pack_inputs_v3", "groot_action_unpack_unnormalize_v1"
OLD_ENCODE = "groot_eagle_encode_v3", "groot_eagle_collate_v3"
OWN_STEPS = (PACK, ENCODE, DECODE, UNPACK, OLD_PACK, *OLD_ENCODE, OLD_UNPACK)
BOTH_PACK = ("state_horizon action_horizon max_state_dim max_action_dim language_key formalize_language embodiment_tag "
             "embodiment_mapping normalize_min_max")
# Allowed fields of each step's config: `get_config` of LeRobot 0.4 to 0.6.1, and switches that we read or check.
FIELDS = {name: frozenset(words.split()) for name, words in {
    PACK: f"{BOTH_PACK} valid_action_horizon video_horizon state_dropout_prob clip_outliers use_percentiles "
          "video_modality_keys raw_stats modality_config exclude_state use_mean_std",
    OLD_PACK: BOTH_PACK,
    ENCODE: "model_name image_crop_size image_target_size shortest_image_edge crop_fraction use_albumentations "
            "letter_box_transform device",
    DECODE: "env_action_dim raw_stats modality_config use_percentiles use_relative_action action_decode_transform "
            "clip_outliers apply_sincos_state_encoding exclude_state use_mean_std",
    UNPACK: "env_action_dim normalize_min_max clip_normalized_action libero_gripper_action libero_gripper_binarize",
    OLD_UNPACK: "env_action_dim normalize_min_max",
}.items()}
ONLY = {"language_key": "task", "state_horizon": 1, "exclude_state": False, "use_mean_std": False,
        "action_decode_transform": None, "libero_gripper_action": False}


def check_steps(folder: LeRobotFolder) -> None:
    """Raises InputError that names a field of GR00T's own steps that is unknown or has an unsupported value, or a
    step that is missing."""
    for steps, file, chains in (
        (folder.preprocessor, PREPROCESSOR, ((PACK, ENCODE), (OLD_PACK, *OLD_ENCODE))),
        (folder.postprocessor, POSTPROCESSOR, ((DECODE,), (UNPACK,), (OLD_UNPACK,))),
    ):
        own = tuple(step.name for step in steps if step.name in OWN_STEPS)
        if steps and own not in chains:
            raise InputError(f"{folder.path / file}: steps {list(own)}, expected "
                             f"{' or '.join(map(str, map(list, chains)))}")
    for step in (*folder.preprocessor, *folder.postprocessor):
        if step.name not in FIELDS:
            continue
        where = f"checkpoint {folder.path}: {step.name}"
        if unknown := sorted(set(step.config) - FIELDS[step.name]):
            raise InputError(f"{where}: unknown fields {unknown}, expected some of {sorted(FIELDS[step.name])}; they "
                             "may change what the policy computes, so it is not loaded with them")
        check_only(step.config, ONLY, where)
    _check_pair(folder)


def _check_pair(folder: LeRobotFolder) -> None:
    """Raises InputError unless the step that restores actions uses the same settings as the one that normalises
    them."""
    before = next((step for step in folder.preprocessor if step.name in (PACK, OLD_PACK)), None)
    after = next((step for step in folder.postprocessor if step.name in (UNPACK, OLD_UNPACK)), None)
    if before is None or after is None:
        return
    where = f"checkpoint {folder.path}: {after.name}"
    size = after.config.get("env_action_dim")
    if size not in (None, 0, folder.action_dim):
        raise InputError(f"{where}.env_action_dim: {shown(size)}, expected {folder.action_dim}, as many as the actions")
    first, second = (step.config.get("normalize_min_max", True) for step in (before, after))
    if first != second:
        raise InputError(f"{where}.normalize_min_max: {shown(second)}, expected {shown(first)} as in {before.name}")
    for name in ("min", "max") if first else ():
        rows = [step.state.get(f"{ACTION}.{name}") for step in (before, after)]
        if (rows[0] is None) != (rows[1] is None) or rows[0] is not None and not np.array_equal(*rows, equal_nan=True):
            raise InputError(f"{where}: {ACTION}.{name} is not that of {before.name}, expected the same")


def _numbered(
    folder: LeRobotFolder, generation: str, packed: Mapping[str, Any], tag: Any, where: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Tag and number of the embodiment, and notes. A tag of the folder that is not in its table has number 0, as
    in LeRobot; one that the policy file names must be known."""
    said = packed.get("embodiment_mapping") or {}
    if tag is not None:
        tag = chosen_tag(tag, (), where)
        return {"embodiment_tag": tag, "embodiment": number_of(generation, tag, said, where)}, ()
    tag = value_of(str, packed.get("embodiment_tag") or folder.config.get("embodiment_tag"), f"{where}.embodiment_tag")
    table = value_of(dict[str, int], said, f"{where}.embodiment_mapping") or NUMBERS[generation]
    notes = () if tag in table else (
        f"embodiment_tag {tag!r} is not one of {sorted(table)}: number 0, as in LeRobot",)
    return {"embodiment_tag": tag, "embodiment": table.get(tag, 0)}, notes


def lerobot_n1_7(folder: LeRobotFolder, tag: Any) -> Said:
    """Raises InputError. `tag`: the embodiment that the policy file names, or None."""
    where = f"checkpoint {folder.path}: {PACK}"
    pack, decode = folder.step(PACK), next((s for s in folder.postprocessor if s.name == DECODE), None)
    packed, encode = pack.config if pack else {}, folder.step(ENCODE)
    image = {"use_albumentations": False} | dict(encode.config if encode else {})
    numbered, notes = _numbered(folder, "n1.7", packed, tag, where)
    fields = image_fields(image, False, f"checkpoint {folder.path}: {ENCODE}") | numbered | {
        "formalise": value_of(bool, packed.get("formalize_language", True), f"{where}.formalize_language"),
        "cameras": _cameras(folder, packed, where),
        "chunk_size": packed.get("action_horizon", folder.config.get("chunk_size", 40)),
    }
    if packed.get("valid_action_horizon") is not None:
        fields["valid_rows"] = packed["valid_action_horizon"]
    raw, modality = packed.get("raw_stats") or {}, packed.get("modality_config") or {}
    if decode is not None:
        raw, modality = decode.config.get("raw_stats") or raw, decode.config.get("modality_config") or modality
        switches = {"use_relative_action": True} | dict(packed) | dict(decode.config)
        place = f"checkpoint {folder.path}: {DECODE}"
        modality, raw = (value_of(dict[str, dict], said, place) for said in (modality, raw))
        more, rows = from_modalities(modality, raw, switches, place)
        return Said(more | fields, rows, notes=notes)
    if folder.config.get("use_relative_actions") and not any(s.name in RELATIVE_STEPS for s in folder.preprocessor):
        raise InputError(f"checkpoint {folder.path}: use_relative_actions, but no step {DECODE} that says relative to "
                         "what: expected one in policy_postprocessor.json")
    if packed.get("use_percentiles"):
        raise InputError(f"{where}.use_percentiles: true without {DECODE}, expected false")
    unpack = next((step for step in folder.postprocessor if step.name == UNPACK), None)
    unpacked = unpack.config if unpack else {}
    clips = packed.get("clip_outliers", True), unpacked.get("clip_normalized_action", True)
    return replace(_simple(folder, fields, pack, *clips), notes=notes)


def lerobot_n1_5(folder: LeRobotFolder, tag: Any) -> Said:
    """Like `lerobot_n1_7`."""
    where = f"checkpoint {folder.path}: {OLD_PACK}"
    pack = folder.step(OLD_PACK)
    packed = pack.config if pack else {}
    numbered, notes = _numbered(folder, "n1.5", packed, tag, where)
    fields = numbered | {
        "formalise": value_of(bool, packed.get("formalize_language", False), f"{where}.formalize_language"),
        "cameras": _cameras(folder, {}, where), "image_path": "lerobot", "crop": 1.0, "listed": True,
        "chunk_size": min(value_of(int, packed.get("action_horizon", 16), f"{where}.action_horizon"), 16),
    }
    return replace(_simple(folder, fields, pack, False, False), notes=notes)


def _simple(folder: LeRobotFolder, fields: dict[str, Any], pack: Any, clip_state: Any, clip_actions: Any) -> Said:
    """One group of states and one of actions, normalised by their bounds."""
    where = f"checkpoint {folder.path}: {pack.name if pack else PACK}"
    mode = "min_max" if pack is None or pack.config.get("normalize_min_max", True) else "identity"
    groups = {}
    for name, size, clip in (("state", folder.state_dim, clip_state), ("action", folder.action_dim, clip_actions)):
        clip = value_of(bool, clip, f"{where}: clip")
        groups[f"{name}_groups"] = (Group(name, size, mode, *[clip and mode == "min_max"] * 2),) if size else ()
    rows: dict[str, dict[str, Any]] = {STATE: {}, ACTION: {}}
    for key, value in (pack.state if pack else {}).items():
        feature, _, name = key.rpartition(".")
        if feature in rows:
            rows[feature][name] = np.asarray(value, dtype=np.float64).reshape(-1).tolist()
    lacks, found = "", {}
    for feature, group in ((STATE, groups["state_groups"]), (ACTION, groups["action_groups"])):
        if group and mode != "identity" and not {"min", "max"} <= rows[feature].keys():
            lacks = f"{feature} is normalised by {mode}, but its statistics lack ['min', 'max']"
        else:
            found[feature] = joined(group, {one.name: rows[feature] for one in group}, where)
    return Said(fields | groups, {} if lacks else found, lacks)


def _cameras(folder: LeRobotFolder, packed: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Cameras in the order of the checkpoint's keys, if it has one, else by name."""
    names = sorted(feature.name for feature in folder.images)
    keys = value_of(list[str], packed.get("video_modality_keys") or [], f"{where}.video_modality_keys")
    if not keys:
        return tuple(names)
    short = {short_name(name): name for name in names} | {name: name for name in names}
    missing = [key for key in keys if key not in short]
    if missing:
        raise InputError(f"{where}.video_modality_keys: {missing}, expected some of {names}")
    return tuple(short[key] for key in keys)
