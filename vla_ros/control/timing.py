"""Timing of the control loop."""

from collections.abc import Iterator

_RATE_WINDOW = 0.5  # s over which the rate is measured
_UNSEEN_NS = 1_000_000  # but at most a quarter of a period, because two clocks are not read at the same moment
_ROUNDING_NS = 1_000  # a simulator's rounding must not delay a tick to its next message


class Timing:
    """Counts ticks and measures their rate and lateness.

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
    """The control periods of a clock that arrives in messages at any times: a grid from `start` on.

    Ticks are one period apart, in whole ns, whatever the steps of the clock are: they are the times of the grid that
    the clock has reached. If a clock keeps to the grid except for rounding, the grid follows it. Only a step of more
    than `jump_limit` and two periods, or a step back, is a jump: it gives a single tick at the message's own time,
    which begins a new grid.
    """

    def __init__(self, rate: float, jump_limit: float) -> None:
        """`rate`: Hz. `jump_limit`: s."""
        self._period_ns = round(1e9 / rate)
        self._jump_ns = max(jump_limit * 1e9, 2.0 * self._period_ns)
        self._at_ns = self._steady_ns = 0  # time of the last tick
        self._anchor_ns = self._ticks = 0
        self._kept = True  # the clock has kept to the grid so far, and a simulator waits for commands with its times

    def start(self, now_ns: int) -> tuple[int, int]:
        """A new grid, after a pause; its first tick, as of `due`."""
        paused = self._at_ns and now_ns >= self._at_ns
        return self._begin(now_ns, now_ns - self._at_ns if paused else self._period_ns)

    def due(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """The ticks that are due with a clock message: time, and steady time on the grids, ns."""
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
    """The times that commands are computed for and stamped with.

    In real time it is steady time plus an offset to ROS time, which is determined while the robot is at rest: even if
    the clock is set, the stamps of a motion are as far apart as its commands. In simulated time it
    is ROS time itself.

    Attributes:
        stamp_ns: of this tick.
        interval_ns: since the last tick; one period for the first one, and if simulated time jumped.
        leap_ns: change of ROS time since the last tick, less the time that passed.
        away_ns: how far ROS time is ahead of the stamp.
    """

    def __init__(self, period_ns: int, tolerance_ns: int, simulated: bool) -> None:
        """`tolerance_ns`: a larger jump does not count as time that passed."""
        self.period_ns, self.tolerance_ns, self.simulated = period_ns, tolerance_ns, simulated
        self.begin()

    def begin(self) -> None:
        """The next tick is the first one."""
        self.stamp_ns = self.interval_ns = self.leap_ns = self.away_ns = 0
        self._steady_ns: int | None = None
        self._offset_ns = 0

    def tick(self, now_ns: int, steady_ns: int, at_rest: bool) -> bool:
        """Go to the next tick. True if the stamp was corrected, so that it is not as far from the last one as the
        ticks."""
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
