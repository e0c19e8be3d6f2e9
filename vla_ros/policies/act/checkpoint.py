"""ACT's checkpoint folders: LeRobot's, old and new, and our own; and fresh policies for training."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vla_ros.nn.meta import without_numbers
from vla_ros.nn.words import make_vocabulary
from vla_ros.policies.act.config import ACTConfig
from vla_ros.policies.act.model import ACT
from vla_ros.policies.act.processor import ACTProcessor
from vla_ros.policies.formats import own as own_folder
from vla_ros.policies.formats.lerobot import is_statistic
from vla_ros.policies.formats.weights import TensorFolder, load_weights
from vla_ros.policies.registry import LoadedPolicy, LoadOptions, TrainingData

FAMILY = "act"
COMPUTED = ("vae_encoder_pos_enc",)  # a buffer that follows from the sizes; files may leave it out
KEPT = r"action_head\.|stem\."  # in float32 whatever the rest is in


def module_key(key: str) -> str | None:
    """A key of a LeRobot file to the module's; None for statistics, which the processor keeps."""
    return None if is_statistic(key) else key.removeprefix("model.")


def load(path: Path, layout: str, options: LoadOptions) -> LoadedPolicy:
    """The policy with its weights. Raises InputError, for tensors with every missing, extra and misshapen key."""
    config, parts = own_folder.open_folder(path, layout, options, ACTConfig, "exact")
    processor = ACTProcessor.of(config, parts)
    with without_numbers():
        policy = ACT(config)
    own_folder.set_image_statistics(policy, config.cameras, parts.images)
    dtype = own_folder.keep_float32(options, KEPT)
    load_weights(policy, TensorFolder(path), str(path), module_key, COMPUTED, options.device, dtype)
    return LoadedPolicy(FAMILY, policy.eval(), processor, layout)


def describe(path: Path, layout: str, options: LoadOptions) -> Mapping[str, str]:
    """What `vla-ros info` prints."""
    config, parts = own_folder.open_folder(path, layout, options, ACTConfig, "exact")
    with without_numbers():
        parameters = sum(parameter.numel() for parameter in ACT(config).parameters())
    return {
        "model": "ACT",
        "parameters": f"{parameters:,}",
        "vision": config.vision_backbone,
        "transformer": f"width {config.dim_model}, {config.n_encoder_layers} encoder and {config.n_decoder_layers} "
                       "decoder layers",
        "language": f"{len(config.vocabulary)} words" if config.vocabulary else "none: the text only starts and stops",
        "denoising": "none",
        **own_folder.summary(ACTProcessor.of(config, parts)),
    }


def save(path: Path, loaded: LoadedPolicy) -> None:
    """Write a folder in our own layout; complete or absent."""
    policy: ACT = loaded.policy
    images = own_folder.get_image_statistics(policy, policy.config.cameras)
    own_folder.write(path, FAMILY, asdict(policy.config), policy, loaded.processor, images)


def build(config: Mapping[str, Any], data: TrainingData) -> LoadedPolicy:
    """A policy with fresh weights.

    Args:
        config: fields of `ACTConfig` that the data do not decide; `normalisation` ("mean_std", "quantiles",
            "min_max"); `language`: true for a policy that reads the words of the instructions.
    """
    values = own_folder.take_data_fields(config, ("action_dim", "state_dim", "cameras", "vocabulary"))
    parts = own_folder.fresh_parts(data, values.pop("normalisation", "mean_std"))
    vocabulary = make_vocabulary(data.instructions) if values.pop("language", False) else ()
    width = len(data.joints)
    sizes = ACTConfig.from_dict(
        {"backbone_norm": "group", "n_action_steps": 1}
        | values
        | {"action_dim": width, "state_dim": width, "cameras": data.cameras, "vocabulary": vocabulary}
    )
    policy = ACT(sizes)
    own_folder.set_image_statistics(policy, sizes.cameras, parts.images)
    return LoadedPolicy(FAMILY, policy, ACTProcessor.of(sizes, parts))
