"""The path of the tool in an end-effector part of a chunk, for drawing."""

from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from vla_ros.core.chunk import Part, Space
from vla_ros.core.errors import InputError
from vla_ros.core.tool import Tool, places, rotation_form


def rows_of(part: Part, tool: Tool) -> np.ndarray:
    """(H, 4, 4) poses, or differences, in m. Raises InputError for a part that is not this tool's."""
    if not rotation_form(part.names) or part.frame not in (tool.frame, tool.link):
        raise InputError(f"{part.space.name} of {list(part.names)[:15]} in frame {part.frame!r}, expected the tool's")
    rows = np.tile(np.eye(4), (len(part.data), 1, 1))
    rows[:, :3, 3], rows[:, :3, :3] = places(part)
    return rows


def tool_way(part: Part, tool: Tool, poses: Mapping[str, np.ndarray], now: int) -> np.ndarray:
    """(H, 3) positions of the tool for the rows, m, in the frame of the URDF's root; for differences (H + 1, 3),
    including where they begin.

    Args:
        poses: link -> (4, 4) pose in the root's frame, of the command.
        now: number of steps since the chunk's stamp, i.e. the current row of the result. Differences add up so that
            this row is at the command, because only the executor knows where they begin.
    """
    rows, frame = rows_of(part, tool), poses[part.frame]
    if part.space == Space.END_EFFECTOR_POSE:
        return (frame @ rows)[:, :3, 3]
    rows = np.concatenate([np.eye(4)[None], rows])
    if part.frame == tool.link:
        rows = np.array(list(accumulate(rows, np.matmul)))
        places = (rows[:, :3, 3] - rows[now, :3, 3]) @ rows[now, :3, :3]  # in the present frame of the tool
    else:
        places = np.cumsum(rows[:, :3, 3], axis=0)
        places -= places[now]
    return poses[tool.link][:3, 3] + places @ frame[:3, :3].T
