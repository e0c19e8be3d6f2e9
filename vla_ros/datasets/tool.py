"""Actions of a dataset that are poses of a tool, as described by the feature."""

from collections.abc import Mapping, Sequence
from typing import Any

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import value_of
from vla_ros.core.rotations import SIZES
from vla_ros.core.tool import ToolColumns, pose_names

_FIELDS = ("space", "rotation", "frame", "link")


def tool_info(tool: ToolColumns) -> dict[str, str]:
    """`info.tool` of the feature, which `read_tool` reads."""
    return dict(zip(_FIELDS, ("pose", tool.rotation, tool.frame, tool.link), strict=True))


def read_tool(feature: Mapping[str, Any], names: Sequence[str], where: str) -> ToolColumns | None:
    """Which actions are a tool's, by `info.tool` of their feature; None if there are none.

    Args:
        names: of the actions, in the file's order.

    Raises InputError that begins with `where`, also for differences of poses.
    """
    info = feature.get("info")
    if not isinstance(info, Mapping) or info.get("tool") is None:
        return None
    where = f"{where}: action: info.tool"
    said = value_of(dict[str, str], info["tool"], where)
    if said.keys() != set(_FIELDS) or said["rotation"] not in SIZES:
        raise InputError(f"{where}: {shown(said)}, expected {list(_FIELDS)}, the rotation one of {sorted(SIZES)}")
    if said["space"] != "pose":
        raise InputError(f"{where}: space {shown(said['space'])}, expected pose: differences of poses cannot be "
                         "" "trained on")
    pose = pose_names(said["rotation"])
    for name in pose:
        if names.count(name) != 1:
            raise InputError(f"{where}: rotation {said['rotation']}, expected each of {list(pose)} once among the "
                             f"names of the actions {shown(list(names))}")
    joints = tuple(name for name in names if name not in pose)
    return ToolColumns(said["rotation"], said["frame"], said["link"], joints)
