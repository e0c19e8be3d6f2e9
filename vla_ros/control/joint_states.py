"""What is known of the measured positions, joint by joint."""

from collections.abc import Sequence

import numpy as np


class JointStates:
    """The newest measured position of every joint, and when it was measured.

    Drivers may send the joints in any order, in several messages, among joints that are not ours. What cannot be
    believed (not finite, older than what is known, stamped far ahead) is ignored, so it goes stale and is named.

    Attributes:
        position: (J,) rad or m, NaN until it is known.
        stamps_ns: (J,) int64 ROS time of the measurement.
        arrived_ns: (J,) int64 ROS time when it arrived here.
        ignored: number of values that were not believed.
    """

    def __init__(self, names: Sequence[str], future_tolerance: float) -> None:
        """`future_tolerance`: s a stamp may lie ahead of now."""
        self.names = tuple(names)
        self.future_tolerance_ns = int(future_tolerance * 1e9)
        self._columns = {name: i for i, name in enumerate(self.names)}
        self.ignored = 0
        self.clear()

    def clear(self) -> None:
        """Nothing is known."""
        self.position = np.full(len(self.names), np.nan)
        self.stamps_ns, self.arrived_ns = np.zeros((2, len(self.names)), dtype=np.int64)
        self._since = np.zeros(len(self.names), dtype=bool)

    def update(self, stamp_ns: int, names: Sequence[str], position: Sequence[float], now_ns: int) -> None:
        """A message. A stamp of zero means that its driver does not stamp: the time of arrival counts."""
        stamp_ns = stamp_ns or now_ns
        if len(names) != len(position) or stamp_ns - now_ns > self.future_tolerance_ns or stamp_ns < 0:
            self.ignored += len(names)
            return
        for name, value in zip(names, position, strict=True):
            column = self._columns.get(name)
            if column is None:
                continue
            known_ns = int(self.stamps_ns[column])
            older = stamp_ns < known_ns <= now_ns + self.future_tolerance_ns  # else time was set back meanwhile
            if older or not np.isfinite(value):
                self.ignored += 1
                continue
            self.position[column] = value
            self.stamps_ns[column], self.arrived_ns[column], self._since[column] = stamp_ns, now_ns, True

    def mark(self) -> None:
        """What arrives from now on is told from what is known, whatever is done to the clock."""
        self._since[:] = False

    def since_mark(self, stamp_ns: int, now_ns: int) -> bool:
        """Every joint's position arrived since `mark` and was measured after `stamp_ns`.

        Where time was set back meanwhile (`now_ns` is before `stamp_ns`) stamps say nothing; nor do they of a driver
        whose clock is ahead.
        """
        later = now_ns < stamp_ns or np.minimum(self.stamps_ns, self.arrived_ns) > stamp_ns
        return bool((self._since & later).all())

    def stale(self, now_ns: int, timeout: float) -> str:
        """The joints without a fresh position in words, with their ages; empty when all are fresh. `timeout`: s."""
        if (self.stamps_ns > 0).all() and now_ns - int(self.stamps_ns.min()) <= timeout * 1e9:
            if int(self.stamps_ns.max()) - now_ns <= self.future_tolerance_ns:
                return ""
        words = []
        for name, stamp_ns in zip(self.names, self.stamps_ns, strict=True):
            age = (now_ns - int(stamp_ns)) * 1e-9
            if stamp_ns == 0:
                words.append(f"{name} never seen")
            elif age > timeout:
                words.append(f"{name} {age:.3f} s old")
            elif -age * 1e9 > self.future_tolerance_ns:
                words.append(f"{name} {-age:.3f} s ahead")
        return ", ".join(words) + f", limit {timeout} s"
