"""π0 and π0.5 (Physical Intelligence), of every size."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_ros.policies.base import LoadedPolicy
from vla_ros.policies.pi0 import own_layout
from vla_ros.policies.pi0.own_layout import build, save
from vla_ros.policies.pi0.report import report
from vla_ros.policies.registry import LoadOptions

__all__ = ["build", "describe", "load", "recognise", "save"]


def recognise(path: Path, config: Mapping[str, Any]) -> str | None:
    """The layout of a π0 folder, None if it is another family's."""
    return "vla_ros" if config.get("family") == own_layout.FAMILY else None


def load(path: Path, layout: str, options: LoadOptions) -> LoadedPolicy:
    """The policy with its weights."""
    return own_layout.load(path, options)


def describe(path: Path, layout: str, options: LoadOptions) -> Mapping[str, str]:
    """What `vla-ros info` prints."""
    return report(*own_layout.read(path, options))
