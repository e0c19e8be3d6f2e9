"""Declaration of the π0 family, and openpi's and transformers' folders."""

from pathlib import Path
from typing import Any

import torch

from vla_ros.policies.family import Family, Layout, lerobot
from vla_ros.policies.formats.adapter import open_tensors
from vla_ros.policies.formats.lerobot import LeRobotFolder, check_fields
from vla_ros.policies.formats.openpi import openpi_parts
from vla_ros.policies.options import LoadOptions, Parts, TrainingData, read_config
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.export import to_lerobot
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.pi0.names import rename
from vla_ros.policies.pi0.processor import Pi0Processor
from vla_ros.policies.pi0.versions import find_version
from vla_ros.policies.tokenizer import Tokenizer, instruction_words, word_tokenizer

# Fields of config.json that identify the two layouts; LeRobot's has its type.
OPENPI = {"action_horizon", "paligemma_variant", "action_expert_variant"}
TRANSFORMERS = {"model_type", "vlm_config", "dit_config"}
OPENPI_FIELDS = OPENPI | set(  # of its Pi0Config and its converter to PyTorch
    "action_dim max_token_len pi05 discrete_state_input dtype precision pytorch_compile_mode".split()
)
TRANSFORMERS_FIELDS = TRANSFORMERS | set(  # of its PI0Config and its base class
    "chunk_size max_state_dim max_action_dim num_inference_steps time_sampling_beta_alpha time_sampling_beta_beta "
    "time_sampling_offset time_sampling_scale min_period max_period loss_reduction architectures dtype torch_dtype "
    "transformers_version _name_or_path id2label label2id problem_type return_dict output_attentions "
    "output_hidden_states is_encoder_decoder chunk_size_feed_forward".split()
)


def _fresh(values: dict[str, Any], data: TrainingData) -> tuple[dict[str, Any], Tokenizer]:
    tokenizer, width = word_tokenizer(data.instructions), data.action_dim
    for name, size in (("state_dim", len(data.joints)), ("action_dim", width), ("loss_dims", width)):
        values.setdefault(name, size)
    return {"cameras": data.cameras, "vocabulary": tokenizer.size}, tokenizer


def _silence_other_words(policy: Pi0, tokenizer: Tokenizer, data: TrainingData) -> None:
    """Set the embeddings of words that do not occur in training to zero: random vectors would have an arbitrary
    effect."""
    words = instruction_words(data.instructions)
    seen = {tokenizer.bos, *(token for word in words for token in tokenizer.encode(word))}
    with torch.no_grad():
        policy.embedding.weight[[token for token in range(tokenizer.size) if token not in seen]] = 0.0


def _read(family: Family, path: Path, options: LoadOptions) -> tuple[Pi0Config, Parts]:
    """openpi's and transformers' folders."""
    data = read_config(path)
    openpi = OPENPI <= data.keys()
    check_fields(data, OPENPI_FIELDS if openpi else TRANSFORMERS_FIELDS, path)
    if openpi:
        config = Pi0Config.from_openpi(data, open_tensors(path, options.base)[0].shapes, f"checkpoint {path}")
    else:
        config = Pi0Config.from_transformers(data, f"checkpoint {path}: config.json")
    parts = openpi_parts(path, config, "quantiles" if config.adaptive else "mean_std", options, family.fit)
    return config, parts


def _fit(folder: LeRobotFolder, options: LoadOptions) -> tuple[str, str]:
    version, why = find_version(folder, options)
    return version.fit, why


FAMILY = Family(
    "pi0", Pi0Config, lambda config: Pi0(config).freeze(), Pi0Processor,
    layouts={
        "lerobot": lerobot("pi0", "pi05", rename=rename, fit=_fit, overrides=("lerobot_version",), export=to_lerobot),
        "transformers": Layout(lambda config: TRANSFORMERS <= config.keys(), _read, rename, overrides=("assets",)),
        "openpi": Layout(lambda config: OPENPI <= config.keys(), _read, rename, overrides=("assets",)),
    },
    overrides=("prompt", "text_length", "num_steps"),
    fresh=_fresh,
    begin=_silence_other_words,
)
