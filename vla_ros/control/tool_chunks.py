"""End-effector parts of chunks: check that they are for this tool, and convert them to poses."""

from dataclasses import replace

import numpy as np

from vla_ros.control.recent import Recent, between
from vla_ros.control.tool_arm import ToolArm
from vla_ros.control.tool_pose import PoseArm
from vla_ros.core.chunk import SPATIAL, ActionChunk, Part, Space, Targets
from vla_ros.core.errors import InputError
from vla_ros.core.rotations import SIZES
from vla_ros.core.tool import POSITION, places, pose_names, rotation_form

_PROPER = 1e-3  # tolerance of a rotation matrix


class UnobservedError(InputError):
    """There was no command or measurement around the time from which differences count."""


class TooFarError(InputError):
    """Differences add up to a position that is not finite."""


class ToolChunks:
    """Remembers commands and measurements of the joints, because differences are relative to where the tool was.

    A difference is relative to the row before it, the first one to the pose that was commanded for the chunk's stamp,
    and each takes one step: the tool is at row k at `stamp + (k + 1) * step_dt`. So the command for the stamp of the
    next chunk contains as many differences as steps have passed, and none is followed twice. The poses do not depend on
    when the chunk arrives. Measured positions are used only if there was no command, because an arm that sags under its
    load would be commanded a little lower with each chunk.
    """

    def __init__(self, arm: ToolArm | PoseArm, timeout: float, keep: float, future_tolerance: float) -> None:
        """`timeout`: s from a time within which a measurement is used for it; `keep`: s for which commands and
        measurements are kept; `future_tolerance`: s by which joint states may be late (later ones mean that time was
        set back)."""
        self.arm, self._timeout, self._late_ns = arm, timeout, round(future_tolerance * 1e9)
        self._measured, self._commands = Recent(keep), Recent(keep)

    def clear(self) -> None:
        """Forget measurements and commands."""
        self._measured.clear()
        self._commands.clear()

    def silent(self) -> None:
        """Commands pause: forget the earlier ones."""
        self._commands.clear()

    def commanded(self, stamp_ns: int, position: np.ndarray) -> None:
        """(J,) the command for that time, rad or m."""
        self._commands.add(stamp_ns, position, 0)

    def joint_state(self, stamps_ns: np.ndarray, position: np.ndarray) -> None:
        """(J,) newest positions, rad or m, and their stamps; their common stamp is that of the arm's oldest joint."""
        if np.isfinite(position[self.arm.columns]).all():
            self._measured.add(int(stamps_ns[self.arm.columns].min()), position, self._late_ns)

    def start(self, stamp_ns: int) -> np.ndarray:
        """(J,) the joints from which differences with that stamp count, rad or m: the command for that time,
        interpolated; the last command holds until the next. If there was none, the measured position. Raises
        UnobservedError.
        """
        before, after = self._commands.around(stamp_ns)
        if before:
            return between(stamp_ns, before, after or before)
        if (measured := self._measured.near(stamp_ns, self._timeout)) is None:
            raise UnobservedError(f"no command for its stamp and no joint states within {self._timeout} s of it, from "
                                  "where its differences count")
        return measured

    def problem(self, part: Part) -> str:
        """Why such a part is not for this tool, in words; "" if it is. The values are not checked."""
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
        """The chunk with the part as poses in the tool's frame: columns x, y, z and the rotation matrix. Differences
        get one more row, because the first pose is the one from which they count.

        Raises InputError for values that are not a rotation, UnobservedError if there was neither a command nor a
        measurement for the stamp, TooFarError for differences that add up to a position that is not finite.
        """
        place, rotation = places(part)
        off = np.abs(rotation @ rotation.swapaxes(-1, -2) - np.eye(3)).max(axis=(1, 2))
        off = np.where(np.linalg.det(rotation) > 0, off, np.inf)
        if not (off <= _PROPER).all():
            raise InputError(f"row {int(np.argmax(~(off <= _PROPER)))}: no rotation, expected one as "
                             f"{rotation_form(part.names)}")
        if part.space == Space.END_EFFECTOR_DELTA:
            start = self.arm.pose(self.start(chunk.stamp_ns))
            place, rotation = add_up(place, rotation, part.frame == self.arm.tool.link, start)
            if not (finite := np.isfinite(place).all(axis=1)).all():
                row = int(np.argmin(finite)) - 1
                raise TooFarError(f"tool, row {row}: differences add up to a position that is not finite")
        data = np.concatenate([place, rotation.reshape(-1, 9)], axis=1)
        names, frame = pose_names("matrix"), self.arm.tool.frame
        pose = Part(names, data, Space.END_EFFECTOR_POSE, self.arm.tool.link, frame)
        more = len(data) - chunk.horizon
        others = (replace(p, data=np.concatenate([p.data, p.data[len(p.data) - more :]]))
                  for p in chunk.targets.parts if p.space not in SPATIAL)
        return replace(chunk, targets=Targets((*others, pose)))


def add_up(
    place: np.ndarray, rotation: np.ndarray, own: bool, start: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(H, 3) and (H, 3, 3) differences, along the tool's own axes or those of its frame, to `start` and the H poses
    after it."""
    here, turned = start
    places, rotations = np.empty((len(place) + 1, 3)), np.empty((len(place) + 1, 3, 3))
    places[0], rotations[0] = here, turned
    for k in range(len(place)):
        if own:
            here, turned = here + turned @ place[k], turned @ rotation[k]
        else:
            here, turned = here + place[k], rotation[k] @ turned
        places[k + 1], rotations[k + 1] = here, turned
    return places, rotations


def apart(place: np.ndarray, rotation: np.ndarray, other: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """(..., 2): m and rad between poses, (..., 3) and (..., 3, 3) each."""
    cosine = 0.5 * (np.einsum("...ij,...ij->...", rotation, turned) - 1.0)
    return np.stack([np.linalg.norm(place - other, axis=-1), np.arccos(np.clip(cosine, -1.0, 1.0))], axis=-1)
