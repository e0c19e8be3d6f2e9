"""Say what a file or folder is, if it is neither a robot file nor a checkpoint, and which command opens it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from vla_ros.control.urdf import MOST_BYTES, load_urdf, parse_urdf
from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import read_bytes
from vla_ros.core.records import read_mapping, record
from vla_ros.nodes.parameter_files import NODES, check_parameters, sections
from vla_ros.nodes.parameters import build
from vla_ros.policies.server_file import read_server

ROBOT, POLICY = {"cameras", "joints", "groups"}, {"checkpoint", "server"}
LOOKED_FOR = (
    "config.json (a checkpoint), meta/info.json (a dataset), *.mcap or *.db3 (a bag), checkpoints/ (a training run), "
    "graphs.json (an export), *_node.log (a run of the nodes)"
)
_BAG = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_DATASET, _GRAPHS = Path("meta") / "info.json", "graphs.json"


@dataclass(frozen=True)
class Found:
    """What a file or folder is, and which command opens it."""

    what: str
    opens: str


def identify(path: Path) -> Found | None:
    """None for what may be a robot file, a policy file or a checkpoint, and if nothing is there.

    Raises InputError for damaged and for unknown files.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        return None
    if path.name.endswith(_BAG):
        return Found("a file of a rosbag2 bag", f"vla-ros bag show {path}")
    for folder in path.resolve().parents[:4]:
        if (folder / _DATASET).is_file():
            return Found(f"a file of the dataset {folder}", f"vla-ros dataset show {folder}")
    if path.suffix in _KINDS:
        return _KINDS[path.suffix](path)
    return _mapping(path) if path.suffix in (".yaml", ".yml", ".json") else None


def _folder(path: Path) -> Found | None:
    if (path / _DATASET).is_file():
        said = read_mapping(path / _DATASET, "dataset")
        numbers = ", ".join(f"{shown(said.get(f'total_{what}'))} {what}" for what in ("episodes", "frames"))
        return Found(f"a LeRobot dataset ({shown(said.get('codebase_version'))}): {numbers} at {shown(said.get('fps'))}"
                     " Hz", f"vla-ros dataset show {path}; vla-ros dataset check {path}")
    names = sorted(file.name for file in path.iterdir())
    if "metadata.yaml" in names or any(name.endswith(_BAG) for name in names):
        said = "" if "metadata.yaml" in names else " without metadata.yaml (vla-ros bag repair writes it)"
        return Found(f"a rosbag2 bag{said}", f"vla-ros bag show {path}")
    if _GRAPHS in names:
        return _by_keys(read_mapping(path / _GRAPHS, "graphs"), path / _GRAPHS)
    if (path / "checkpoints").is_dir():
        steps = sorted(file.name for file in (path / "checkpoints").glob("step-*"))
        found = f"checkpoints {', '.join(steps[-3:])}" if steps else "no checkpoint yet"
        return Found(f"the folder of a training run: {found}", f"vla-ros info {path / 'checkpoints' / 'last'}; "
                     f"vla-ros train --config {path / 'config.yaml'} --resume continues it")
    if logs := [name for name in names if name.endswith("_node.log")]:
        bags = [f"; vla-ros bag show {path / 'bag'}"] if "bag" in names else []
        return Found(f"the folder of a run of nodes, with their logs {', '.join(logs)}",
                     "".join([f"any editor: {path / logs[0]}", *bags]))
    return None


def _xml(path: Path) -> Found:
    if b"<robot" not in read_bytes(path, "file", MOST_BYTES):
        return Found("an XML file", "ros2 security (docs/security.md) where it is an SROS2 policy")
    name, joints = parse_urdf(path)[0].get("name", ""), load_urdf(path)
    return Found(f"a URDF of the robot {shown(name)} with {len(joints)} movable joints: {', '.join(joints)}",
                 f"vla-ros robot new --urdf {path} -o ROBOT.yaml makes a robot file from it; together with a robot "
                 "file: "
                 f"vla-ros info ROBOT.yaml --urdf {path}")


def _mapping(path: Path) -> Found | None:
    """A YAML or JSON file."""
    data = read_mapping(path, "file")
    if "server" in data:
        return Found(f"a policy file of the server {read_server(path).server}",
                     f"vla-ros run --policy {path} --robot ROBOT")
    if data.keys() & (ROBOT | POLICY):
        return None
    if "rosbag2_bagfile_information" in data:
        return Found("the description of a rosbag2 bag", f"vla-ros bag show {path.parent}")
    if found := _by_keys(data, path):
        return found
    if named := sections(path) if path.suffix != ".json" else {}:
        return Found(_parameters(path, named), f"vla-ros run … --params {path}; ros2 run PACKAGE NODE --ros-args "
                     f"--params-file {path}")
    from vla_ros.training.config import TrainConfig

    if len(data.keys() & TrainConfig.__dataclass_fields__.keys()) >= 3:
        config, other = record(TrainConfig, data), "of the command line"
        return Found(f"a training config: {config.steps} steps, family {config.family or other}, dataset "
                     f"{config.dataset or other}", f"vla-ros train --config {path}")
    raise InputError(
        f"{path}: a mapping of {', '.join(map(shown, list(data)[:8])) or 'nothing'}, expected a robot file (with "
        f"{', '.join(sorted(ROBOT))}), a policy file ({' or '.join(sorted(POLICY))}), a parameter file "
        "(ros__parameters), a training config (family, steps) or a bag's metadata.yaml"
    )


def _by_keys(data: Mapping[str, Any], path: Path) -> Found | None:
    """JSON that commands and viewers write."""
    if {"policy", "control", "tasks"} <= data.keys() and isinstance(data["tasks"], dict):
        rates = (f"{kind} {task.get('successes')} of {task.get('layouts')}" for kind, task in data["tasks"].items()
                 if isinstance(task, dict))  # fmt: skip
        return Found(f"results of vla-ros eval of {shown(data['policy'])}: {', '.join(rates)}", f"any editor: {path}")
    if {"errors", "warnings", "findings"} <= data.keys():
        return Found(f"findings of vla-ros dataset check: {shown(data['errors'])} errors", f"any editor: {path}")
    if {"policies", "comparison"} <= data.keys():
        return Found("a report of vla-ros replay", f"any editor: {path}")
    if {"family", "graphs", "format"} <= data.keys() and isinstance(data["graphs"], dict):
        files = [shown(one.get("file")) for one in data["graphs"].values() if isinstance(one, dict)]
        return Found(f"graphs of {shown(data['family'])} that vla-ros export wrote: {shown(data['format'])}, "
                     f"{', '.join(files)}", f"a program that runs {shown(data['format'])} (docs/engines.md); {path} "
                     "says what they take and give")
    if {"configById", "layout"} <= data.keys():
        return Found("a layout of Foxglove", "Foxglove: Layouts, Import from file (docs/viewing.md)")
    return None


def _parameters(path: Path, named: Mapping[str, Mapping[str, Any]]) -> str:
    """What a parameter file sets. Raises InputError if one of our nodes would refuse it."""
    for section, values in named.items():
        node = section.rpartition("/")[2]
        if node not in NODES:
            continue
        try:
            module, kind = NODES[node]
            parameters = getattr(import_module(module), kind)
        except ImportError:  # no ROS here
            continue
        known = parameters.__dataclass_fields__
        check_parameters(section.replace("/**", ""), node, known, [], [str(path)])
        try:
            build(parameters, {name: value for name, value in values.items() if name in known})
        except InputError as error:
            raise InputError(f"parameter file {path}: {section}: {error}") from None
    return f"a ROS parameter file for {', '.join(f'{name} ({len(values)})' for name, values in named.items())}"


_KINDS: dict[str, Callable[[Path], Found]] = {
    ".urdf": _xml,
    ".xml": _xml,
    ".xacro": lambda path: Found("a URDF that is still to be expanded", f"xacro {path} > robot.urdf"),
    ".rviz": lambda path: Found("a configuration of RViz", f"rviz2 -d {path}"),
    ".mp4": lambda path: Found(f"a video of {path.stat().st_size / 1e6:.1f} MB", f"any video player: {path}"),
    ".jsonl": lambda path: Found("figures, a line for each step", f"any editor: {path}"),
}
SUFFIXES = (*_KINDS, *_BAG, ".yaml", ".json", ".safetensors")
