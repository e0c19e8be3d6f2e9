"""The π0 family: what it declares, and openpi's and transformers' folders."""

from pathlib import Path
from typing import Any

import torch

from vla_ros.policies.family import Family, Layout, lerobot
from vla_ros.policies.formats.adapter import open_tensors
from vla_ros.policies.formats.lerobot import LeRobotFolder
from vla_ros.policies.formats.openpi import openpi_parts
from vla_ros.policies.options import LoadOptions, Parts, TrainingData, read_config
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.export import to_lerobot
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.pi0.names import rename
from vla_ros.policies.pi0.processor import Pi0Processor
from vla_ros.policies.pi0.versions import find_version
from vla_ros.policies.tokenizer import Tokenizer, instruction_words, word_tokenizer

# Fields of config.json by which the two layouts are known; LeRobot's says its type.
OPENPI = {"action_horizon", "paligemma_variant", "action_expert_variant"}
TRANSFORMERS = {"model_type", "vlm_config", "dit_config"}


def _fresh(values: dict[str, Any], data: TrainingData) -> tuple[dict[str, Any], Tokenizer]:
    tokenizer, width = word_tokenizer(data.instructions), len(data.joints)
    for name in ("state_dim", "action_dim", "loss_dims"):
        values.setdefault(name, width)
    return {"cameras": data.cameras, "vocabulary": tokenizer.size}, tokenizer


def _silence_other_words(policy: Pi0, tokenizer: Tokenizer, data: TrainingData) -> None:
    """Zero the embeddings of words that training will never show: random vectors would have an arbitrary effect."""
    words = instruction_words(data.instructions)
    seen = {tokenizer.bos, *(token for word in words for token in tokenizer.encode(word))}
    with torch.no_grad():
        policy.embedding.weight[[token for token in range(tokenizer.size) if token not in seen]] = 0.0


def _read(family: Family, path: Path, options: LoadOptions) -> tuple[Pi0Config, Parts]:
    """openpi's and transformers' folders."""
    data = read_config(path)
    if OPENPI <= data.keys():
        config = Pi0Config.from_openpi(data, open_tensors(path, options.base)[0].shapes, f"checkpoint {path}")
    else:
        config = Pi0Config.from_transformers(data, f"checkpoint {path}: config.json")
    parts = openpi_parts(path, config, "quantiles" if config.adaptive else "mean_std", options, family.fit)
    return config, parts


def _fit(folder: LeRobotFolder, options: LoadOptions) -> tuple[str, str]:
    version, why = find_version(folder, options)
    return version.fit, why


FAMILY = Family(
    "pi0", Pi0Config, Pi0, Pi0Processor,
    layouts={
        "lerobot": lerobot("pi0", "pi05", rename=rename, fit=_fit, overrides=("lerobot_version",), export=to_lerobot),
        "transformers": Layout(lambda config: TRANSFORMERS <= config.keys(), _read, rename, overrides=("assets",)),
        "openpi": Layout(lambda config: OPENPI <= config.keys(), _read, rename, overrides=("assets",)),
    },
    overrides=("prompt", "text_length", "num_steps"),
    fresh=_fresh,
    begin=_silence_other_words,
)
