"""Diffusion Policy's checkpoint folders: LeRobot's, old and new, and our own; and fresh policies for training."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vla_ros.nn.meta import without_numbers
from vla_ros.nn.words import make_vocabulary
from vla_ros.policies.diffusion.config import DiffusionConfig
from vla_ros.policies.diffusion.model import DiffusionPolicy
from vla_ros.policies.diffusion.processor import DiffusionProcessor
from vla_ros.policies.formats import own as own_folder
from vla_ros.policies.formats.lerobot import is_statistic
from vla_ros.policies.formats.weights import TensorFolder, load_weights
from vla_ros.policies.prompts import PromptTokenizer, read_tokenizer
from vla_ros.policies.registry import LoadedPolicy, LoadOptions, TrainingData

FAMILY = "diffusion"
KEPT = r"unet\.final_conv\.1\.|stem\."  # in float32 whatever the rest is in

# Published image encoders are sequences without the classifier: 0 convolution, 1 normalisation, 4 to 7 the stages.
_SEQUENCE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_BACKBONE = re.compile(r"(.*\bbackbone)\.(\d)\.(.*)")
# Of a whole CLIP model only the text side is read.
_UNUSED = re.compile(r"language_encoder\.(vision_model\..*|visual_projection\..*|logit_scale|.*\.position_ids)")


def module_key(key: str) -> str | None:
    """A key of a LeRobot file to the module's: the prefix `diffusion.` goes, the image encoder's numbers get names."""
    if is_statistic(key):
        return None
    key = key.removeprefix("diffusion.")
    if _UNUSED.fullmatch(key):
        return None
    match = _BACKBONE.fullmatch(key)
    return f"{match[1]}.{_SEQUENCE.get(match[2], match[2])}.{match[3]}" if match else key


def load(path: Path, layout: str, options: LoadOptions) -> LoadedPolicy:
    """The policy with its weights. Raises InputError, for tensors with every missing, extra and misshapen key."""
    config, parts = own_folder.open_folder(path, layout, options, DiffusionConfig, "exact")
    processor = DiffusionProcessor.of(config, parts, _tokenizer(config, path, options))
    with without_numbers():
        policy = DiffusionPolicy(config)
    own_folder.set_image_statistics(policy, config.cameras, parts.images)
    computed = [name for name, _ in policy.named_buffers() if name.endswith((".pos_grid", ".position_ids"))]
    dtype = own_folder.keep_float32(options, KEPT)
    load_weights(policy, TensorFolder(path), str(path), module_key, computed, options.device, dtype)
    return LoadedPolicy(FAMILY, policy.eval(), processor, layout)


def describe(path: Path, layout: str, options: LoadOptions) -> Mapping[str, str]:
    """What `vla-ros info` prints."""
    config, parts = own_folder.open_folder(path, layout, options, DiffusionConfig, "exact")
    with without_numbers():
        parameters = sum(parameter.numel() for parameter in DiffusionPolicy(config).parameters())
    language = "CLIP" if config.clip_text is not None else f"{len(config.vocabulary)} words"
    return {
        "model": "Diffusion Policy",
        "parameters": f"{parameters:,}",
        "vision": config.vision_backbone,
        "U-Net": f"widths {', '.join(str(width) for width in config.down_dims)}, {config.unet_horizon} rows",
        "language": language if config.has_text else "none: the text only starts and stops",
        "history": f"{config.n_obs_steps} observations",
        "denoising": f"{config.num_steps} steps of {config.noise_scheduler_type}",
        **own_folder.summary(DiffusionProcessor.of(config, parts)),
    }


def save(path: Path, loaded: LoadedPolicy) -> None:
    """Write a folder in our own layout; complete or absent."""
    policy: DiffusionPolicy = loaded.policy
    images = own_folder.get_image_statistics(policy, policy.config.cameras)
    processor: DiffusionProcessor = loaded.processor
    own_folder.write(path, FAMILY, asdict(policy.config), policy, processor, images, processor.tokenizer)


def build(config: Mapping[str, Any], data: TrainingData) -> LoadedPolicy:
    """A policy with fresh weights.

    Args:
        config: fields of `DiffusionConfig` that the data do not decide; `normalisation` ("min_max", "mean_std",
            "quantiles"); `language`: true for a policy that reads the words of the instructions.
    """
    values = own_folder.take_data_fields(config, ("action_dim", "state_dim", "cameras", "vocabulary", "clip_text"))
    parts = own_folder.fresh_parts(data, values.pop("normalisation", "min_max"))
    vocabulary = make_vocabulary(data.instructions) if values.pop("language", False) else ()
    width = len(data.joints)
    sizes = DiffusionConfig.from_dict(
        values | {"action_dim": width, "state_dim": width, "cameras": data.cameras, "vocabulary": vocabulary}
    )
    policy = DiffusionPolicy(sizes)
    own_folder.set_image_statistics(policy, sizes.cameras, parts.images)
    return LoadedPolicy(FAMILY, policy, DiffusionProcessor.of(sizes, parts))


def _tokenizer(config: DiffusionConfig, path: Path, options: LoadOptions) -> PromptTokenizer | None:
    if config.clip_text is None:
        return None
    inner = read_tokenizer((options.tokenizer, path), "the tokenizer of CLIP")
    longest = int(config.clip_text.get("max_position_embeddings", 77))
    # CLIP fills up with the token that ends a text, and reads no farther than the first of them.
    return PromptTokenizer(inner, longest, padding=int(config.clip_text.get("eos_token_id", 49407)))
