"""Messages to an Observation, the same way for a live graph and for a bag."""

import threading
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.joint_states import JointStates
from vla_ros.core.observation import Observation
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import COMMAND, JOINT_STATES, Stream
from vla_ros.messages.decoders import Readings, decoder_of
from vla_ros.messages.joints import measured
from vla_ros.messages.selection import partners, rows_at
from vla_ros.messages.stamps import NS, is_stamped, stamp_ns


class NotReady(InputError):
    """Streams are missing, stale or cannot be decoded. `streams` names them, the message says why."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{stream}: {why}" for stream, why in problems.items()))
        self.streams = tuple(problems)


def message_stamp(stream: Stream, message: Any, received_ns: int) -> int:
    """ns: of the header; the time of receipt for a type without one, where the robot file says `stamps: arrival` and,
    except for cameras, where it is zero.

    A stamp of zero means "now".
    """
    if stream.stamps == "arrival" or not is_stamped(type(message)):
        return received_ns
    stamp = stamp_ns(message)
    return stamp if stamp or stream.is_camera else received_ns


def foreign_clock(stream: Stream, stamp_ns: int, arrived_ns: int, otherwise: str) -> str:
    """A message for a stamp that is more than FAR_NS from the clock. `otherwise`: advice if the stamp is right and the
    clock is wrong."""
    what = "this camera does" if stream.is_camera else "these stamps do"
    option = "" if stream.is_state or stream.is_command else "set `stamps: arrival` for it in the robot file, or "
    return (f"stamped {stamp_ns / NS:.3f}, arrived at {arrived_ns / NS:.3f}: {what} not use the system clock: "
            f"{option}{otherwise}")


def unexpected_sizes(robot: RobotSpec, images: Mapping[str, np.ndarray]) -> set[str]:
    """A sentence for each camera whose image, (H, W, 3), differs in size from the robot file."""
    return {
        f"camera {c.name}: images of {images[c.name].shape[1]}x{images[c.name].shape[0]} pixels, the robot file says "
        f"{c.width}x{c.height}: each policy scales them as it was trained"
        for c in robot.cameras if c.name in images and images[c.name].shape[:2] != (c.height, c.width)
    }  # fmt: skip


class _Entry:
    """A message with its stamp; decoded once, when an observation first needs it."""

    __slots__ = ("message", "readings", "stamp")

    def __init__(self, stamp: int, message: Any) -> None:
        self.stamp, self.message, self.readings = stamp, message, None


class _Kept:
    """The kept messages of one stream, oldest first, and what is needed to decode them."""

    def __init__(self, stream: Stream, robot: RobotSpec, max_age: float | None, history: float) -> None:
        self.stream = stream
        self.decode = decoder_of(stream, robot)
        limit = max_age if stream.is_camera else stream.max_age
        ceases = stream.name in {COMMAND + group.name for group in robot.base_groups}  # a base then stands still
        self.limit_ns = np.inf if (max_age is None and not ceases) or stream.once else round(limit * NS)
        self.history_ns = round(history * NS) + stream.offsets_ns[0]
        self.entries: list[_Entry] = []
        self.stamps: list[int] = []

    def readings(self, entries: Sequence[_Entry]) -> Readings:
        """Values of the chosen messages: one, or those of a window. Raises InputError."""
        for entry in entries:
            if entry.readings is None:
                entry.readings, entry.message = self.decode(entry.message), None
                for value in entry.readings.values():
                    value.flags.writeable = False  # observations share it
        if self.stream.window is None:
            return entries[0].readings
        return {self.stream.name: np.stack([entry.readings[self.stream.name] for entry in entries])}


class ObservationBuilder:
    """Keeps the newest messages of every stream of a robot and makes observations of them.

    `add` is cheap (it decodes nothing) and may be called from another thread than `build`.

    Args:
        robot: its file says which streams there are.
        max_age: s; an image or a joint that is older than this at the time asked for is refused; the other streams
            have their own limit. None: any age, of all streams but the commands of a base.
        history: s; messages this much older than the newest of their stream are kept, for observations of earlier
            instants (policies with a history) and for messages that run ahead of the clock.
        names: streams to observe; by default all except commands. Those that are chosen together with them are
            needed as well: `streams` are all.
        optional: those of `names` that an observation may lack, as does a robot: a missing or stale one is no problem,
            and never waited for. One that cannot be decoded is a problem even so.

    Attributes:
        joints: the joint states, of all their topics.

    Raises:
        InputError: for a stream that the robot does not have or that nothing can decode.
    """

    def __init__(
        self, robot: RobotSpec, max_age: float | None = 0.5, history: float = 0.25,
        names: Collection[str] | None = None, optional: Collection[str] = (),
    ) -> None:
        if names is None:
            names = [name for name, stream in robot.all_streams.items() if not stream.is_command]
        self.robot = robot
        self.joints = JointStates(robot.joint_names, history)
        self._max_age = np.inf if max_age is None else max_age
        self._optional = frozenset(optional)
        self._names = self._spelled(names)
        self.streams = {stream.name: stream for stream in robot.chosen_with({*self._names, JOINT_STATES})}
        self._chosen = {name: stream for name, stream in self.streams.items() if not stream.is_state}
        self._kept = {name: _Kept(stream, robot, max_age, history) for name, stream in self._chosen.items()}
        self._stamps = {name: kept.stamps for name, kept in self._kept.items()}
        self._cameras = tuple(name for name, stream in self.streams.items() if stream.is_camera)
        self._columns = {
            COMMAND + group.name: [robot.joint_names.index(name) for name in group.joints] for group in robot.groups
        }
        self._lock = threading.RLock()

    def _spelled(self, names: Collection[str]) -> tuple[str, ...]:
        """The names that the robot has, without duplicates, plus the state if there are commands."""
        names = [name for name in names if name not in self._optional or name in self.robot.all_streams]
        state = [JOINT_STATES] if any(name.startswith(COMMAND) for name in names) else []
        spelled = [JOINT_STATES if name in self.robot.state_streams else name for name in names]
        return tuple(dict.fromkeys([*spelled, *state]))

    @property
    def paced(self) -> list[str]:
        """Streams that pace, and those that are chosen together with them."""
        return [n for n, s in self.streams.items()
                if n not in self._optional and (s.paces or (s.with_ and self.streams[s.with_].paces))]

    def add(self, stream: str, message: Any, stamp: int | None = None) -> None:
        """Keep a message of a stream, stamped by its header or with `stamp`, ns.

        The order of arrival does not matter; of two messages with one stamp the later one counts. Raises InputError for
        inconsistent joint states, which have no effect.
        """
        entry = _Entry(stamp_ns(message) if stamp is None else stamp, message)
        with self._lock:
            if (state := self.streams[stream]).is_state:
                self.joints.add(entry.stamp, *measured(state, message))
                return
            kept = self._kept[stream]
            entries, stamps = kept.entries, kept.stamps
            index = bisect_right(stamps, entry.stamp)
            if index and stamps[index - 1] == entry.stamp:
                entries[index - 1] = entry
            else:
                entries.insert(index, entry)
                stamps.insert(index, entry.stamp)
            # The oldest one kept is the last that is not after the start of the history.
            first = max(bisect_right(stamps, stamps[-1] - kept.history_ns) - 1, 0)
            del entries[:first], stamps[:first]

    def clear(self) -> None:
        """Forget everything except what is published once, after a jump of the clock."""
        with self._lock:
            self.joints.clear()
            for kept in self._kept.values():
                if not kept.stream.once:
                    kept.entries.clear()
                    kept.stamps.clear()

    def problems(self, stamp_ns: int) -> dict[str, str]:
        """Streams that have no fresh message at `stamp_ns`, with the reason; of the joint states every such joint."""
        return self._select(stamp_ns, self._names)[1]

    def build(self, stamp_ns: int, instruction: str = "", names: Collection[str] | None = None) -> Observation:
        """The robot at `stamp_ns` (ns on the ROS clock): of every stream what `messages.selection` chooses.

        If a command is missing or stale, the state of its joints is used, since they hold their positions; for a base
        it is zero.

        Args:
            names: streams to observe instead of all; the images and values of the others are absent.

        Raises:
            NotReady: names every stream that is missing, stale (with its age) or cannot be decoded.
        """
        names = self._names if names is None else self._spelled(names)
        with self._lock:
            found, problems = self._select(stamp_ns, names)
            state, measured_ns = self.joints.at(stamp_ns)
        readings: Readings = {}
        for name, entries in found.items():
            try:
                readings.update(self._kept[name].readings(entries))
            except InputError as error:
                problems[name] = str(error)
        if problems:
            raise NotReady(problems)
        for name in names:
            if name.startswith(COMMAND) and name not in found:
                columns = self._columns[name]
                readings[name] = np.where(self.robot.velocities[columns], 0.0, state[columns])
        stamps = {name: entries[-1].stamp for name, entries in found.items()}
        timed = [stamps[name] for name in self._cameras if name in stamps]
        if JOINT_STATES in names:
            timed.append(int(measured_ns.max()))
            stamps[JOINT_STATES] = int(measured_ns.min())  # the oldest joint decides whether they are fresh
        return Observation(
            stamp_ns=max(timed or stamps.values(), default=stamp_ns),
            images={name: readings.pop(name) for name in self._cameras if name in found},
            state=state if JOINT_STATES in names else np.empty(0),
            instruction=instruction,
            stamps_ns=stamps,
            values=readings,
            columns=self._columns,
        )

    def _select(self, now: int, names: Collection[str]) -> tuple[dict[str, list[_Entry]], dict[str, str]]:
        """stream -> the entries to use, and why others have none; a command without entries is in neither.

        The state has no entries, only problems: every joint that is missing or stale.
        """
        found, problems = {}, {}
        with self._lock:
            rows = rows_at(self._stamps, self._chosen.values(), now)
            for name in names:
                if name == JOINT_STATES:
                    if said := self.joints.problem(now, self._max_age):
                        problems[name] = said
                    continue
                kept, chosen = self._kept[name], rows[name]
                if chosen is None:
                    why = self._missing(kept, now)
                else:
                    entries = [kept.entries[row] for row in chosen]
                    age = now - entries[-1].stamp
                    if len(entries) > 1:
                        offsets = kept.stream.offsets_ns
                        age = max(now - offset - entry.stamp for offset, entry in zip(offsets, entries, strict=True))
                    if age <= kept.limit_ns:
                        found[name] = entries
                        continue
                    why = self._stale(kept, age)
                if not kept.stream.is_command and name not in self._optional:
                    problems[name] = why
        return found, problems

    def _missing(self, kept: _Kept, now: int) -> str:
        """Why no messages of a stream can be chosen."""
        if not kept.stamps:
            return "no message yet"
        oldest = kept.stamps[0]
        if oldest > now:
            return f"nothing yet: the oldest message is {(oldest - now) / NS:.3f} s ahead"
        if others := partners(kept.stream, self.streams.values()):
            return f"no message at the same instant as one of {others}"
        early = oldest - (now - kept.stream.offsets_ns[0])
        return f"its window begins {early / NS:.3f} s before the oldest message"

    def _stale(self, kept: _Kept, age: int) -> str:
        """Why the messages that were chosen, `age` ns old, are refused."""
        others = partners(kept.stream, self.streams.values())
        said = f"{age / NS:.3f} s old" + (f" where it is together with {others}" if others else "")
        return f"{said}, expected at most {kept.limit_ns / NS:.3f} s"
