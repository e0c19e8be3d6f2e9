"""SmolVLA's checkpoint folders: LeRobot's, old and new, and our own; and fresh policies for training."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tokenizers

from vla_ros.core.errors import InputError
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.meta import without_numbers
from vla_ros.policies.backbones import KEYPOINT_STEM
from vla_ros.policies.formats import own as own_folder
from vla_ros.policies.formats.lerobot import is_statistic, read_folder
from vla_ros.policies.formats.own import Parts
from vla_ros.policies.formats.weights import TensorFolder, load_weights
from vla_ros.policies.prompts import PromptTokenizer, read_tokenizer
from vla_ros.policies.registry import LoadedPolicy, LoadOptions, TrainingData, read_config
from vla_ros.policies.smolvla import published
from vla_ros.policies.smolvla.config import VLMS, SmolVLAConfig, VlmSize
from vla_ros.policies.smolvla.model import SmolVLA
from vla_ros.policies.smolvla.processor import SmolVLAProcessor
from vla_ros.policies.tokenizer import word_tokenizer

FAMILY = "smolvla"
FIT = "pad_top_left"
KEPT = r"(state|action|time)_(in|out)\."  # in float32 whatever the rest is in; the small vision tower too


def module_key(key: str) -> str | None:
    """A key of a LeRobot file to the module's; None for statistics and for what no action depends on."""
    return None if is_statistic(key) else published.module_key(key)


def read(path: Path, layout: str, options: LoadOptions) -> tuple[SmolVLAConfig, Parts]:
    """Everything of a folder but weights and tokenizer. Raises InputError."""
    if layout == "vla_ros":
        sizes, parts = own_folder.read(path, options)
        return SmolVLAConfig.from_dict(sizes), parts
    data = read_config(path)
    folder = read_folder(path, data)
    config = SmolVLAConfig.from_lerobot(folder, _vlm_size(path, data, options))
    if config.adapt_to_pi_aloha and options.embodiment is None:
        raise InputError(
            f"checkpoint {path}: adapt_to_pi_aloha: its state and actions are in π's ALOHA convention; give a policy "
            "file that says so (signs as scale -1, grippers with a linkage)"
        )
    return config, own_folder.lerobot_parts(folder, config.cameras, options, FIT)


def load(path: Path, layout: str, options: LoadOptions) -> LoadedPolicy:
    """The policy with its weights. Raises InputError, for tensors with every missing, extra and misshapen key."""
    config, parts = read(path, layout, options)
    processor = SmolVLAProcessor.of(config, parts, _tokenizer(config, path, layout, options))
    with without_numbers():
        policy = SmolVLA(config).freeze()
    tensors = TensorFolder(path)
    kept = f"{KEPT}|vision" if policy.reads_text else KEPT
    dtype = own_folder.keep_float32(options, kept)
    if layout == "vla_ros":
        load_weights(policy, tensors, str(path), device=options.device, dtype=dtype)
    else:
        load_weights(policy, published.Stacked(tensors), str(path), module_key, device=options.device, dtype=dtype)
    return LoadedPolicy(FAMILY, policy.eval(), processor, layout)


def describe(path: Path, layout: str, options: LoadOptions) -> Mapping[str, str]:
    """What `vla-ros info` prints."""
    config, parts = read(path, layout, options)
    with without_numbers():
        parameters = sum(parameter.numel() for parameter in SmolVLA(config).parameters())
    rows = {
        "model": "SmolVLA",
        "parameters": f"{parameters:,}",
        "vision": "keypoint stem" if isinstance(config.vlm.vision, KeypointStemSize) else
                  f"SigLIP of width {config.vlm.vision.hidden}, {config.vlm.image_tokens} tokens a camera",
        "text tower": f"width {config.vlm.text.width}, {config.num_vlm_layers} layers",
        "expert": f"width {config.expert_width}, {config.attention_mode}",
        "language": f"up to {config.tokenizer_max_length} tokens",
        "denoising": f"{config.num_steps} steps",
        **own_folder.summary(SmolVLAProcessor.of(config, parts)),
    }
    if layout != "vla_ros":
        rows["not used"] = "lm_head, the text tower's last norm"
    return rows


def save(path: Path, loaded: LoadedPolicy) -> None:
    """Write a folder in our own layout; complete or absent."""
    processor: SmolVLAProcessor = loaded.processor
    sizes = loaded.policy.config.to_dict()
    own_folder.write(path, FAMILY, sizes, loaded.policy, processor, {}, processor.tokenizer)


def build(config: Mapping[str, Any], data: TrainingData) -> LoadedPolicy:
    """A policy with fresh weights and a tokenizer of the instructions' words.

    Args:
        config: fields of `SmolVLAConfig` that the data do not decide, with `vlm` as a mapping of vision (SigLIP's sizes
            or "keypoint_stem"), shuffle and text (whose `vocabulary` the instructions decide); `normalisation`
            ("mean_std", "quantiles", "min_max").
    """
    values = own_folder.take_data_fields(config, ("state_dim", "real_action_dim", "cameras"))
    parts = own_folder.fresh_parts(data, values.pop("normalisation", "mean_std"), FIT)
    words = word_tokenizer(data.instructions).inner
    width = len(data.joints)
    try:
        vlm = dict(values.pop("vlm"))
        if vlm["vision"] == KEYPOINT_STEM:
            vlm |= {"vision": asdict(KeypointStemSize()), "shuffle": 1}
        vlm["text"] = dict(vlm["text"]) | {"vocabulary": words.get_vocab_size()}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"policy.vlm: expected vision, shuffle and text with their sizes: {error!r}") from error
    sizes = SmolVLAConfig.from_dict(
        {"max_state_dim": width, "max_action_dim": width, "train_expert_only": False, "freeze_vision_encoder": False}
        | values
        | {"vlm": vlm, "cameras": data.cameras, "state_dim": width, "real_action_dim": width}
    )
    tokenizer = PromptTokenizer(words, sizes.tokenizer_max_length)
    return LoadedPolicy(FAMILY, SmolVLA(sizes).freeze(), SmolVLAProcessor.of(sizes, parts, tokenizer))


def _vlm_size(path: Path, config: Mapping[str, Any], options: LoadOptions) -> VlmSize:
    """Sizes of the vision-language model: from its own config.json where it lies at hand, else known by name."""
    name = str(config.get("vlm_model_name", "SmolVLM2-500M-Video-Instruct"))
    for place in (options.tokenizer, path / "vlm", Path(name)):
        file = place / "config.json" if place is not None else None
        if file is not None and file.is_file():
            try:
                return VlmSize.from_transformers(json.loads(file.read_text(encoding="utf-8")), str(file))
            except ValueError as error:
                raise InputError(f"{file}: not JSON: {error}") from error
    known = VLMS.get(name.rpartition("/")[2])
    if known is None:
        raise InputError(
            f"checkpoint {path}: vlm_model_name {name!r} is neither a folder nor one of {sorted(VLMS)}; name as "
            "tokenizer the folder with its config.json and tokenizer.json"
        )
    return known


def _tokenizer(config: SmolVLAConfig, path: Path, layout: str, options: LoadOptions) -> PromptTokenizer:
    places: list[Path | None] = [options.tokenizer, path, path / "vlm"]
    if layout != "vla_ros":
        places.append(Path(str(read_config(path).get("vlm_model_name", ""))))
    inner: tokenizers.Tokenizer = read_tokenizer(places, "the tokenizer of SmolVLM2")
    return PromptTokenizer(inner, config.tokenizer_max_length)
