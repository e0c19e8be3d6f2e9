"""Messages to an Observation, the same way for a live graph and for a bag."""

import threading
from bisect import bisect_right
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import COMMAND, JOINT_STATES, Stream
from vla_ros.messages.decoders import Readings, decoder_of
from vla_ros.messages.selection import partners, rows_at
from vla_ros.messages.stamps import NS, is_stamped, stamp_ns

__all__ = ["JOINT_STATES", "NotReady", "ObservationBuilder", "message_stamp"]


class NotReady(InputError):
    """Streams are missing, stale or cannot be decoded. `streams` names them, the message says why."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{stream}: {why}" for stream, why in problems.items()))
        self.streams = tuple(problems)


def message_stamp(stream: Stream, message: Any, received_ns: int) -> int:
    """ns: of the header; the time of receipt for a type without one, and for a command that says "now" (zero)."""
    if not is_stamped(type(message)):
        return received_ns
    stamp = stamp_ns(message)
    return received_ns if stream.is_command and not stamp else stamp


class _Entry:
    """A message with its stamp; decoded once, when an observation first needs it."""

    __slots__ = ("message", "readings", "stamp")

    def __init__(self, stamp: int, message: Any) -> None:
        self.stamp, self.message, self.readings = stamp, message, None


class ObservationBuilder:
    """Keeps the newest messages of every stream of a robot and makes observations of them.

    `add` is cheap (it decodes nothing) and may be called from another thread than `build`.

    Args:
        robot: its file says which streams there are.
        max_age: s; an image or joint state that is older than this at the time asked for is refused; the other
            streams say it themselves. None: any age, of all streams.
        history: s; messages this much older than the newest of their stream are kept, for observations of earlier
            instants (policies with a history) and for messages that run ahead of the clock.
        names: streams to observe; by default all except commands. Those that are chosen together with them are
            needed as well: `streams` are all.

    Raises:
        InputError: for a stream that the robot does not have or that nothing can decode.
    """

    def __init__(
        self,
        robot: RobotSpec,
        max_age: float | None = 0.5,
        history: float = 0.25,
        names: Collection[str] | None = None,
    ) -> None:
        if names is None:
            names = [name for name, stream in robot.all_streams.items() if not stream.is_command]
        self.robot = robot
        self.names = self._spelled(names)
        self.streams = {stream.name: stream for stream in robot.chosen_with({*names, JOINT_STATES})}
        # The rest is looked up for every message that arrives. A limit of None: any age.
        self._limits_ns = {
            name: None if max_age is None or stream.once
            else round((max_age if stream.is_camera or stream.is_state else stream.max_age) * NS)
            for name, stream in self.streams.items()
        }  # fmt: skip
        self._history_ns = {
            name: round(history * NS) + max(stream.offsets_ns) for name, stream in self.streams.items()
        }
        self._decoders = {name: decoder_of(stream, robot) for name, stream in self.streams.items()}
        self._columns = {
            COMMAND + group.name: [robot.joint_names.index(name) for name in group.joints] for group in robot.groups
        }
        self._entries: dict[str, list[_Entry]] = {name: [] for name in self.streams}
        self._stamps: dict[str, list[int]] = {name: [] for name in self.streams}
        self._lock = threading.Lock()

    def _spelled(self, names: Collection[str]) -> tuple[str, ...]:
        """The state by the names of its streams."""
        spelled = [n for name in names for n in (self.robot.state_streams if name == JOINT_STATES else [name])]
        return tuple(dict.fromkeys(spelled))

    @property
    def paced(self) -> list[str]:
        """Streams that pace; what is chosen together with such a stream does too, else it would pair with the past."""
        return [n for n, s in self.streams.items() if s.paces or (s.with_ and self.streams[s.with_].paces)]

    def add(self, stream: str, message: Any, stamp: int | None = None) -> None:
        """Keep a message of a stream, stamped by its header or with `stamp`, ns.

        The order of arrival does not matter; of two messages with one stamp the later one counts.
        """
        entry = _Entry(stamp_ns(message) if stamp is None else stamp, message)
        with self._lock:
            entries, stamps = self._entries[stream], self._stamps[stream]
            index = bisect_right(stamps, entry.stamp)
            if index and stamps[index - 1] == entry.stamp:
                entries[index - 1] = entry
            else:
                entries.insert(index, entry)
                stamps.insert(index, entry.stamp)
            # The oldest one kept is the last that is not after the start of the history.
            first = max(bisect_right(stamps, stamps[-1] - self._history_ns[stream]) - 1, 0)
            del entries[:first], stamps[:first]

    def clear(self) -> None:
        """Forget everything but what is published once: after a jump of the clock."""
        with self._lock:
            for name, stream in self.streams.items():
                if not stream.once:
                    self._entries[name].clear()
                    self._stamps[name].clear()

    def problems(self, stamp_ns: int) -> dict[str, str]:
        """Streams that have no fresh message at `stamp_ns`, with the reason."""
        return self._select(stamp_ns, self.names)[1]

    def build(self, stamp_ns: int, instruction: str = "", names: Collection[str] | None = None) -> Observation:
        """The robot at `stamp_ns` (ns on the ROS clock): of every stream what `messages.selection` chooses.

        A command that is missing or stale is the state of its joints: nobody commands them, so they hold.

        Args:
            names: streams to observe instead of all; the images and values of the others are absent.

        Raises:
            NotReady: names every stream that is missing, stale (with its age) or cannot be decoded.
        """
        names = self.names if names is None else self._spelled(names)
        if any(name.startswith(COMMAND) for name in names):
            names = dict.fromkeys((*names, *self.robot.state_streams))
        found, problems = self._select(stamp_ns, names)
        readings: Readings = {}
        for name, entries in found.items():
            try:
                for entry in entries:
                    self._decode(name, entry)
                readings |= self._joined(name, entries)
            except InputError as error:
                problems[name] = str(error)
        state = np.empty(0)
        if not problems and any(self.streams[name].is_state for name in names):
            try:
                state = self._state(readings)
            except InputError as error:
                problems[JOINT_STATES] = str(error)
        if problems:
            raise NotReady(problems)
        for name in names:
            if name.startswith(COMMAND) and name not in readings:
                readings[name] = state[self._columns[name]]
        stamps = {name: entries[-1].stamp for name, entries in found.items()}
        timed = [stamp for name, stamp in stamps.items() if self._is_timed(name)] or list(stamps.values())
        return Observation(
            stamp_ns=max(timed, default=stamp_ns),
            images={name: readings.pop(name) for name in names if self.streams[name].is_camera},
            state=state,
            instruction=instruction,
            stamps_ns=stamps,
            values={name: value for name, value in readings.items() if not name.startswith(JOINT_STATES)},
            columns=self._columns,
        )

    def _is_timed(self, name: str) -> bool:
        """Cameras and joint states say when an observation was made; the others ride along."""
        return self.streams[name].is_camera or self.streams[name].is_state

    def _select(self, now: int, names: Collection[str]) -> tuple[dict[str, list[_Entry]], dict[str, str]]:
        """stream -> the entries to use, and why others have none; a command without any is in neither."""
        found, problems = {}, {}
        with self._lock:
            rows = rows_at(self._stamps, self.streams.values(), now)
            for name in names:
                stream, entries = self.streams[name], self._entries[name]
                chosen = None if rows[name] is None else [entries[row] for row in rows[name]]
                why = self._trouble(stream, chosen, now)
                if not why:
                    found[name] = chosen
                elif not stream.is_command:
                    problems[name] = why
        return found, problems

    def _trouble(self, stream: Stream, chosen: list[_Entry] | None, now: int) -> str:
        """Why the chosen entries cannot be used; empty when they can. Holds the lock."""
        if chosen is None:
            stamps = self._stamps[stream.name]
            if not stamps:
                return "no message yet"
            if stamps[0] > now:
                return f"nothing yet: the oldest message lies {(stamps[0] - now) / NS:.3f} s ahead"
            if self._partners(stream):
                return f"no message at the same instant as one of {self._partners(stream)}"
            early = stamps[0] - (now - stream.offsets_ns[0])
            return f"its window begins {early / NS:.3f} s before the oldest message"
        limit = self._limits_ns[stream.name]
        if limit is None:
            return ""
        age = max([now - offset - entry.stamp for offset, entry in zip(stream.offsets_ns, chosen, strict=True)])
        if age <= limit:
            return ""
        others = self._partners(stream)
        said = f"{age / NS:.3f} s old" + (f" where it is together with {others}" if others else "")
        return f"{said}, expected at most {limit / NS:.3f} s"

    def _partners(self, stream: Stream) -> str:
        return ", ".join(partners(stream, self.streams.values()))

    def _decode(self, name: str, entry: _Entry) -> None:
        if entry.readings is None:
            entry.readings, entry.message = self._decoders[name](entry.message), None

    def _joined(self, name: str, entries: list[_Entry]) -> Readings:
        if self.streams[name].window is None:
            return entries[0].readings
        return {name: np.stack([entry.readings[name] for entry in entries])}

    def _state(self, readings: Readings) -> np.ndarray:
        """(J,) of all topics of joint states. Raises InputError for a joint that is on none or on several."""
        parts = [readings[name] for name in self.robot.state_streams]
        if len(parts) == 1:
            return parts[0]
        counts = np.isfinite(parts).sum(axis=0)
        bad = np.flatnonzero(counts != 1)
        if bad.size:
            raise InputError(
                f"joint {self.robot.joint_names[bad[0]]!r} is on {counts[bad[0]]} of the topics "
                f"{list(self.robot.joint_state_topics)}, expected one"
            )
        return np.nansum(parts, axis=0)
