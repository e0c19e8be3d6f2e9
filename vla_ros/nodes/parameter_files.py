"""Checks ROS parameter files: which nodes their sections apply to, and that no entry is silently ignored.

ROS itself ignores a section whose name matches no node, and a parameter that a node does not have.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from vla_ros.core.errors import InputError
from vla_ros.core.records import read_mapping

# Node -> module and dataclass of its parameters; imported if a section for all nodes has a name that one does not know.
NODES = {
    "policy_node": ("vla_ros.nodes.policy_parameters", "PolicyParameters"),
    "executor_node": ("vla_ros.nodes.executor.parameters", "ExecutorParameters"),
    "task_node": ("vla_ros.nodes.task_node", "TaskParameters"),
    "recorder_node": ("vla_ros.nodes.recorder_node", "RecorderParameters"),
    "sim_node": ("vla_ros.nodes.sim_node", "SimParameters"),
    "marker_node": ("vla_ros.nodes.marker_node", "MarkerParameters"),
    "console_node": ("vla_ros.nodes.console_node", "ConsoleParameters"),
    "expert_node": ("vla_ros.nodes.expert_node", "ExpertParameters"),
}
_CONTENT = "ros__parameters"
_EVERYBODY = ("qos_overrides.", "use_sim_time", "start_type_description_service")  # parameters that ROS itself reads


def sections(path: str | Path) -> dict[str, Mapping[str, Any]]:
    """Name of a section ("/**/executor_node", "/left/arm/*") -> parameter -> value. Raises InputError."""

    def walk(prefix: str, mapping: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for key, value in mapping.items():
            if key == _CONTENT:
                yield prefix or "/", value if isinstance(value, Mapping) else {}
            elif isinstance(value, Mapping):
                yield from walk(f"{prefix}/{str(key).strip('/')}", value)

    found: dict[str, dict[str, Any]] = {}
    for key, values in walk("", read_mapping(path, "parameter file")):
        found.setdefault(key, {}).update(_flat(values))
    return found


def _flat(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in values.items():
        made |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return made


def means(section: str, full_name: str) -> bool:
    """Whether a section applies to the node of that name: `*` stands for one part, `**` for any number of parts."""
    words = {"**": r"(/\w+)*", "*": r"/\w+"}
    pattern = "".join(words.get(word, f"/{re.escape(word)}") for word in section.strip("/").split("/"))
    return re.fullmatch(pattern, full_name) is not None


def check_sections(path: str | Path, full_names: Collection[str], others: Collection[str] = ()) -> None:
    """Raises InputError if a file sets nothing on any of these nodes.

    Args:
        others: names, without namespace, of further nodes that a file may be for.
    """
    found = sections(path)
    for section in found:
        if section.rpartition("/")[2] in others or any(means(section, name) for name in full_names):
            return
    wanted = " or ".join(f"/**/{name.rpartition('/')[2]}" for name in sorted(full_names))
    raise InputError(
        f"parameter file {path}: sets nothing on {', '.join(sorted(full_names))}; it is about "
        f"{', '.join(found) or 'no node'}, expected {wanted}, with {_CONTENT} below it"
    )


def check_parameters(
    full_name: str, own_name: str, known: Collection[str], overrides: Collection[str], files: Sequence[str]
) -> None:
    """Raises InputError for entries of a node's parameter files and command line that would be ignored.

    Args:
        own_name: the node's default name.
        known: its parameters.
        overrides: parameters set by its files and its command line.
    """
    others = set(NODES) - {own_name}

    def refuse(names: Collection[str], where: str, is_general: bool) -> None:
        for name in sorted(names):
            if name in known or name.startswith(_EVERYBODY) or is_general and _belongs_to(others, name):
                continue
            alike = get_close_matches(name, known, 3) or sorted(known)
            raise InputError(f"{where}: {name}: no parameter of {full_name}, expected {' or '.join(alike)}")

    left = set(overrides)
    for path in files:
        check_sections(path, [full_name], others)
        for section, values in sections(path).items():
            if means(section, full_name):
                refuse(values, f"parameter file {path}: {section}", section.endswith("*"))
                left -= set(values)
    refuse(left, "parameter", True)


def _belongs_to(nodes: Collection[str], name: str) -> bool:
    for node in nodes:
        module, kind = NODES[node]
        try:
            if name in getattr(import_module(module), kind).__dataclass_fields__:
                return True
        except ImportError:  # a node that is not installed here, such as the simulator
            continue
    return False


def files_of(arguments: Sequence[str]) -> list[str]:
    """The parameter files that a program's arguments name."""
    return [value for flag, value in pairwise(arguments) if flag == "--params-file"]
