"""Declaration of the RoboVLMs family, and its published folders, as `vla-ros convert` writes them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Rows, read_mapping, value_of
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.family import Family, Layout
from vla_ros.policies.formats.lerobot_robot import nameless
from vla_ros.policies.normalisation import MODES, Normalisation, Statistics
from vla_ros.policies.options import ACTION, LoadOptions, Parts, TrainingData, read_config
from vla_ros.policies.robovlms import prompts
from vla_ros.policies.robovlms.actions import BEHIND
from vla_ros.policies.robovlms.config import BACKBONES, HISTORIES, SPACES, RoboVLMConfig
from vla_ros.policies.robovlms.model import RoboVLM
from vla_ros.policies.robovlms.names import rename
from vla_ros.policies.robovlms.processor import RoboVLMProcessor
from vla_ros.policies.tokenizer import Tokenizer, find_tokenizer, word_tokenizer

KINDS = {"RoboKosMos": "kosmos", "RoboPaligemma": "paligemma", "RoboLLaVA": "llava"}
HEADS = {"LSTMDecoder": "lstm", "FCDecoder": "fc", "GPTDecoder": "gpt", "DiscreteDecoder": "discrete"}
CAMERAS = ("static", "hand")


def _fresh(values: dict[str, Any], data: TrainingData) -> tuple[dict[str, Any], Tokenizer]:
    """A tokenizer of the instructions' words; action tokens stand behind them."""
    said = {"action_dim": data.action_dim, "cameras": data.cameras}
    texts, more = data.instructions, 0
    if values.get("head") == "discrete":
        more = value_of(int, values.get("bins", RoboVLMConfig.bins), "policy.bins")
        rows = value_of(Rows, values.setdefault("asked", values.get("chunk", RoboVLMConfig.chunk)), "policy.asked")
        texts = [*texts, prompts.question("llava", "", rows)]
    tokenizer = word_tokenizer(texts)
    if isinstance(values.get("backbone"), Mapping):
        values["backbone"] = {**values["backbone"], "vocabulary": tokenizer.size + more}
    if more:
        said |= {"action_end": tokenizer.size + more, "stop": tokenizer.bos}
    return said, tokenizer


def _read(family: Family, path: Path, options: LoadOptions) -> tuple[RoboVLMConfig, Parts]:
    data, where = read_config(path), f"checkpoint {path}: config.json"
    own = Embodiment.load(path / "embodiment.yaml") if (path / "embodiment.yaml").exists() else None
    config = _sizes(family, path, data, options, where)
    config = replace(config, space=SPACES[0] if own and own.tool is None else SPACES[1])
    embodiment = options.embodiment or own or nameless(config.cameras, 0, ["absolute"] * config.action_dim)
    if embodiment.step_dt is None and options.data is not None:
        embodiment = replace(embodiment, step_dt=options.data.step_dt)
    mode, statistics, lacks = _statistics(path, data, config, options, where)
    pictures = prompts.images(config.kind)
    pixels = {
        name: np.array(value_of(tuple[float, float, float], data.get(f"image_{name}", usual), f"{where}: image_{name}"))
        for name, usual in (("mean", pictures.mean), ("std", pictures.std))
    }
    if not (pixels["std"] > 0).all():
        raise InputError(f"{where}: image_std {pixels['std'].tolist()}, expected positive numbers")
    style = "openpi" if mode == "mean_std" else "openvla"
    return config, Parts(
        embodiment, Normalisation(mode, {}, style), Normalisation(mode, statistics, style),
        dict.fromkeys(config.cameras, pixels), pictures.fit, no_statistics=lacks,
    )


def _sizes(
    family: Family, path: Path, data: Mapping[str, Any], options: LoadOptions, where: str
) -> RoboVLMConfig:
    """Raises InputError for unsupported values, and for tensors that do not belong to such a backbone."""
    kind = _of(KINDS, data.get("robovlm_name"), f"{where}: robovlm_name")
    head = value_of(dict[str, Any], data.get("act_head"), f"{where}: act_head")
    text = value_of(dict[str, Any], data.get("tokenizer") or {}, f"{where}: tokenizer")
    for name, rows in (("tcp_rel", data), ("fill_zero", head)):
        if rows.get(name):
            raise InputError(f"{where}: {name} {shown(rows[name])}, expected false: nothing else is served")
    if (history := head.get("history_type", "post")) not in HISTORIES:
        raise InputError(f"{where}: act_head.history_type {shown(history)}, expected one of {list(HISTORIES)}")
    shapes = {
        key.removeprefix("model."): shape for key, shape in family.layouts["robovlms"].open(path, options.base)[0]
        .shapes.items()
    }
    shapes = {key.removeprefix("backbone."): shape for key, shape in shapes.items() if key.startswith("backbone.")}
    vlm = path / "vlm" / "config.json"
    backbone = BACKBONES[kind].size_of(shapes, read_mapping(vlm, "checkpoint") if vlm.exists() else {}, where)
    side = value_of(int, data.get("image_size", backbone.image), f"{where}: image_size")
    if side != backbone.image:
        raise InputError(f"{where}: image_size {side}, expected {backbone.image}, as its tensors say")
    chunk = value_of(Rows, data.get("fwd_pred_next_n", 1), f"{where}: fwd_pred_next_n")
    name = _of(HEADS, head.get("type"), f"{where}: act_head.type")
    tokens = _tokens(path, head, options, where) if name == "discrete" else {}
    return family.sizes({
        "action_dim": head.get("action_dim", 7), "backbone": backbone, "head": name, "history": history,
        "cameras": CAMERAS[: 1 + value_of(bool, data.get("use_hand_rgb", False), f"{where}: use_hand_rgb")],
        "hidden": head.get("hidden_size", 1024), "latent": head.get("latent", 1),
        "pooling": _of({"none": False, "pooling": True}, head.get("down_sample", "none"), f"{where}: down_sample"),
        "reads": head.get("token_source", "all") if head.get("action_space") == "down_sample" else "action",
        "window": data.get("window_size", 1), "chunk": chunk, "decoded": 1, "asked": chunk + 1,
        "resampler": data.get("use_vision_resampler", False), "prompt": kind, "mu_law": data.get("use_mu_law", False),
        "text_length": text.get("max_text_len", 256),
        "gripper_weight": data.get("arm_gripper_loss_ratio", 0.01),
        "image_place": int(kind != "llava" or name == "discrete"), "behind": int(name != "discrete"), **tokens,
    }, where)


def _tokens(path: Path, head: Mapping[str, Any], options: LoadOptions, where: str) -> dict[str, Any]:
    """Action tokens of a discrete head. Raises InputError if they are not defined anywhere."""
    end, tokenizer = options.overrides.get("action_end"), find_tokenizer(path, options.tokenizer)
    if end is None:
        files = [place / "special_tokens_map.json" for place in (path, path / "vlm")]
        file = next((file for file in files if file.exists()), None)
        if tokenizer is None or file is None:
            raise InputError(f"{where}: a discrete head: the tokenizer and special_tokens_map.json of its backbone say "
                             "which tokens are actions; expected them in vlm/, or overrides.action_end")
        special = read_mapping(file, "tokenizer").values()
        end = tokenizer.words - BEHIND - sum(len(row) if isinstance(row, list) else 1 for row in special)
    stop = {"stop": tokenizer.eos} if tokenizer is not None and tokenizer.eos is not None else {}
    names = {"n_bin": "bins", "min_action": "lowest", "max_action": "highest"}
    return {"action_end": end} | stop | {ours: head[theirs] for theirs, ours in names.items() if theirs in head}


def _statistics(
    path: Path, data: Mapping[str, Any], config: RoboVLMConfig, options: LoadOptions, where: str
) -> tuple[str, Mapping[str, np.ndarray], str]:
    """Mode and statistics of the actions, and what is missing.

    CALVIN's are in [norm_min, norm_max]; those of Open X-Embodiment are first mapped by their quantiles, so the two
    maps are combined: the values that the first maps to norm_min and norm_max become -1 and 1. The quantiles of a given
    file replace both. The gripper is not included; it is 0 (closed) to 1 (open).

    `regular_action` is applied after norm_min and norm_max; but a file's mean and deviation are those of the data,
    before both.
    """
    low, high = (
        value_of(float, data.get(name, usual), f"{where}: {name}")
        for name, usual in (("norm_min", -1.0), ("norm_max", 1.0))
    )
    if not low < high:
        raise InputError(f"{where}: norm_min {low}, norm_max {high}, expected the first below the second")
    low, high = (low, high) if data.get("norm_action") else (-1.0, 1.0)
    kind = str((data.get("train_dataset") or {}).get("type", "")) if isinstance(data.get("train_dataset"), dict) else ""
    mode, width, told = "mean_std" if data.get("regular_action") else "quantiles", config.action_dim, "OpenVLA" in kind
    files = sorted(path.glob("dataset_statistics*.json"))
    if given := options.statistics():
        said = {name: row.tolist() for name, row in given[ACTION].items()}
        first, last = _pair(said, MODES[mode], width, f"overrides.statistics {str(options.overrides['statistics'])!r}")
    elif mode == "mean_std":
        return mode, {}, "its actions have a mean and a deviation that config.json does not contain"
    elif told and len(files) != 1:
        return mode, {}, f"{len(files)} files dataset_statistics*.json beside config.json, expected one"
    elif told:
        first, last = _pair(_rows(files[0]), MODES[mode], width, str(files[0]))
    else:
        first, last = np.full(width, -1.0), np.full(width, 1.0)
        first[-1] = 0.0 if config.gripper else -1.0
    if mode == "mean_std":
        if config.gripper:
            first[-1] = last[-1] = 0.5
        return mode, {"mean": first, "std": last}, ""
    centre, half = (first + last) / 2, (last - first) / 2
    rows = {"q01": centre + low * half, "q99": centre + high * half}
    if config.gripper:
        rows["q01"][-1], rows["q99"][-1] = first[-1], last[-1]
    return mode, rows, ""


def _rows(file: Path) -> Any:
    """A file's statistics of the actions, directly or in its only dataset. Raises InputError."""
    rows: Statistics = read_mapping(file, "statistics")
    rows = next(iter(rows.values())) if len(rows) == 1 and "action" not in rows else rows
    return rows.get("action") if isinstance(rows, dict) else rows


def _pair(said: Any, names: tuple[str, ...], width: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Two statistics of the actions, (width,) each. Raises InputError."""
    said = value_of(dict[str, Any], said, f"{where}: action")
    first, last = (np.array(value_of(tuple[float, ...], said.get(name), f"{where}: action.{name}")) for name in names)
    if len(first) != width or len(last) != width:
        raise InputError(f"{where}: {', '.join(names)} of {[len(first), len(last)]} numbers, expected {width}")
    return first, last


def _of(known: Mapping[str, Any], said: Any, where: str) -> Any:
    if not isinstance(said, str) or said not in known:
        raise InputError(f"{where} {shown(said)}, expected one of {sorted(known)}")
    return known[said]


FAMILY = Family(
    "robovlms", RoboVLMConfig, RoboVLM, RoboVLMProcessor, title="RoboVLM",
    layouts={
        "robovlms": Layout(
            lambda config: "robovlm_name" in config, _read, rename, overrides=("action_end",),
        ),
    },
    fit="bicubic",
    normalisation="quantiles",
    defaults={"prompt": "llava", "image_place": 0, "behind": 0, "gripper": False, "decoding": "actions"},
    overrides=("space", "decoding", "asked", "text_length"),
    fresh=_fresh,
)
