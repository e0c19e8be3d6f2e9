"""End-effector parts of chunks: whether they are for this tool, and as which poses they are followed."""

from collections import deque
from dataclasses import replace

import numpy as np

from vla_ros.control.tool_arm import ToolArm
from vla_ros.core.chunk import SPATIAL, ActionChunk, Part, Space, Targets
from vla_ros.core.errors import InputError
from vla_ros.core.rotations import SIZES, to_matrix
from vla_ros.core.tool import POSITION, pose_names, rotation_form

_PROPER = 1e-3  # what a rotation matrix may be off by
_MOST_STATES = 10_000


class UnobservedError(InputError):
    """Nothing was measured around the instant from where differences count."""


class ToolChunks:
    """Remembers where the joints were measured, because differences count from where the tool was observed.

    A difference is that of a row to the row before it, the first row's to the pose at the chunk's stamp. So rows are
    the same poses whenever the chunk arrives: a late one is not moved along with the arm.
    """

    def __init__(self, arm: ToolArm, timeout: float, keep: float) -> None:
        """`timeout`: s from a measurement within which it counts; `keep`: s that measurements are remembered."""
        self.arm, self._timeout, self._keep = arm, timeout, keep
        self.clear()

    def clear(self) -> None:
        """What was measured counts no more."""
        self._states: deque[tuple[int, np.ndarray]] = deque(maxlen=_MOST_STATES)

    def joint_state(self, stamp_ns: int, position: np.ndarray) -> None:
        """(J,) newest positions, rad or m, of which the arm's newest is stamped so."""
        if not np.isfinite(position[self.arm.columns]).all() or (self._states and stamp_ns <= self._states[-1][0]):
            return
        self._states.append((stamp_ns, position.copy()))
        while self._states[0][0] < stamp_ns - self._keep * 1e9:
            self._states.popleft()

    def observed(self, stamp_ns: int) -> np.ndarray:
        """(J,) where the joints were then, rad or m, between two measurements along a line. Raises UnobservedError."""
        after = next((state for state in self._states if state[0] >= stamp_ns), None)
        before = next((state for state in reversed(self._states) if state[0] <= stamp_ns), None)
        known = [state for state in (before, after) if state and abs(state[0] - stamp_ns) <= self._timeout * 1e9]
        if not known:
            raise UnobservedError(f"no joint states within {self._timeout} s of its stamp, from where its differences "
                                  "count")
        (first_ns, first), (last_ns, last) = known[0], known[-1]
        share = (stamp_ns - first_ns) / (last_ns - first_ns) if last_ns > first_ns else 0.0
        return first + share * (last - first)

    def problem(self, part: Part) -> str:
        """Why such a part is not for this tool, in words; "" where it is. Numbers are not looked at."""
        tool = self.arm.tool
        if part.group not in ("", tool.link):
            return f"{part.space.name} of {part.group!r}, expected the robot's tool: '' or {tool.link!r}"
        frames = (tool.frame,) if part.space == Space.END_EFFECTOR_POSE else (tool.frame, tool.link)
        if part.frame not in frames:
            return f"{part.space.name} in frame {part.frame!r}, expected {' or '.join(map(repr, frames))}"
        if not rotation_form(part.names):
            return (f"{part.space.name} of {list(part.names)[:15]}, expected {list(POSITION)} and a rotation, as "
                    f"{list(pose_names('vector'))}; forms: {sorted(SIZES)}")
        return ""

    def absolute(self, chunk: ActionChunk, part: Part) -> ActionChunk:
        """The chunk with the part as poses in the tool's frame: columns x, y, z and the rotation matrix.

        Raises InputError for numbers that are no rotation, UnobservedError for differences from where nothing was
        measured.
        """
        form = rotation_form(part.names)
        rows = part.data[:, [part.names.index(name) for name in pose_names(form)]]
        place, rotation = rows[:, :3], to_matrix(rows[:, 3:], form)
        off = np.abs(rotation @ rotation.swapaxes(-1, -2) - np.eye(3)).max(axis=(1, 2))
        off = np.where(np.linalg.det(rotation) > 0, off, np.inf)
        if not (off <= _PROPER).all():
            raise InputError(f"row {int(np.argmax(~(off <= _PROPER)))}: no rotation, expected one as {form}")
        if part.space == Space.END_EFFECTOR_DELTA:
            place, rotation = self._summed(place, rotation, part.frame, self.arm.pose(self.observed(chunk.stamp_ns)))
        data = np.concatenate([place, rotation.reshape(-1, 9)], axis=1)
        names, frame = pose_names("matrix"), self.arm.tool.frame
        pose = Part(names, data, Space.END_EFFECTOR_POSE, self.arm.tool.link, frame)
        return replace(chunk, targets=Targets((*(p for p in chunk.targets.parts if p.space not in SPATIAL), pose)))

    def _summed(
        self, place: np.ndarray, rotation: np.ndarray, frame: str, start: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(H, 3) and (H, 3, 3) differences, along the axes of `frame`, to poses after `start`."""
        here, turned = start
        places, rotations = np.empty_like(place), np.empty_like(rotation)
        for k in range(len(place)):
            if frame == self.arm.tool.link:
                here, turned = here + turned @ place[k], turned @ rotation[k]
            else:
                here, turned = here + place[k], rotation[k] @ turned
            places[k], rotations[k] = here, turned
        return places, rotations


def apart(place: np.ndarray, rotation: np.ndarray, other: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """(..., 2): m and rad between poses, (..., 3) and (..., 3, 3) each."""
    cosine = 0.5 * (np.einsum("...ij,...ij->...", rotation, turned) - 1.0)
    return np.stack([np.linalg.norm(place - other, axis=-1), np.arccos(np.clip(cosine, -1.0, 1.0))], axis=-1)
