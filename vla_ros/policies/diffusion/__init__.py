"""Diffusion Policy (Chi et al. 2023): a U-Net that denoises actions under a history of observations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_ros.policies.base import LoadedPolicy
from vla_ros.policies.registry import LoadOptions, TrainingData

__all__ = ["build", "describe", "load", "recognise", "save"]


def recognise(path: Path, config: Mapping[str, Any]) -> str | None:
    """The layout of a Diffusion Policy folder, None if it is another family's."""
    if config.get("family") == "diffusion":
        return "vla_ros"
    return "lerobot" if config.get("type") == "diffusion" else None


# The network's libraries are imported when one is needed, not when the families are listed.


def load(path: Path, layout: str, options: LoadOptions) -> LoadedPolicy:
    """The policy with its weights."""
    from vla_ros.policies.diffusion import checkpoint

    return checkpoint.load(path, layout, options)


def describe(path: Path, layout: str, options: LoadOptions) -> Mapping[str, str]:
    """What `vla-ros info` prints."""
    from vla_ros.policies.diffusion import checkpoint

    return checkpoint.describe(path, layout, options)


def save(path: Path, loaded: LoadedPolicy) -> None:
    """Write a folder in our own layout."""
    from vla_ros.policies.diffusion import checkpoint

    checkpoint.save(path, loaded)


def build(config: Mapping[str, Any], data: TrainingData) -> LoadedPolicy:
    """A policy with fresh weights for the trainer."""
    from vla_ros.policies.diffusion import checkpoint

    return checkpoint.build(config, data)
