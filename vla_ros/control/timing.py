"""How the control loop keeps its time."""

_RATE_WINDOW = 0.5  # s over which the rate is measured
_UNSEEN_NS = 100_000  # two clocks cannot be read at one moment: so small a difference may be none


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
        """Go on to the next tick. True if a standing robot's stamps were set back, so that they are less far apart."""
        passed = self.period_ns if self._steady_ns is None else steady_ns - self._steady_ns
        if self._steady_ns is None or passed <= 0:  # the first tick, or simulated time that was started again
            passed = now_ns - self.stamp_ns if self._steady_ns is not None else passed
            self._offset_ns = now_ns - steady_ns
            self.away_ns = 0
        away_ns = now_ns - steady_ns - self._offset_ns
        self.leap_ns, self.away_ns = away_ns - self.away_ns, away_ns
        self._steady_ns, self.interval_ns = steady_ns, passed
        correct = self.simulated or (at_rest and abs(away_ns) > _UNSEEN_NS)
        if correct:
            if self.simulated and abs(away_ns) < self.tolerance_ns:
                self.interval_ns += away_ns
            self._offset_ns += away_ns
            self.away_ns = 0
        self.stamp_ns = steady_ns + self._offset_ns
        return correct and not self.simulated and away_ns < 0
