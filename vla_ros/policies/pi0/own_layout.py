"""Our own checkpoint folders, and fresh policies for training.

config.json: {"family": "pi0", "policy": sizes, "normalisation": {"state": mode, "action": mode, "style": …}};
model.safetensors: the module's own names; statistics.json; embodiment.yaml; tokenizer.json or tokenizer.model.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vla_ros.core.errors import InputError
from vla_ros.core.files import new_folder
from vla_ros.nn.meta import without_numbers
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.formats.weights import TensorFolder
from vla_ros.policies.normalisation import Normalisation, read_statistics, widened, write_statistics
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.pi0.names import load_own
from vla_ros.policies.pi0.processor import Pi0Processor
from vla_ros.policies.pi0.report import report
from vla_ros.policies.registry import LoadedPolicy, LoadOptions, TrainingData, read_config
from vla_ros.policies.tokenizer import Tokenizer, instruction_words, load_tokenizer, word_tokenizer

FAMILY = "pi0"
STATE, ACTION = "observation.state", "action"


def read(path: Path, options: LoadOptions) -> tuple[Pi0Config, Pi0Processor]:
    """Everything of a folder but its weights. Raises InputError."""
    data = read_config(path)
    where = f"checkpoint {path}: config.json"
    try:
        config = Pi0Config.from_dict(data["policy"], where)
        modes = data["normalisation"]
        style = modes["style"]
        kinds = modes["state"], modes["action"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: expected policy and normalisation (state, action, style): {error!r}") from error
    statistics = read_statistics(path / "statistics.json")
    for feature in (STATE, ACTION):
        if feature not in statistics:
            raise InputError(f"checkpoint {path}: statistics.json: no {feature!r}, only {sorted(statistics)}")
    embodiment = options.embodiment or Embodiment.load(path / "embodiment.yaml")
    processor = Pi0Processor(
        config,
        embodiment,
        Normalisation(kinds[0], statistics[STATE], style),
        Normalisation(kinds[1], statistics[ACTION], style),
        load_tokenizer(options.tokenizer or path),
    )
    return config, processor


def load(path: Path, options: LoadOptions) -> LoadedPolicy:
    """Raises InputError, for tensors with a list of every missing, extra and misshapen key."""
    config, processor = read(path, options)
    with without_numbers():
        policy = Pi0(config)
    load_own(policy, TensorFolder(path), str(path), options.device, options.dtype or torch.float32)
    return LoadedPolicy(FAMILY, policy.eval(), processor, report=report(config, processor))


def save(path: Path, loaded: LoadedPolicy) -> None:
    """Write a folder that `load` reads; complete or absent."""
    processor: Pi0Processor = loaded.processor
    with new_folder(path, "checkpoint") as folder:
        config = {
            "family": FAMILY,
            "policy": processor.config.to_dict(),
            "normalisation": {
                "state": processor.state.mode,
                "action": processor.actions.mode,
                "style": processor.state.style,
            },
        }
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in loaded.policy.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        statistics = {STATE: processor.state.statistics, ACTION: processor.actions.statistics}
        write_statistics(folder / "statistics.json", statistics)
        processor.embodiment.save(folder / "embodiment.yaml")
        if processor.tokenizer is not None:
            processor.tokenizer.save(folder)


def build(config: Mapping[str, Any], data: TrainingData) -> LoadedPolicy:
    """A policy with fresh weights.

    Args:
        config: fields of `Pi0Config` that the data do not decide, and `normalisation` ("mean_std", "quantiles",
            "min_max"). Towers are names ("keypoint_stem", "tiny_prefix", "tiny_expert") or mappings of sizes.
    """
    values = dict(config)
    mode = values.pop("normalisation", "mean_std")
    tokenizer = word_tokenizer(data.instructions)
    width = len(data.joints)
    for name, value in {"cameras": data.cameras, "step_dt": data.step_dt, "vocabulary": tokenizer.size}.items():
        if name in values:
            raise InputError(f"policy.{name}: {values[name]!r}; it comes from the dataset, expected no such field")
        values[name] = value
    size = Pi0Config.from_dict({"state_dim": width, "action_dim": width, "loss_dims": width} | values, "policy")
    processor = Pi0Processor(
        size,
        Embodiment.identity(data.joints, {name: name for name in data.cameras}, data.step_dt),
        Normalisation(mode, widened(data.statistics[STATE])),
        Normalisation(mode, widened(data.statistics[ACTION])),
        tokenizer,
    )
    policy = Pi0(size)
    _silence_other_words(policy, tokenizer, data.instructions)
    return LoadedPolicy(FAMILY, policy, processor)


def _silence_other_words(policy: Pi0, tokenizer: Tokenizer, instructions: tuple[str, ...]) -> None:
    """Zero the embeddings of words that training will never show, <unk> among them: they then have no effect,
    where random vectors would have an arbitrary one."""
    seen = {tokenizer.bos, *(token for word in instruction_words(instructions) for token in tokenizer.encode(word))}
    with torch.no_grad():
        for token in range(tokenizer.size):
            if token not in seen:
                policy.embedding.weight[token].zero_()
