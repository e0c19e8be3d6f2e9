"""The chunks that are still valid, on one time axis."""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.control.interpolation import hermite, linear, slopes
from vla_ros.core.chunk import ActionChunk

POSE_WIDTH = 12  # of a pose in blended chunks: position and rotation matrix
MAX_CHUNKS = 512  # bounds the cost of a tick
MAX_ROWS = 50_000  # number of chunks x rows of the longest one: bounds the cost of adding one
_SNAP = 1e-6  # steps: a time this close to a row counts as that row, because step_dt is rounded


@dataclass(frozen=True)
class Predictions:
    """The predictions of the live chunks for one time, oldest first.

    Attributes:
        position: (L, J) rad or m, NaN for the joints that a chunk does not contain; with a tool (L, J + 12), followed
            by its pose: x, y, z in m and the rotation matrix row by row, interpolated linearly.
        velocity: (L, J) slope just before that time, rad/s or m/s, NaN likewise.
        nearest: (J,) nearest row of the newest chunk that contains the joint, NaN if none does.
        partial: whether there may be any NaN.
        newest: the newest of the chunks.
    """

    position: np.ndarray
    velocity: np.ndarray
    nearest: np.ndarray
    partial: bool
    newest: ActionChunk


@dataclass
class _Entry:
    chunk: ActionChunk
    rows: np.ndarray  # (H + 1, J): the last row holds for a step, so it is there twice
    slopes: np.ndarray  # (H + 1, J)


class Timeline:
    """The chunks that are not over yet, ordered by the time of their observation.

    The rows of all chunks lie in one array, so that the cost of a tick hardly depends on their number.
    """

    def __init__(
        self, names: Sequence[str], cubic: bool = False, max_age: float = np.inf, tool: int = 0
    ) -> None:
        """`names`: J joints. A chunk older than `max_age` (s since its stamp) is not used, whatever its horizon.

        `tool`: columns of the pose that chunks may hold, as `ToolChunks.absolute` makes it; 0: of no tool.
        """
        self.names = tuple(names)
        self._width = len(self.names) + tool
        self.cubic = cubic
        self.max_age = max_age
        self._entries: list[_Entry] = []
        self._stack()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def chunks(self) -> tuple[ActionChunk, ...]:
        """Oldest first."""
        return tuple(entry.chunk for entry in self._entries)

    def add(self, chunk: ActionChunk) -> None:
        rows = np.full((chunk.horizon, self._width), np.nan)
        rows[:, : len(self.names)] = chunk.targets.joint_positions(self.names, rows[0, : len(self.names)])
        if pose := chunk.targets.spatial:
            rows[:, len(self.names) :] = pose.data
        rows = np.concatenate([rows, rows[-1:]])
        curve = slopes(rows) if self.cubic else np.zeros_like(rows)
        insort(self._entries, _Entry(chunk, rows, curve), key=lambda entry: entry.chunk.stamp_ns)
        longest = max(len(entry.rows) for entry in self._entries)
        del self._entries[: -max(1, min(MAX_CHUNKS, MAX_ROWS // longest))]
        self._stack()

    def clear(self) -> None:
        self._entries.clear()
        self._stack()

    def keep(self, instruction_id: int) -> None:
        """Drop the chunks of every other instruction."""
        if any(entry.chunk.instruction_id != instruction_id for entry in self._entries):
            self._entries = [entry for entry in self._entries if entry.chunk.instruction_id == instruction_id]
            self._stack()

    def prune(self, now_ns: int) -> None:
        """Drop the chunks that are over at `now_ns`."""
        if len(self._entries) and now_ns > self._first_end_ns:
            self._entries = [entry for entry in self._entries if self._end_ns(entry.chunk) >= now_ns]
            self._stack()

    def predictions(self, now_ns: int) -> Predictions | None:
        """The predictions of the live chunks for `now_ns`; None if there are none."""
        if not self._entries:
            return None
        s = (now_ns - self._stamps) * 1e-9 / self._dts  # (C,) in steps; exact, since stamps are int64
        whole = np.rint(s)
        s = np.where(np.abs(s - whole) < _SNAP, whole, s)
        live = (s >= 0) & (s < self._horizons) & (s * self._dts <= self.max_age + _SNAP)
        index = np.flatnonzero(live)
        if not len(index):
            return None
        s, dt = s[index], self._dts[index][:, None]
        # the segment that ends at or after the time: its slope is the one just before it
        k = np.maximum(np.ceil(s) - 1, 0).astype(int)
        f = (s - k)[:, None]
        first, second = self._rows[index, k], self._rows[index, k + 1]
        if self.cubic:
            value, slope = hermite(first, second, self._slopes[index, k], self._slopes[index, k + 1], f)
        else:
            value, slope = linear(first, second, f)
        newest = self._entries[index[-1]].chunk
        nearest = self._rows[index[-1], int(s[-1] + 0.5)]
        if self._partial:
            rows = self._rows[index, (s + 0.5).astype(int)]
            source = len(rows) - 1 - np.isfinite(rows)[::-1].argmax(axis=0)  # the last row where no chunk does
            nearest = rows[source, np.arange(rows.shape[1])]
        return Predictions(value, slope / dt, nearest, self._partial, newest)

    def _end_ns(self, chunk: ActionChunk) -> int:
        return chunk.stamp_ns + int(min(chunk.duration, self.max_age) * 1e9) + 1000

    def _stack(self) -> None:
        chunks = self.chunks
        longest = max((len(entry.rows) for entry in self._entries), default=0)
        self._rows = np.zeros((len(chunks), longest, self._width))
        self._slopes = np.zeros_like(self._rows)
        for i, entry in enumerate(self._entries):
            self._rows[i, : len(entry.rows)] = entry.rows
            self._slopes[i, : len(entry.rows)] = entry.slopes
        self._stamps = np.array([chunk.stamp_ns for chunk in chunks], dtype=np.int64)
        self._dts = np.array([chunk.step_dt for chunk in chunks])
        self._horizons = np.array([chunk.horizon for chunk in chunks])
        self._first_end_ns = min((self._end_ns(chunk) for chunk in chunks), default=0)
        self._partial = bool(np.isnan(self._rows[:, :1]).any())
