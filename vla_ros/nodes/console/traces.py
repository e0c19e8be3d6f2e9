"""Data of the live plot: for each joint the chunks, their blend, the command and the measured position."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vla_ros.control.blending import MODES, Blender
from vla_ros.control.timeline import Timeline
from vla_ros.core.chunk import ActionChunk
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.stamps import NS
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.executor.parameters import ExecutorParameters

SPAN = 10.0  # s of history that a new page gets
MOST_ROWS = 100  # rows of a chunk that are drawn; of a longer one every k-th
BLENDED = ("mode", "ensemble_m", "crossfade", "rtc_crossfade", "interpolation", "max_chunk_age")
_LONGEST_CHUNK = 1e6  # s
_PENDING = 20  # chunks whose acceptance is not known yet


def rounded(values: Iterable[float]) -> list[float | None]:
    """Rounded to 0.1 mrad (less than a pixel) for JSON, which has no NaN."""
    return [round(value, 4) if math.isfinite(value) else None for value in values]


class Traces:
    """Takes messages and time, and makes samples and chunks for JSON.

    The blend is recomputed from the accepted chunks with the executor's own classes and parameters: what it follows,
    before the limits.

    Attributes:
        samples, chunks: of the last `SPAN` s, for a page that is opened.
        fates: (chunk's id, "accepted" or "refused") since they were last taken.
    """

    def __init__(self, robot: RobotSpec) -> None:
        self._robot, self._names = robot, robot.joint_names
        self.samples: deque[dict[str, Any]] = deque()
        self.chunks: deque[dict[str, Any]] = deque(maxlen=200)
        self.fates: list[tuple[str, str]] = []
        self._pending: dict[tuple[int, int], tuple[ActionChunk, dict[str, Any]]] = {}
        self._counts = (0, 0)  # accepted and refused, by the executor's last status
        self._measured = dict.fromkeys(self._names, math.nan)
        self._command = dict(self._measured)
        self._parameters: dict[str, Any] | None = None
        self.take_parameters({})

    def take_parameters(self, values: Mapping[str, Any]) -> None:
        """Parameters of the executor that define the blend; defaults if they are not known."""
        if values == self._parameters:
            return
        own, self._parameters = ExecutorParameters(), dict(values)
        mode, m, fade, rtc_fade, shape, oldest = (values.get(name, getattr(own, name)) for name in BLENDED)
        mode = mode if mode in MODES else own.mode
        self._timeline = Timeline(self._names, shape == "cubic", oldest)
        self._blender = Blender(mode, self._robot.discrete, m, rtc_fade if mode == "rtc" else fade)

    def measured(self, names: Sequence[str], positions: Sequence[float]) -> None:
        self._measured |= {n: p for n, p in zip(names, positions, strict=False) if n in self._measured}

    def commanded(self, names: Sequence[str], positions: Sequence[float]) -> None:
        self._command |= {n: p for n, p in zip(names, positions, strict=False) if n in self._command}

    def take_chunk(self, chunk: ActionChunk, now_ns: int) -> dict[str, Any] | None:
        """The chunk for the page; None if it has joints that the robot does not have, or no end."""
        if not chunk.duration < _LONGEST_CHUNK:
            return None
        try:
            rows = chunk.targets.joint_positions(self._names, np.full(len(self._names), np.nan))
        except ValueError:
            return None
        step = -(-len(rows) // MOST_ROWS)
        drawn = {
            "id": f"{chunk.session}-{chunk.sequence}", "t": chunk.stamp_ns / NS, "dt": chunk.step_dt * step,
            "end": chunk.stamp_ns / NS + chunk.duration, "came": now_ns / NS, "fate": "",
            "rows": [rounded(row) for row in rows[::step]],
        }  # fmt: skip
        self.chunks.append(drawn)
        self._pending[chunk.session, chunk.sequence] = chunk, drawn
        for old in list(self._pending)[:-_PENDING]:
            del self._pending[old]
        return drawn

    def take_status(self, status: ExecutorStatus) -> None:
        """Find the chunks that were accepted since the last status, from its counts."""
        accepted, refused = (new - old for new, old in zip(self._now(status), self._counts, strict=True))
        self._counts = self._now(status)
        done = [key for key in self._pending
                if key[0] == status.chunk_session and key[1] <= status.chunk_sequence]
        fate = "" if accepted and refused else "accepted" if accepted else "refused" if refused else ""
        for key in done if accepted or refused else ():
            chunk, drawn = self._pending.pop(key)
            drawn["fate"] = fate
            if fate:
                self.fates.append((drawn["id"], fate))
            if fate == "accepted":
                self._timeline.keep(chunk.instruction_id)
                self._timeline.add(chunk)
        if status.state <= ExecutorStatus.INACTIVE:
            self._command = dict.fromkeys(self._names, math.nan)
        if not status.live_chunks:
            self._timeline.clear()
            self._blender.reset()

    @staticmethod
    def _now(status: ExecutorStatus) -> tuple[int, int]:
        return status.accepted_chunks, status.refused_chunks

    def sample(self, now_ns: int) -> dict[str, Any]:
        """Sample everything now; kept for `SPAN` s."""
        self._timeline.prune(now_ns)
        predictions = self._timeline.predictions(now_ns)
        blend = [] if predictions is None else self._blender.target(now_ns, predictions)[0]
        made = {"t": now_ns / NS, "c": rounded(self._command.values()), "m": rounded(self._measured.values()),
                "b": rounded(blend)}
        self.samples.append(made)
        while self.samples[0]["t"] < made["t"] - SPAN or self.samples[0]["t"] > made["t"]:
            self.samples.popleft()
        return made
