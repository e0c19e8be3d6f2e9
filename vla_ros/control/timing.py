"""Timing of the control loop."""

from collections.abc import Iterator

_RATE_WINDOW = 0.5  # s over which the rate is measured
_UNSEEN_NS = 1_000_000  # but at most a quarter of a period: two clocks are not read at one moment
_ROUNDING_NS = 1_000  # a simulator's rounding must not put a tick off to its next message


class Timing:
    """Counts ticks and how they came.

    Attributes:
        ticks: since the beginning.
        overruns: ticks late by more than one period.
        rate: Hz, measured over the last half second or more; 0 before.
        worst_lateness: s, since it was last set to 0.
    """

    def __init__(self, period: float) -> None:
        """`period`: s."""
        self.period = period
        self.clear()

    def clear(self) -> None:
        self.ticks = self.overruns = 0
        self.rate = self.worst_lateness = 0.0
        self._mark: tuple[int, int] | None = None  # ticks and steady time where the rate's window began

    def tick(self, steady_ns: int, lateness: float) -> None:
        """Note a tick, late by `lateness` s."""
        self.ticks += 1
        self.worst_lateness = max(self.worst_lateness, lateness)
        self.overruns += int(lateness > self.period)
        if self._mark is None:
            self._mark = (self.ticks, steady_ns)
        window = (steady_ns - self._mark[1]) * 1e-9
        if window >= _RATE_WINDOW:
            self.rate = (self.ticks - self._mark[0]) / window
            self._mark = (self.ticks, steady_ns)


class SimulatedPeriods:
    """The control periods of a clock that comes in messages, at any times: a grid from `start` on.

    Between ticks lies one period in whole ns, whatever steps the clock makes: their instants are those of the grid that
    the clock has reached. A clock that keeps to the grid but for rounding takes it along. Only a step beyond
    `jump_limit` and two periods, or back, is a leap: a single tick at the message's own time, which begins a new grid.
    """

    def __init__(self, rate: float, jump_limit: float) -> None:
        """`rate`: Hz. `jump_limit`: s."""
        self._period_ns = round(1e9 / rate)
        self._jump_ns = max(jump_limit * 1e9, 2.0 * self._period_ns)
        self._at_ns = self._steady_ns = 0  # of the last tick
        self._anchor_ns = self._ticks = 0
        self._kept = True  # so far the clock has kept to the grid, and its times are those that a simulator waits for

    def start(self, now_ns: int) -> tuple[int, int]:
        """A new grid, after a pause; its first tick, as of `due`."""
        paused = self._at_ns and now_ns >= self._at_ns
        return self._begin(now_ns, now_ns - self._at_ns if paused else self._period_ns)

    def due(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """The ticks that a clock message makes due: instant, and time passed on the grids, which never leaps, ns."""
        if not self._at_ns or not 0 <= now_ns - self._at_ns <= self._jump_ns:
            yield self._begin(now_ns, self._period_ns)
            return
        rounding_ns = _ROUNDING_NS if self._kept else 0
        due = (now_ns + rounding_ns - self._anchor_ns) // self._period_ns
        while self._ticks < due:
            self._ticks += 1
            at_ns = self._anchor_ns + self._ticks * self._period_ns
            if self._ticks == due:
                self._kept &= abs(at_ns - now_ns) <= rounding_ns
                if self._kept:
                    self._anchor_ns, self._ticks, due, at_ns = now_ns, 0, 0, now_ns
            yield self._tick(at_ns, at_ns - self._at_ns)

    def _begin(self, now_ns: int, passed_ns: int) -> tuple[int, int]:
        self._anchor_ns, self._ticks, self._kept = now_ns, 0, True
        return self._tick(now_ns, passed_ns)

    def _tick(self, at_ns: int, passed_ns: int) -> tuple[int, int]:
        self._at_ns = at_ns
        self._steady_ns += passed_ns
        return at_ns, self._steady_ns


class CommandTime:
    """The time that commands are made for and stamped with.

    In real time it is the loop's steady time and an offset to ROS time, taken where the robot stands still: whatever is
    done to the clock, commands of a motion are as far apart by their stamps as they are in truth. In simulated time it
    is ROS time itself.

    Attributes:
        stamp_ns: of this tick.
        interval_ns: since the tick before; one period for the first one, and where simulated time leapt.
        leap_ns: what ROS time gained since the tick before, beside what passed.
        away_ns: how far ROS time is ahead of the stamp.
    """

    def __init__(self, period_ns: int, tolerance_ns: int, simulated: bool) -> None:
        """`tolerance_ns`: a leap that is larger is no part of the time that passed."""
        self.period_ns, self.tolerance_ns, self.simulated = period_ns, tolerance_ns, simulated
        self.begin()

    def begin(self) -> None:
        """The next tick is the first one."""
        self.stamp_ns = self.interval_ns = self.leap_ns = self.away_ns = 0
        self._steady_ns: int | None = None
        self._offset_ns = 0

    def tick(self, now_ns: int, steady_ns: int, at_rest: bool) -> bool:
        """Go on to the next tick. True if the stamp was corrected: it is not as far from the last one as the ticks."""
        if self._steady_ns is None:
            self._steady_ns, self._offset_ns, self.away_ns = steady_ns - self.period_ns, now_ns - steady_ns, 0
        passed = steady_ns - self._steady_ns
        away_ns = now_ns - steady_ns - self._offset_ns
        self.leap_ns, self.away_ns = away_ns - self.away_ns, away_ns
        self._steady_ns, self.interval_ns = steady_ns, passed
        correct = self.simulated or (at_rest and abs(away_ns) > min(_UNSEEN_NS, self.period_ns // 4))
        if correct:
            if self.simulated and abs(away_ns) < self.tolerance_ns:
                self.interval_ns += away_ns
            self._offset_ns += away_ns
            self.away_ns = 0
        self.stamp_ns = steady_ns + self._offset_ns
        return correct and not self.simulated
