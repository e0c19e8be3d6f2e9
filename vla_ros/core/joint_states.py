"""Measured positions of joints: the meaning of sensor_msgs/JointState for executor, policies, bags and viewers."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import inf, isfinite

import numpy as np

from vla_ros.core.errors import InputError, shown

NEVER = np.iinfo(np.int64).max  # ns, of a measurement that does not exist
_MOST_OTHERS = 10  # other joints that an error names


def joint_fault(names: Sequence[str], position: Sequence[float]) -> str:
    """Why a message is inconsistent, in words; "" if it is not. It may contain no positions."""
    if len(position) not in (0, len(names)):
        return f"{len(names)} names and {len(position)} positions, expected as many"
    if len(set(names)) != len(names):
        return f"joint {shown(next(name for name in names if names.count(name) > 1))} is duplicated"
    return ""


class JointStates:
    """The positions of J joints over time, joint by joint.

    Drivers may send the joints in any order, in several messages and on several topics, together with joints that are
    not the robot's. The position of a joint at time t is the last one measured at or before t, so a late message never
    replaces a newer value. Values that are not finite are ignored: the joint becomes stale and is reported.

    Attributes:
        names: of the joints.
        position: (J,) rad or m, the newest; NaN if there is none yet.
        stamps_ns: (J,) int64 ROS time at which they were measured, 0 if there is none yet.
    """

    def __init__(self, names: Sequence[str], history: float = 0.0) -> None:
        """`history`: s; for how long earlier positions of a joint are kept."""
        self.names = tuple(names)
        self._columns = {name: i for i, name in enumerate(self.names)}
        self._history_ns = history if history == inf else round(history * 1e9)
        self.clear()

    def clear(self) -> None:
        """Forget all positions."""
        self.position = np.full(len(self.names), np.nan)
        self.stamps_ns = np.zeros(len(self.names), dtype=np.int64)
        self._times = [array("q") for _ in self.names]  # of each joint, ascending, if there is a history
        self._values = [array("d") for _ in self.names]
        self._others: dict[str, None] = {}

    def add(self, stamp_ns: int, names: Sequence[str], position: Sequence[float]) -> list[int]:
        """Add the positions of a message, rad or m. Returns the columns of the joints whose position is now newer.

        Of two values of a joint with the same stamp, the one that arrived later counts. Raises InputError for an
        inconsistent message; nothing of it is used then.
        """
        if fault := joint_fault(names, position):
            raise InputError(fault)
        newer = []
        for name, value in zip(names, position, strict=False):  # there may be no positions
            column = self._columns.get(name)
            if column is None:
                if len(self._others) < _MOST_OTHERS:
                    self._others[name] = None
                continue
            if not isfinite(value):
                continue
            if self._history_ns:
                self._keep(column, stamp_ns, value)
            if stamp_ns >= self.stamps_ns[column] or np.isnan(self.position[column]):
                self.position[column], self.stamps_ns[column] = value, stamp_ns
                newer.append(column)
        return newer

    def _keep(self, column: int, stamp_ns: int, value: float) -> None:
        times, values = self._times[column], self._values[column]
        row = bisect_right(times, stamp_ns)
        if row and times[row - 1] == stamp_ns:
            values[row - 1] = value
            return
        times.insert(row, stamp_ns)
        values.insert(row, value)
        first = bisect_right(times, times[-1] - self._history_ns) - 1
        if first > 0:
            del times[:first], values[:first]

    @property
    def complete_ns(self) -> int | None:
        """The stamp of the oldest joint, ns; None while a joint has no position."""
        return None if np.isnan(self.position).any() else int(self.stamps_ns.min())

    def at(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """(J,) positions at a time, and (J,) the times at which they were measured, ns; NaN and 0 if there is none."""
        position, stamps_ns = self.position.copy(), self.stamps_ns.copy()
        for column in np.flatnonzero(stamps_ns > time_ns):
            times = self._times[column]
            row = bisect_right(times, time_ns) - 1
            found = row >= 0
            position[column] = self._values[column][row] if found else np.nan
            stamps_ns[column] = times[row] if found else 0
        return position, stamps_ns

    def count_since(self, time_ns: int) -> np.ndarray:
        """(J,) how many times each joint was measured at or after a time."""
        return np.array([len(times) - bisect_left(times, time_ns) for times in self._times])

    def first_since(self, time_ns: int) -> np.ndarray:
        """(J,) int64 when each joint was first measured at or after a time, ns; NEVER if it was not."""
        rows = [(times, bisect_left(times, time_ns)) for times in self._times]
        return np.array([times[row] if row < len(times) else NEVER for times, row in rows], dtype=np.int64)

    def problem(self, time_ns: int, limit: float, ahead: float = 0.0) -> str:
        """The joints whose position is older than `limit` s at a time, in words; "" if there are none.

        `ahead`: s; positions measured up to this long after the time count too (clocks of two machines).
        """
        position, stamps_ns = self.at(time_ns + round(ahead * 1e9))
        there = ~np.isnan(position)
        if there.all() and time_ns - int(stamps_ns.min()) <= limit * 1e9:
            return ""
        said: dict[str, list[str]] = {}  # what is wrong -> joints
        for column, name in enumerate(self.names):
            age = (time_ns - int(stamps_ns[column] if there[column] else self.stamps_ns[column])) * 1e-9
            if np.isnan(self.position[column]):
                others = f" (others are there: {', '.join(map(shown, self._others))})" if self._others else ""
                said.setdefault(f"never seen{others}", []).append(name)
            elif not there[column]:
                said.setdefault(f"{-age:.3f} s ahead", []).append(name)
            elif age > limit:
                said.setdefault(f"{age:.3f} s old, limit {limit:g} s", []).append(name)
        return "; ".join(f"joint{'s' * (len(who) > 1)} {', '.join(who)}: {words}" for words, who in said.items())
