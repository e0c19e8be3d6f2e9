"""What vla_ros asks of a family: these five functions, found through the entry point in pyproject.toml."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from my_policy.model import MyConfig, MyPolicy, MyProcessor
from vla_ros.policies.formats import own as own_folder
from vla_ros.policies.formats.weights import TensorFolder, load_weights
from vla_ros.policies.registry import LoadedPolicy, LoadOptions, TrainingData

FAMILY = "my_policy"


def recognise(path: Path, config: Mapping[str, Any]) -> str | None:
    """The layout of a checkpoint folder by its config.json; None if it belongs to another family."""
    return "vla_ros" if config.get("family") == FAMILY else None


def load(path: Path, layout: str, options: LoadOptions) -> LoadedPolicy:
    """The policy with its weights; a missing, extra or misshapen tensor is an error that lists them all."""
    sizes, parts = own_folder.read(path, options)
    config = MyConfig.from_dict(sizes)
    policy = MyPolicy(config)
    load_weights(policy, TensorFolder(path), str(path), device=options.device, dtype=options.dtype)
    return LoadedPolicy(FAMILY, policy.eval(), MyProcessor.of(config, parts))


def describe(path: Path, layout: str, options: LoadOptions) -> Mapping[str, str]:
    """What `vla-ros info` prints."""
    sizes, parts = own_folder.read(path, options)
    return {"model": "my policy", **own_folder.summary(MyProcessor.of(MyConfig.from_dict(sizes), parts))}


def save(path: Path, loaded: LoadedPolicy) -> None:
    """A folder that `load` reads."""
    own_folder.write(path, FAMILY, asdict(loaded.policy.config), loaded.policy, loaded.processor, {})


def build(config: Mapping[str, Any], data: TrainingData) -> LoadedPolicy:
    """Fresh weights, for `family: my_policy` in a training config; `config` is its `policy` mapping."""
    values = own_folder.take_data_fields(config, ("action_dim", "cameras"))
    parts = own_folder.fresh_parts(data, values.pop("normalisation", "mean_std"))
    sizes = MyConfig.from_dict(values | {"action_dim": len(data.joints), "cameras": data.cameras})
    return LoadedPolicy(FAMILY, MyPolicy(sizes), MyProcessor.of(sizes, parts))
