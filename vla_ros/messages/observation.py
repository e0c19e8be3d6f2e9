"""Messages to an Observation, the same way for a live graph and for a bag."""

import threading
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.images import rgb_image
from vla_ros.messages.joints import joint_positions
from vla_ros.messages.stamps import NS, stamp_ns

JOINT_STATES = "joint_states"  # the name of this stream, whatever its topic


class NotReady(InputError):
    """Streams are missing, stale or cannot be decoded. `streams` names them, the message says why."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{stream}: {why}" for stream, why in problems.items()))
        self.streams = tuple(problems)


class _Entry:
    """A message with its stamp; decoded once, when an observation first needs it."""

    __slots__ = ("message", "stamp", "value")

    def __init__(self, stamp: int, message: Any) -> None:
        self.stamp, self.message, self.value = stamp, message, None


class ObservationBuilder:
    """Keeps the newest messages of every stream of a robot and makes observations of them.

    `add` is cheap (it decodes nothing) and may be called from another thread than `build`.

    Args:
        robot: which streams there are: its cameras and JOINT_STATES.
        max_age: s; a part that is older than this at the time asked for is refused. None: any age.
        history: s; messages this much older than the newest of their stream are kept, for observations of earlier
            instants (policies with a history) and for messages that run ahead of the clock.
    """

    def __init__(self, robot: RobotSpec, max_age: float | None = 0.5, history: float = 0.25) -> None:
        self.robot = robot
        self.streams = (*robot.camera_names, JOINT_STATES)
        self._max_age_ns = None if max_age is None else round(max_age * NS)
        self._history_ns = round(history * NS)
        self._entries: dict[str, list[_Entry]] = {stream: [] for stream in self.streams}
        self._lock = threading.Lock()

    def add(self, stream: str, message: Any) -> None:
        """Keep a message: an Image or CompressedImage for a camera's name, a JointState for JOINT_STATES.

        The order of arrival does not matter; of two messages with one stamp the later one counts.
        """
        entry = _Entry(stamp_ns(message), message)
        with self._lock:
            entries = self._entries[stream]
            index = bisect_right(entries, entry.stamp, key=_stamp)
            if index and entries[index - 1].stamp == entry.stamp:
                entries[index - 1] = entry
            else:
                entries.insert(index, entry)
            # The oldest one kept is the last that is not after the start of the history.
            first = bisect_right(entries, entries[-1].stamp - self._history_ns, key=_stamp) - 1
            del entries[: max(first, 0)]

    def clear(self) -> None:
        """Forget everything: after a jump of the clock."""
        with self._lock:
            for entries in self._entries.values():
                entries.clear()

    def problems(self, stamp_ns: int) -> dict[str, str]:
        """Streams that have no fresh message at `stamp_ns`, with the reason."""
        found = self._select(stamp_ns)
        return {stream: entry for stream, entry in found.items() if isinstance(entry, str)}

    def build(self, stamp_ns: int, instruction: str = "") -> Observation:
        """The robot at `stamp_ns` (ns on the ROS clock): of every stream the last message not after it.

        Raises:
            NotReady: names every stream that is missing, stale (with its age) or cannot be decoded.
        """
        found = self._select(stamp_ns)
        problems = {stream: entry for stream, entry in found.items() if isinstance(entry, str)}
        for stream, entry in found.items():
            if stream not in problems:
                try:
                    self._decode(stream, entry)
                except InputError as error:
                    problems[stream] = str(error)
        if problems:
            raise NotReady(problems)
        stamps = {stream: entry.stamp for stream, entry in found.items()}
        return Observation(
            stamp_ns=max(stamps.values()),
            images={name: found[name].value for name in self.robot.camera_names},
            state=found[JOINT_STATES].value,
            instruction=instruction,
            stamps_ns=stamps,
        )

    def _select(self, now: int) -> dict[str, _Entry | str]:
        """stream -> the entry to use, or why there is none."""
        found: dict[str, _Entry | str] = {}
        with self._lock:
            for stream, entries in self._entries.items():
                index = bisect_right(entries, now, key=_stamp) - 1
                if index >= 0:
                    age = now - entries[index].stamp
                    stale = self._max_age_ns is not None and age > self._max_age_ns
                    found[stream] = (
                        f"{age / NS:.3f} s old, expected at most {self._max_age_ns / NS:.3f} s" if stale
                        else entries[index]
                    )
                elif entries:
                    found[stream] = f"nothing yet: the oldest message lies {(entries[0].stamp - now) / NS:.3f} s ahead"
                else:
                    found[stream] = "no message yet"
        return found

    def _decode(self, stream: str, entry: _Entry) -> None:
        if entry.value is not None:
            return
        if stream == JOINT_STATES:
            value = joint_positions(entry.message, self.robot.joint_names)
        else:
            camera = self.robot.camera(stream)
            value = rgb_image(entry.message)
            if value.shape[:2] != (camera.height, camera.width):
                raise InputError(
                    f"image of {value.shape[1]}x{value.shape[0]} pixels, "
                    f"the robot file says {camera.width}x{camera.height}"
                )
        value.flags.writeable = False
        entry.value, entry.message = value, None


def _stamp(entry: _Entry) -> int:
    return entry.stamp
