"""π0 and π0.5 (Physical Intelligence), of every size and in four layouts of checkpoint folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_ros.policies.pi0 import own_layout, serve
from vla_ros.policies.pi0.own_layout import build, save
from vla_ros.policies.pi0.published import layout_of
from vla_ros.policies.pi0.report import report
from vla_ros.policies.registry import LoadedPolicy, LoadOptions

__all__ = ["build", "describe", "load", "recognise", "save"]

OWN = "vla_ros"


def recognise(path: Path, config: Mapping[str, Any]) -> str | None:
    """The layout of a π0 folder ("vla_ros", "lerobot", "openpi", "transformers"), None if it is another family's."""
    return OWN if config.get("family") == own_layout.FAMILY else layout_of(config)


def load(path: Path, layout: str, options: LoadOptions) -> LoadedPolicy:
    """The policy with its weights. Raises InputError."""
    return own_layout.load(path, options) if layout == OWN else serve.load(path, layout, options)


def describe(path: Path, layout: str, options: LoadOptions) -> Mapping[str, str]:
    """What `vla-ros info` prints, without reading the weights. Raises InputError."""
    return report(*own_layout.read(path, options)) if layout == OWN else serve.describe(path, layout, options)
