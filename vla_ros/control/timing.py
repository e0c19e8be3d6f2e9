"""How the control loop keeps its time."""

_RATE_WINDOW = 0.5  # s over which the rate is measured


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
        self._last: tuple[int, int] | None = None
        self._mark: tuple[int, int] | None = None  # ticks and steady time where the rate's window began

    def tick(self, now_ns: int, steady_ns: int, lateness: float) -> tuple[float, float] | None:
        """Note a tick. Gives the ROS time and the steady time since the one before, s; None for the first."""
        self.ticks += 1
        self.worst_lateness = max(self.worst_lateness, lateness)
        self.overruns += int(lateness > self.period)
        if self._mark is None:
            self._mark = (self.ticks, steady_ns)
        window = (steady_ns - self._mark[1]) * 1e-9
        if window >= _RATE_WINDOW:
            self.rate = (self.ticks - self._mark[0]) / window
            self._mark = (self.ticks, steady_ns)
        last, self._last = self._last, (now_ns, steady_ns)
        return None if last is None else ((now_ns - last[0]) * 1e-9, (steady_ns - last[1]) * 1e-9)
