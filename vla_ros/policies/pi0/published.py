"""Published π0 and π0.5 folders: what each of the three layouts says about the policy besides its weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.formats.lerobot import ACTION, STATE, LeRobotFolder, read_folder
from vla_ros.policies.formats.lerobot import read_statistics as read_lerobot_statistics
from vla_ros.policies.formats.weights import Shape, TensorFolder
from vla_ros.policies.normalisation import Normalisation, read_statistics
from vla_ros.policies.pi0.config import GEMMA, VISION, Pi0Config
from vla_ros.policies.pi0.names import EMBEDDING, HEAD, P, X, openpi_name
from vla_ros.policies.registry import read_config

TEXT_LENGTH = {False: 48, True: 200}  # by `adaptive`
LEROBOT_MODES = {"IDENTITY": "identity", "MEAN_STD": "mean_std", "MIN_MAX": "min_max", "QUANTILES": "quantiles",
                 "QUANTILE10": "deciles"}  # fmt: skip
# What a policy file may set under `overrides`.
OVERRIDES = ("prompt", "text_length", "num_steps", "statistics", "assets")


@dataclass(frozen=True)
class Published:
    """A published folder without its weights.

    Attributes:
        state_dim, action_dim: of the robot it was trained on, where the folder says so.
        state, actions: normalisation; None where the folder has no statistics.
        relative: per action dimension, whether the checkpoint speaks in differences to the state, where it says so.
        notes: what a user should know, for `vla-ros info`.
    """

    config: Pi0Config
    tensors: TensorFolder
    state_dim: int | None = None
    action_dim: int | None = None
    state: Normalisation | None = None
    actions: Normalisation | None = None
    relative: tuple[bool, ...] | None = None
    notes: tuple[str, ...] = field(default=())


def layout_of(config: Mapping[str, Any]) -> str | None:
    """Which published layout a config.json belongs to, None if it is no π0."""
    if config.get("type") in ("pi0", "pi05"):
        return "lerobot"
    if config.get("model_type") == "pi0" and "vlm_config" in config:
        return "transformers"
    if {"action_horizon", "paligemma_variant", "action_expert_variant"} <= config.keys():
        return "openpi"
    return None


def read_published(path: Path, layout: str, overrides: Mapping[str, Any]) -> Published:
    """Raises InputError that names the file and the field."""
    unknown = sorted(set(overrides) - set(OVERRIDES))
    if unknown:
        raise InputError(f"overrides: {unknown}, expected some of {list(OVERRIDES)}")
    reader = {"lerobot": _lerobot, "openpi": _openpi, "transformers": _transformers}[layout]
    found = reader(path, read_config(path), TensorFolder(path), overrides)
    changes = {name: overrides[name] for name in ("prompt", "text_length", "num_steps") if name in overrides}
    found = replace(found, config=replace(found.config, **changes))
    if "statistics" in overrides:
        statistics = read_statistics(Path(overrides["statistics"]))
        mode = "quantiles" if found.config.adaptive else "mean_std"
        style = found.state.style if found.state else "openpi"
        normalisations = {}
        for name, feature in (("state", STATE), ("actions", ACTION)):
            if feature not in statistics:
                raise InputError(f"{overrides['statistics']}: no {feature!r}, only {sorted(statistics)}")
            normalisations[name] = Normalisation(mode, statistics[feature], style)
        found = replace(found, **normalisations)
    return found


def _lerobot(path: Path, data: Mapping[str, Any], tensors: TensorFolder, overrides: Mapping[str, Any]) -> Published:
    folder = read_folder(path, data)
    adaptive = data["type"] == "pi05"
    cameras = tuple(feature.name.removeprefix("observation.images.") for feature in folder.images)
    config = Pi0Config(
        **_sizes(tensors.shapes, data, f"checkpoint {path}: config.json"),
        cameras=cameras,
        horizon=int(data.get("chunk_size", 50)),
        text_length=int(data.get("tokenizer_max_length", TEXT_LENGTH[adaptive])),
        adaptive=adaptive,
        prompt="pi05" if adaptive else "pi0",
        num_steps=int(data.get("num_inference_steps", 10)),
        loss_dims=folder.action_dim,
        time_beta=(float(data.get("time_sampling_beta_alpha", 1.5)), float(data.get("time_sampling_beta_beta", 1.0))),
        time_scale=float(data.get("time_sampling_scale", 0.999)),
        time_offset=float(data.get("time_sampling_offset", 0.001)),
        min_period=float(data.get("min_period", 4e-3)),
        max_period=float(data.get("max_period", 4.0)),
    )
    resolution = list(data.get("image_resolution", [config.vision.image] * 2))
    if resolution != [config.vision.image] * 2:
        raise InputError(
            f"checkpoint {path}: config.json: image_resolution {resolution}, its weights are for {config.vision.image}"
        )
    state, actions, notes = None, None, ()
    if "statistics" not in overrides:
        try:
            statistics = read_lerobot_statistics(folder, tensors)
            modes = [LEROBOT_MODES[folder.modes.get(kind, "IDENTITY")] for kind in ("STATE", "ACTION")]
            state = Normalisation(modes[0], statistics.get(STATE, {}), "lerobot")
            actions = Normalisation(modes[1], statistics.get(ACTION, {}), "lerobot")
        except InputError as error:
            notes = (f"no normalisation: {error}",)
    relative = _relative(folder)
    return Published(config, tensors, folder.state_dim, folder.action_dim, state, actions, relative, notes)


def _relative(folder: LeRobotFolder) -> tuple[bool, ...]:
    """LeRobot's rule: all dimensions are relative but those whose name holds one of the excluded words."""
    step = folder.step("relative_actions_processor")
    said = dict(step.config) if step else {}
    if not said.get("enabled", folder.config.get("use_relative_actions", False)):
        return (False,) * folder.action_dim
    excluded = said.get("exclude_joints", folder.config.get("relative_exclude_joints", ["gripper"])) or []
    names = said.get("action_names") or folder.config.get("action_feature_names") or [""] * folder.action_dim
    return tuple(not any(word.lower() in str(name).lower() for word in excluded) for name in names)


def _openpi(path: Path, data: Mapping[str, Any], tensors: TensorFolder, overrides: Mapping[str, Any]) -> Published:
    names = {openpi_name(key) for key in tensors.shapes}
    # The file does not say which model it is: adaptive norms do.
    adaptive = bool(data.get("pi05", any(name.startswith(X) and ".dense." in name for name in names)))
    config = Pi0Config(
        **_sizes(tensors.shapes, data, f"checkpoint {path}: config.json"),
        horizon=int(data["action_horizon"]),
        text_length=int(data.get("max_token_len") or TEXT_LENGTH[adaptive]),
        adaptive=adaptive,
        prompt="pi05" if adaptive and data.get("discrete_state_input", True) is not False else "pi0",
    )
    statistics, notes = _norm_stats(path, overrides)
    if statistics is None:
        return Published(config, tensors, notes=notes)
    mode = "quantiles" if adaptive else "mean_std"
    state, actions = (Normalisation(mode, statistics[name], "openpi") for name in ("state", "actions"))
    return Published(config, tensors, None, None, state, actions, None, notes)


def _norm_stats(
    path: Path, overrides: Mapping[str, Any]
) -> tuple[dict[str, dict[str, np.ndarray]] | None, tuple[str, ...]]:
    """Statistics of `assets/<name>/norm_stats.json` ("state", "actions"), and notes. Raises InputError."""
    files = {str(f.parent.relative_to(path / "assets")): f for f in sorted((path / "assets").rglob("norm_stats.json"))}
    if not files or "statistics" in overrides:
        return None, ("no normalisation: no assets/*/norm_stats.json",)
    chosen = overrides.get("assets", next(iter(files)) if len(files) == 1 else None)
    if chosen not in files:
        raise InputError(
            f"checkpoint {path}: assets {chosen!r}, expected one of {sorted(files)}; overrides.assets in the policy "
            "file says which"
        )
    try:
        rows = json.loads(files[chosen].read_text(encoding="utf-8"))
        rows = rows.get("norm_stats", rows)
        statistics = {
            name: {key: np.asarray(value, dtype=np.float64) for key, value in rows[name].items() if value is not None}
            for name in ("state", "actions")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{files[chosen]}: expected norm_stats with state and actions: {error!r}") from error
    return statistics, (f"statistics of assets/{chosen}",)


def _transformers(
    path: Path, data: Mapping[str, Any], tensors: TensorFolder, overrides: Mapping[str, Any]
) -> Published:
    from transformers import PI0Config  # fills in what the file leaves to the defaults of its classes

    try:
        whole = PI0Config(**{name: value for name, value in data.items() if name != "model_type"})
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"checkpoint {path}: config.json: not a configuration of π0: {error}") from error
    vision, text, expert = whole.vlm_config.vision_config, whole.vlm_config.text_config, whole.dit_config
    config = Pi0Config(
        vision=SiglipSize(
            hidden=vision.hidden_size, depth=vision.num_hidden_layers, heads=vision.num_attention_heads,
            mlp=vision.intermediate_size, patch=vision.patch_size, image=vision.image_size,
        ),
        prefix=_gemma(text),
        expert=_gemma(expert),
        vocabulary=text.vocab_size,
        state_dim=whole.max_state_dim,
        action_dim=whole.max_action_dim,
        horizon=whole.chunk_size,
        num_steps=whole.num_inference_steps,
        time_beta=(whole.time_sampling_beta_alpha, whole.time_sampling_beta_beta),
        time_scale=whole.time_sampling_scale,
        time_offset=whole.time_sampling_offset,
        min_period=whole.min_period,
        max_period=whole.max_period,
    )  # fmt: skip
    statistics, notes = _norm_stats(path, overrides)
    if statistics is None:
        return Published(config, tensors, notes=("no normalisation: transformers' folders hold no statistics",))
    state, actions = (Normalisation("mean_std", statistics[name], "openpi") for name in ("state", "actions"))
    return Published(config, tensors, None, None, state, actions, None, notes)


def _gemma(config: Any) -> GemmaSize:
    return GemmaSize(
        width=config.hidden_size, depth=config.num_hidden_layers, mlp=config.intermediate_size,
        heads=config.num_attention_heads, kv_heads=config.num_key_value_heads, head_dim=config.head_dim,
    )  # fmt: skip


def _sizes(shapes: Mapping[str, Shape], data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Sizes of the towers: by the names of their variants, and from the tensors where the name is not known.

    Raises InputError if a tensor that the sizes are read from is missing.
    """
    names = {openpi_name(key): shape for key, shape in shapes.items()}

    def shape(*choices: str) -> Shape:
        for name in choices:
            if name in names:
                return names[name]
        raise InputError(f"{where.removesuffix(': config.json')}: its tensors do not fit a π0: 1 missing: {choices[0]}")

    prefix = GEMMA.get(data.get("paligemma_variant", "gemma_2b"))
    return {
        "vision": VISION["siglip_so400m"] if prefix else _siglip(names, shape),
        "prefix": prefix or _gemma_of(f"{P}.language_model", names, shape),
        "expert": GEMMA.get(data.get("action_expert_variant", "gemma_300m")) or _gemma_of(X, names, shape),
        "vocabulary": shape(EMBEDDING, HEAD)[0],
        "action_dim": int(data.get("max_action_dim", data.get("action_dim", shape("action_out_proj.bias")[0]))),
        "state_dim": int(data.get("max_state_dim", names.get("state_proj.weight", (0, data.get("action_dim", 32)))[1])),
    }


def _gemma_of(tower: str, names: Mapping[str, Shape], shape: Any) -> GemmaSize:
    """Every published variant has one key/value head, so the key's rows are the width of a head."""
    layer = f"{tower}.layers.0"
    inner, width = shape(f"{layer}.self_attn.q_proj.weight")
    head_dim = shape(f"{layer}.self_attn.k_proj.weight")[0]
    mlp = shape(f"{layer}.mlp.up_proj.weight")[0]
    return GemmaSize(width, _depth(f"{tower}.layers.", names), mlp, inner // head_dim, 1, head_dim)


def _siglip(names: Mapping[str, Shape], shape: Any) -> SiglipSize:
    """SigLIP of any size with the 16 heads of so400m, which its tensors do not show."""
    vision = f"{P}.vision_tower.vision_model"
    hidden, _, patch, _ = shape(f"{vision}.embeddings.patch_embedding.weight")
    tokens = shape(f"{vision}.embeddings.position_embedding.weight")[0]
    mlp = shape(f"{vision}.encoder.layers.0.mlp.fc1.weight")[0]
    depth = _depth(f"{vision}.encoder.layers.", names)
    return SiglipSize(hidden, depth, VISION["siglip_so400m"].heads, mlp, patch, round(tokens**0.5) * patch)


def _depth(start: str, names: Mapping[str, Shape]) -> int:
    return 1 + max(int(name.removeprefix(start).split(".")[0]) for name in names if name.startswith(start))
