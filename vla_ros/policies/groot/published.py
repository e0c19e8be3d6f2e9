"""Published folders of GR00T: NVIDIA's, and LeRobot's of N1.5 (its releases 0.4 and 0.5) and N1.7 (0.6)."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.files import inside
from vla_ros.core.records import check_only, read_mapping, value_of
from vla_ros.policies.dimension import Dimension
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.family import Family
from vla_ros.policies.formats.adapter import open_tensors
from vla_ros.policies.formats.lerobot import Feature, LeRobotFolder, check_fields, read_folder
from vla_ros.policies.formats.lerobot_robot import find_embodiment
from vla_ros.policies.groot.config import GENERATIONS, GrootConfig
from vla_ros.policies.groot.groups import by_name, regrouped
from vla_ros.policies.groot.metadata import Said, from_metadata, from_processor
from vla_ros.policies.groot.names import PREFIX
from vla_ros.policies.groot.sizes import PUBLISHED, head_fields, known, vlm_fields
from vla_ros.policies.groot.steps import OWN_STEPS, check_steps, lerobot_n1_5, lerobot_n1_7
from vla_ros.policies.normalisation import Normalisation, Statistics
from vla_ros.policies.options import ACTION, STATE, LoadOptions, Parts, no_folder, read_config

MODEL_TYPES = {"gr00t_n1": "n1", "gr00t_n1_5": "n1.5", "Gr00tN1d6": "n1.6", "Gr00tN1d7": "n1.7"}
TUNED = ("tune_llm", "tune_visual", "tune_projector", "tune_diffusion_model", "tune_vlln", "tune_top_llm_layers")
LEROBOT_FIELDS = frozenset((
    "n_obs_steps chunk_size n_action_steps max_state_dim max_action_dim normalization_mapping input_features "
    "output_features base_model_path action_decode_transform embodiment_tag "
    "num_inference_timesteps rtc_ramp_rate use_flash_attention use_relative_actions relative_exclude_joints "
    "warmup_ratio use_bf16 model_params_fp32 image_size tokenizer_assets_repo lora_rank lora_alpha lora_dropout "
    "lora_full_model video_backend balance_dataset_weights balance_trajectory_weights dataset_paths output_dir "
    "save_steps max_steps batch_size dataloader_num_workers report_to resume " + " ".join(TUNED)
).split())


def is_nvidia(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is NVIDIA's."""
    return _generation(config) is not None or known(config) and "type" not in config


def _generation(config: Mapping[str, Any]) -> str | None:
    return next((ours for theirs, ours in MODEL_TYPES.items() if config.get("model_type") == theirs), None)


def read_nvidia(family: Family, path: Path, options: LoadOptions) -> tuple[GrootConfig, Parts]:
    """Raises InputError."""
    data, where = read_config(path), f"checkpoint {path}: config.json"
    generation = _generation(data)
    if generation is None:
        head = value_of(dict[str, Any], data.get("action_head_cfg"), f"{where}: action_head_cfg")
        generation = "n1.5" if "vl_self_attention_cfg" in head or "use_vlln" in head else "n1"
    shapes = open_tensors(path, options.base)[0].shapes
    fields = _vlm(generation, path, options) | head_fields(generation, data, where)
    if generation == "n1.5" and not any(key.endswith("future_tokens.weight") for key in shapes):
        raise InputError(f"checkpoint {path}: no action_head.future_tokens.weight: a port of N1.5 without the "
                         "published network's future tokens, which gives other actions; expected Isaac GR00T's or "
                         "LeRobot's form")
    read = from_metadata if generation in ("n1", "n1.5") else from_processor
    said = read(path, generation, options.overrides)
    if generation in ("n1", "n1.5"):
        fields["listed"] = generation == "n1.5"
    return _finished(path, {**GENERATIONS[generation], **fields, **said.fields}, said, options, where)


def read_lerobot(family: Family, path: Path, options: LoadOptions) -> tuple[GrootConfig, Parts]:
    """Raises InputError."""
    data, where = read_config(path), f"checkpoint {path}: config.json"
    folder, shapes = read_folder(path, data, OWN_STEPS), open_tensors(path, options.base)[0].shapes
    check_fields(data, LEROBOT_FIELDS, path)
    check_only(data, {"n_obs_steps": 1, "action_decode_transform": None, "lora_rank": 0}, where)
    generation = "n1.7" if any(".visual." in key for key in shapes) else "n1.5"
    shapes = {key.removeprefix(PREFIX): shape for key, shape in shapes.items()}
    fields = _vlm(generation, path, options) | _head_of_shapes(generation, shapes, path, options)
    fields |= {name: data[name] for name in TUNED if name in data}
    for theirs, ours in (("num_inference_timesteps", "num_steps"), ("rtc_ramp_rate", "ramp_rate")):
        if data.get(theirs) is not None:
            fields[ours] = data[theirs]
    check_steps(folder)
    said = (lerobot_n1_7 if generation == "n1.7" else lerobot_n1_5)(folder, options.overrides.get("embodiment_tag"))
    fields = {**GENERATIONS[generation], **fields, **said.fields}
    return _finished(path, fields, said, options, where, folder)


def _finished(
    path: Path, fields: dict[str, Any], said: Said, options: LoadOptions, where: str,
    folder: LeRobotFolder | None = None,
) -> tuple[GrootConfig, Parts]:
    """Sizes and parts; the robot's numbers come from the folder, the policy file or the robot file."""
    given, names = options.embodiment, options.names
    own = (len(names[1]), len(names[1]) - len(options.hold)) if names else (1, 1)
    whole = (len(given.state), len(given.actions)) if given else own
    state, actions = (
        sum(group.size for group in fields.get(f"{kind}_groups", ())) or size
        for kind, size in zip(("state", "action"), whole, strict=True)
    )
    fields.setdefault("cameras", tuple(given.cameras) if given else names[2] if names else ("image",))
    fields |= {"state_dim": state, "real_action_dim": actions}
    for name in ("state_groups", "action_groups"):
        fields[name] = regrouped(fields.get(name, ()), options.overrides.get(name), f"overrides.{name}")
    sizes = GrootConfig.from_dict(fields, where)
    statistics = dict(said.statistics)
    if (file := options.statistics()) is not None:
        statistics = {feature: file[feature] for feature in (STATE, ACTION)}
    poses = [g.name for g in sizes.action_groups if g.rotation or g.relative.startswith("pose") or _is_pose(g.name)]
    if poses and given is None and names is not None:
        raise InputError(f"checkpoint {path}: actions {poses} are poses of an end effector, which a robot of joints "
                         "cannot follow; say in a policy file which dimensions are joints")
    features = {STATE: Feature(STATE, "STATE", (state,)), **{name: Feature(name, "VISUAL", (3, 1, 1))
                                                             for name in sizes.cameras}}
    told = folder or LeRobotFolder(path, {}, features, {ACTION: Feature(ACTION, "ACTION", (actions,))}, {})
    told = replace(told, config={**told.config, "use_relative_actions": False})  # the groups define what is relative
    if options.serves:
        for kind, groups in (("state", sizes.state_groups), ("action", sizes.action_groups)):
            for group in groups:
                if why := said.unserved.get((kind, group.name)):
                    raise InputError(f"checkpoint {path}: {kind} {group.name!r}: {why}")
    if said.rates and options.step_dt is None:
        if len(said.rates) == 1:
            options = replace(options, step_dt=1 / said.rates[0])
        elif options.serves and options.data is None and not (given and given.step_dt):
            raise InputError(f"checkpoint {path}: cameras of {list(said.rates)} frames per second, expected one rate; "
                             "set step_dt, the time between action rows, in the policy file")
    differences = [i for i, g in enumerate(g for g in sizes.action_groups for _ in range(g.size)) if g.difference]
    embodiment = find_embodiment(told, sizes.cameras, options, {}, differences, usual=folder is not None)
    if not options.serves and not (path / "embodiment.yaml").exists():
        embodiment = _with_starts(embodiment, sizes)
    lacks = "" if statistics else said.lacks
    carried: Statistics = {feature: statistics.get(feature, {}) for feature in (STATE, ACTION)}
    modes = (Normalisation("min_max", carried[feature], "lerobot") for feature in (STATE, ACTION))
    return sizes, Parts(embodiment, *modes, {}, "exact", no_statistics=lacks, notes=said.notes)


def _with_starts(embodiment: Embodiment, sizes: GrootConfig) -> Embodiment:
    """For a policy without a robot: assigns to relative actions the numbers of the state that they are added to;
    rotations are taken from a sample as they are."""
    first = by_name(sizes.state_groups, np.arange(len(embodiment.state)))
    own = by_name(sizes.action_groups, np.arange(len(embodiment.actions)))
    starts = {int(start): embodiment.actions[number] for group in sizes.action_groups if group.relative
              for start, number in zip(first[group.reference], own[group.name], strict=True)}
    state = [starts.get(i, Dimension(None)) for i in range(len(embodiment.state))] if starts else [*embodiment.state]
    turned = [i for group in sizes.state_groups if group.turned for i in first[group.name] if state[i].joint is None]
    for i in turned:
        state[i] = Dimension(f"state_{i}")
    return replace(embodiment, state=tuple(state), hold=(*embodiment.hold, *(state[i].joint for i in turned)))


def _is_pose(name: str) -> bool:
    return name in ("x", "y", "z", "roll", "pitch", "yaw") or bool(re.search(r"eef|end_effector", name))


def _vlm(generation: str, path: Path, options: LoadOptions) -> dict[str, Any]:
    """Sizes from the vision-language model's own config.json, if it exists, else the published ones."""
    places = [Path(options.tokenizer)] if options.tokenizer else []
    for place in (*places, path / "vlm"):
        file = place / "config.json"
        if place.is_dir() and file.exists() and "vision_config" in (found := read_mapping(file, "checkpoint")):
            return vlm_fields(generation, found, str(file))
    return vlm_fields(generation, PUBLISHED[generation], "published sizes")


def _head_of_shapes(
    generation: str, shapes: Mapping[str, tuple[int, ...]], path: Path, options: LoadOptions
) -> dict[str, Any]:
    """The action head, whose sizes are not in LeRobot's config.json: from the tensors, or from the base model's folder,
    which `overrides.base_model_path` names, or config.json if it is in the checkpoint."""
    file = None
    if (base := options.overrides.get("base_model_path")) is not None:
        if not (folder := Path(str(base))).is_dir():
            raise InputError(f"overrides.base_model_path {str(base)!r}: {no_folder(folder)}")
        file = folder / "config.json"
    with suppress(InputError):  # usually a name on the hub, or a path of the training machine
        own = inside(path, read_config(path).get("base_model_path"), "base_model_path") / "config.json"
        file = file or (own if own.is_file() else None)
    if file is not None:
        return head_fields(generation, read_mapping(file, "base model"), str(file))

    def layers(pattern: str) -> int:
        return len({match[1] for key in shapes if (match := re.match(pattern, key))})

    head = "action_head."
    try:
        number, state, hidden = shapes[f"{head}state_encoder.layer1.W"]
        width = shapes[f"{head}state_encoder.layer2.W"][2]
        feature = shapes[f"{head}model.transformer_blocks.0.attn1.to_k.weight"][1]
        fields = {
            "embodiments": number, "max_state_dim": state, "hidden": hidden, "width": width, "feature_dim": feature,
            "max_action_dim": shapes[f"{head}action_decoder.layer2.W"][2],
            "max_seq_len": shapes[f"{head}position_embedding.weight"][0],
        }
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"checkpoint {path}: its tensors are not those of a GR00T: {error}") from error
    if width % 48 or feature % 64:
        raise InputError(f"checkpoint {path}: a head of width {width} over features of {feature}: how many attention "
                         "heads it has is in the config.json of its base model; name that folder in "
                         "overrides.base_model_path")
    future = shapes.get(f"{head}future_tokens.weight", (0,))[0]
    if generation == "n1.5" and not future:
        raise InputError(f"checkpoint {path}: no {head}future_tokens.weight, expected those of N1.5")
    return fields | {
        "generation": generation, "dit_heads": width // 48, "vl_heads": feature // 64, "future_tokens": future,
        "dit_layers": layers(r"action_head\.model\.transformer_blocks\.(\d+)\."),
        "vl_layers": layers(r"action_head\.vl_self_attention\.transformer_blocks\.(\d+)\."),
        "text_layers": layers(r"backbone\..*language_model\.(?:model\.)?layers\.(\d+)\."),
        "projected": "backbone.eagle_linear.weight" in shapes, "state_dropout": 0.2 if generation == "n1.7" else 0.0,
    }
