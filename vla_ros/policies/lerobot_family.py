"""A policy family whose checkpoint folders are LeRobot's or our own."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from vla_ros.policies.registry import LoadedPolicy, LoadOptions, TrainingData


@dataclass(frozen=True)
class LeRobotFamily:
    """The `Family` of the registry.

    Its work is done by `checkpoint` of the package of that name, which is imported when it is needed: listing the
    families must not import every network's libraries.
    """

    name: str

    def recognise(self, path: Path, config: Mapping[str, Any]) -> str | None:
        """The layout of such a folder, None if it is another family's."""
        if config.get("family") == self.name:
            return "vla_ros"
        return "lerobot" if config.get("type") == self.name else None

    def load(self, path: Path, layout: str, options: LoadOptions) -> LoadedPolicy:
        """The policy with its weights."""
        return self._checkpoint().load(path, layout, options)

    def describe(self, path: Path, layout: str, options: LoadOptions) -> Mapping[str, str]:
        """What `vla-ros info` prints."""
        return self._checkpoint().describe(path, layout, options)

    def save(self, path: Path, loaded: LoadedPolicy) -> None:
        """Write a folder in our own layout."""
        self._checkpoint().save(path, loaded)

    def build(self, config: Mapping[str, Any], data: TrainingData) -> LoadedPolicy:
        """A policy with fresh weights for the trainer."""
        return self._checkpoint().build(config, data)

    def _checkpoint(self) -> ModuleType:
        return import_module(f"vla_ros.policies.{self.name}.checkpoint")
