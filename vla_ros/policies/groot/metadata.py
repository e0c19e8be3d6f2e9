"""The description of an embodiment in the original's files: cameras, groups, statistics, images, and its number.

N1 and N1.5 have `experiment_cfg/metadata.json`, N1.6 and N1.7 `processor_config.json`, `statistics.json` and
`embodiment_id.json`; LeRobot's N1.7 has the same mappings in its processor's steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Count, Pixels, Range, read_mapping, value_of
from vla_ros.policies.groot.groups import MODES, ROTATIONS, SIX, Group, bounds, regrouped
from vla_ros.policies.options import ACTION, STATE

Statistics = dict[str, dict[str, np.ndarray]]

# Numbers of the embodiments in the published networks, if no file contains them.
OLD = {"gr1": 24, "oxe_droid": 17, "agibot_genie1": 26, "new_embodiment": 31, "so100": 2, "unitree_g1": 3}
NUMBERS = {
    "n1": {"gr1": 24, "new_embodiment": 31}, "n1.5": OLD,
    "n1.6": {"oxe_google": 0, "oxe_widowx": 1, "libero_panda": 2, "unitree_g1": 8, "new_embodiment": 10,
             "robocasa_panda_omron": 13, "oxe_droid": 16, "gr1": 20, "behavior_r1_pro": 24},
    "n1.7": {"simpler_env_google": 0, "simpler_env_widowx": 1, "libero_sim": 2, "new_embodiment": 10,
             "oxe_droid_relative_eef_relative_joint": 24, "xdof_relative_eef_relative_joint": 27,
             "xdof_relative_eef_relative_joint_subtask": 27, "real_g1_relative_eef_relative_joints": 25,
             "unitree_g1_full_body_with_waist_height_nav_cmd": 25, "real_r1_pro_sharpa_relative_eef": 26,
             "real_r1_pro_sharpa_relative_eef_human": 26, "real_r1_pro_sharpa_relative_eef_maxinsights": 26,
             "real_r1_pro_sharpa_relative_eef_mecka": 26},
}
Shape = Annotated[tuple[Count, ...], Range(1, 1)]
STATISTICS = ("min", "max", "mean", "std", "q01", "q99")


@dataclass(frozen=True)
class Said:
    """Description of one embodiment.

    Attributes:
        fields: of `GrootConfig`.
        statistics: of state and action, one group after another; {} if there are none.
        lacks: why there are none.
        rates: distinct frame rates of its cameras, Hz; () if no file contains them.
        unserved: ("state" or "action", group) -> why the group cannot be used on a robot.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=dict)
    lacks: str = ""
    rates: tuple[float, ...] = ()
    unserved: Mapping[tuple[str, str], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def number_of(generation: str, tag: str, said: Mapping[str, Any], where: str) -> int:
    """The embodiment's number, preferably from the checkpoint's own table. Raises InputError."""
    table = NUMBERS[generation] | value_of(dict[str, int], said, where)
    if tag not in table:
        raise InputError(f"{where}: embodiment_tag {shown(tag)}, expected one of {sorted(table)}; set "
                         "overrides.embodiment_tag in the policy file")
    return table[tag]


def chosen_tag(given: Any, known: Sequence[str], where: str) -> str:
    """The embodiment that the policy file names, else the only one in the checkpoint. Raises InputError."""
    if given is not None:
        return value_of(str, given, "overrides.embodiment_tag")
    if len(known) != 1:
        raise InputError(f"{where}: embodiments {sorted(known)}; set overrides.embodiment_tag in the policy file to "
                         "the robot's own, or to 'new_embodiment' to train one")
    return known[0]


def from_metadata(path: Path, generation: str, overrides: Mapping[str, Any]) -> Said:
    """N1's and N1.5's `experiment_cfg/metadata.json`, whose groups the policy file may select. Raises InputError."""
    file = path / "experiment_cfg" / "metadata.json"
    rows = read_mapping(file, "checkpoint") if file.exists() else {}
    tag = chosen_tag(overrides.get("embodiment_tag"), tuple(rows) or ("new_embodiment",), str(file))
    fields = {"embodiment_tag": tag, "embodiment": number_of(generation, tag, {}, str(file))}
    if tag not in rows:
        return Said(fields, lacks=f"{file} has no {tag!r}, only {sorted(rows)}")
    where = f"{file}: {tag}"
    row = value_of(dict[str, Any], rows[tag], where)
    modalities = value_of(dict[str, dict], row.get("modalities"), f"{where}.modalities")
    statistics = value_of(dict[str, dict[str, dict]], row.get("statistics"), f"{where}.statistics")
    video = value_of(dict[str, dict], modalities.get("video"), f"{where}.modalities.video")
    found: dict[str, tuple[Group, ...]] = {}
    unserved: dict[tuple[str, str], str] = {}
    for kind in ("state", "action"):
        groups = []
        for name, about in value_of(dict[str, dict], modalities.get(kind), f"{where}.modalities.{kind}").items():
            place = f"{where}.modalities.{kind}.{name}"
            size = value_of(Shape, about.get("shape"), f"{place}.shape")
            rotation = value_of(str | None, about.get("rotation_type"), f"{place}.rotation_type")
            if rotation is not None and rotation not in ROTATIONS:
                raise InputError(f"{place}.rotation_type: {shown(rotation)}, expected one of {sorted(ROTATIONS)}")
            absolute = value_of(bool, about.get("absolute", True), f"{place}.absolute")
            if kind == "state" and not absolute:
                unserved[kind, name] = "absolute false, expected true: to what the state is a difference is not in "\
                                       f"the folder; leave the group out of overrides.{kind}_groups"
            # GR1's states are angles, which Isaac's data configuration converts to sines and cosines.
            mode = "sin_cos" if (tag, kind) == ("gr1", "state") and rotation is None else "min_max"
            form = ROTATIONS[rotation] if rotation else ""
            seen = SIX if form and kind == "state" and absolute else ""
            difference = kind == "action" and not absolute
            groups.append(Group(name, size[0], mode, rotation=form, difference=difference, seen=seen))
        found[kind] = regrouped(groups, overrides.get(f"{kind}_groups"), f"overrides.{kind}_groups", chooses=True)
    rates = {value_of(float, about["fps"], f"{where}.modalities.video") for about in video.values() if about.get("fps")}
    fields |= {"cameras": tuple(video), "state_groups": found["state"], "action_groups": found["action"]}
    notes = ("the folder does not contain the groups, their order and normalisation: those of metadata.json are "
             "used, as in Isaac's usual data configurations; overrides.state_groups and action_groups set others",)
    rows = {}
    for kind, groups in found.items():
        fixed = {group.name: bounds(group) for group in groups if group.turned}
        rows[kind] = joined(groups, statistics.get(kind, {}) | fixed, f"{where}.statistics.{kind}")
    return Said(fields, {STATE: rows["state"], ACTION: rows["action"]}, rates=tuple(sorted(rates)), unserved=unserved,
                notes=notes)


def from_processor(path: Path, generation: str, overrides: Mapping[str, Any]) -> Said:
    """N1.6's and N1.7's three files. Raises InputError."""
    file, tag = path / "processor_config.json", overrides.get("embodiment_tag")
    if not file.exists():
        tag = chosen_tag(tag, ("new_embodiment",), str(file))
        return Said({"embodiment_tag": tag, "embodiment": number_of(generation, tag, {}, str(file))},
                    lacks=f"no {file.name}")
    said = value_of(dict[str, Any], read_mapping(file, "checkpoint").get("processor_kwargs"),
                    f"{file}: processor_kwargs")
    modalities = value_of(dict[str, dict], said.get("modality_configs") or {}, f"{file}: modality_configs")
    numbers, statistics = (
        read_mapping(path / name, "checkpoint") if (path / name).exists() else {}
        for name in ("embodiment_id.json", "statistics.json")
    )
    tag = chosen_tag(tag, tuple(modalities), str(file))
    fields = image_fields(said, generation == "n1.6", str(file)) | {
        "embodiment_tag": tag, "embodiment": number_of(generation, tag, numbers, str(path / "embodiment_id.json")),
        "formalise": value_of(bool, said.get("formalize_language", True), f"{file}: formalize_language"),
    }
    if tag not in modalities or tag not in statistics:
        return Said(fields, lacks=f"{file.name} and statistics.json have no {tag!r}, only {sorted(modalities)}")
    where = f"{file}: modality_configs.{tag}"
    found = value_of(dict[str, dict], statistics[tag], f"{path / 'statistics.json'}: {tag}")
    more, rows = from_modalities(modalities[tag], found, said, where)
    return Said(fields | more, rows)


def from_modalities(
    row: Mapping[str, Any], statistics: Mapping[str, Any], said: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], Statistics]:
    """Fields and statistics of `modality_configs[tag]` and `statistics[tag]`, with the switches of the processor."""
    switch = {name: value_of(bool, said.get(name, default), f"{where}: {name}") for name, default in (
        ("use_percentiles", False), ("clip_outliers", True), ("apply_sincos_state_encoding", False),
        ("use_relative_action", False),
    )}
    for name in ("use_mean_std", "exclude_state"):
        if said.get(name):
            raise InputError(f"{where}: {name} {shown(said[name])}, expected false: nothing else is supported")
    usual = "percentiles" if switch["use_percentiles"] else "min_max"
    modality = {kind: value_of(dict[str, Any], row.get(kind) or {}, f"{where}.{kind}")
                for kind in ("video", "state", "action")}
    keys = {kind: value_of(tuple[str, ...], about.get("modality_keys") or (), f"{where}.{kind}.modality_keys")
            for kind, about in modality.items()}
    steps = {kind: value_of(tuple[int, ...], about.get("delta_indices") or (0,), f"{where}.{kind}.delta_indices")
             for kind, about in modality.items()}
    configs = value_of(list[dict], modality["action"].get("action_configs") or [{}] * len(keys["action"]),
                       f"{where}.action.action_configs")
    if len(configs) != len(keys["action"]):
        raise InputError(f"{where}.action: {len(configs)} action_configs, expected one for each of {keys['action']}")
    groups: dict[str, list[Group]] = {"state": [], "action": []}
    sources: dict[str, dict[str, Any]] = {"state": {}, "action": {}}
    for kind in groups:
        about = modality[kind]
        sin_cos, mean_std = (
            value_of(tuple[str, ...], about.get(name) or (), f"{where}.{kind}.{name}")
            for name in ("sin_cos_embedding_keys", "mean_std_embedding_keys")
        )
        found = value_of(dict[str, dict], statistics.get(kind) or {}, f"{where}: statistics.{kind}")
        relatives = value_of(dict[str, dict], statistics.get("relative_action") or {}, f"{where}: relative_action")
        for name, config in zip(keys[kind], configs if kind == "action" else [{}] * len(keys[kind]), strict=True):
            place = f"{where}: {kind} {name!r}"
            if name not in found:
                raise InputError(f"{place}: no statistics, only of {sorted(found)}")
            size = len(value_of(list, found[name].get("min"), f"{place}: statistics.min"))
            relative, rows, mode = "", 0, usual
            if switch["apply_sincos_state_encoding"] and kind == "state" and name in sin_cos:
                mode = "sin_cos"
            elif name in mean_std:
                mode = "mean_std_passed"
            sources[kind][name] = found[name]
            if config.get("rep", "ABSOLUTE") not in ("ABSOLUTE", "RELATIVE", "DELTA"):
                raise InputError(f"{place}: rep {shown(config['rep'])}, expected ABSOLUTE, RELATIVE or DELTA")
            if config.get("rep") == "RELATIVE" and switch["use_relative_action"]:
                if name not in relatives:
                    raise InputError(f"{place}: no statistics in relative_action, only of {sorted(relatives)}")
                relative = _relative(config, place)
                sources[kind][name] = relatives[name]
                low = relatives[name].get("min")
                rows = len(low) if isinstance(low, list) and low and isinstance(low[0], list) else 0
                mode = "min_max" if mode == "percentiles" else mode
            bounded = mode in ("min_max", "percentiles")
            reference = value_of(str, config.get("state_key") or name, f"{place}: state_key") if relative else ""
            groups[kind].append(Group(name, size, mode, bounded and switch["clip_outliers"], bounded, "", relative,
                                      reference, rows, config.get("rep") == "DELTA"))
    valid = len(steps["action"])
    if modality["action"] and steps["action"] != tuple(range(valid)):
        raise InputError(f"{where}.action.delta_indices: {shown(list(steps['action']))}, expected 0, 1, 2 and so on")
    fields = {
        "cameras": keys["video"], "state_groups": tuple(groups["state"]), "action_groups": tuple(groups["action"]),
        "video_steps": steps["video"], "state_steps": steps["state"], "valid_rows": valid,
    }
    rows = {feature: joined(groups[kind], sources[kind], f"{where}: statistics.{kind}")
            for kind, feature in (("state", STATE), ("action", ACTION))}
    return fields, rows


def joined(groups: Sequence[Group], rows: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """Statistics of all groups, one after another; those that a group's mode does not need are filled.

    Raises InputError for values that are not numbers, or not as many as the group has.
    """
    result: dict[str, list[np.ndarray]] = {name: [] for name in STATISTICS}
    for group in groups:
        row = value_of(dict[str, Any], rows.get(group.name) or {}, f"{where}.{group.name}")
        for name in STATISTICS:
            if name not in row or row[name] is None:
                if name in MODES[group.mode]:
                    raise InputError(f"{where}.{group.name}: no {name!r}, only {sorted(row)}")
                values = np.full(group.count, {"mean": 0.0, "std": 1.0, "max": 1.0, "q99": 1.0}.get(name, -1.0))
            else:
                kind = list[list[float]] if group.rows else list[float]
                nested = value_of(kind, row[name], f"{where}.{group.name}.{name}")
                values = np.array([n for part in nested for n in part] if group.rows else nested, dtype=np.float64)
            if len(values) != group.count:
                raise InputError(f"{where}.{group.name}.{name}: {len(values)} numbers, expected {group.count}")
            result[name].append(values)
    return {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in result.items()}


def image_fields(said: Mapping[str, Any], old: bool, where: str) -> dict[str, Any]:
    """How images are resized; `old`: N1.6, whose images are padded to squares unless a file says otherwise."""
    boxed = value_of(bool, said.get("letter_box_transform", old), f"{where}: letter_box_transform")
    if value_of(bool, said.get("use_albumentations", True), f"{where}: use_albumentations"):
        edge, path = said.get("shortest_image_edge"), "letterbox" if boxed else "shortest"
    else:
        edge, path = None, "letterbox_square" if boxed else "square"
    target, crop = said.get("image_target_size"), said.get("crop_fraction")
    size = value_of(tuple[Pixels, Pixels], target or (256, 256), f"{where}: image_target_size")
    if edge is not None:
        size = (value_of(Pixels, edge, f"{where}: shortest_image_edge"),) * 2
    if crop is None:
        cropped = said.get("image_crop_size")
        crop = value_of(tuple[Pixels, Pixels], cropped, f"{where}: image_crop_size")[0] / size[0] if cropped else 1.0
    return {"image_path": path, "image_size": size, "crop": crop}


def _relative(config: Mapping[str, Any], where: str) -> str:
    if config.get("type") == "NON_EEF":
        return "joints"
    forms = {"XYZ_ROT6D": "pose", "XYZ_ROTVEC": "pose_vector"}
    if config.get("type") != "EEF" or config.get("format") not in [*forms]:
        raise InputError(f"{where}: type {shown(config.get('type'))}, format {shown(config.get('format'))}, expected "
                         f"NON_EEF, or EEF in one of {sorted(forms)}")
    return forms[config["format"]]
