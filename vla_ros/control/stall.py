"""Notices a base that stands although it is told to drive: at a wall, or with its motors off."""

import numpy as np

from vla_ros.control.limits import Limits

_TOLD = 0.1  # of its highest speed: what is slower than that is not judged
_FOLLOWED = 0.2  # share of the commanded velocity; a base that makes less stands
_PATIENCE_NS = 2_000_000_000  # that it may stand
_KEPT_NS = 2_500_000_000  # that it is stopped for: longer than a robot may resume by itself (`Resumption`)
_PAUSE_NS = 1_000_000_000  # without a tick, after which it starts over


class Stall:
    """Compares the commanded and the measured velocity of each base, all its dimensions together.

    Attributes:
        fault: which base stands, in words, from 2 s of standing until 2.5 s after that; empty while none does.
    """

    def __init__(self, limits: Limits) -> None:
        groups = np.unique(limits.groups[limits.rates])
        self._limits, self._bases = limits, [limits.rates & (limits.groups == group) for group in groups]
        self.clear()

    def clear(self) -> None:
        """Nothing has been seen yet."""
        self.fault = ""
        self._since: list[int | None] = [None] * len(self._bases)
        self._until_ns, self._last_ns = 0, 0

    def tick(self, steady_ns: int, command: np.ndarray, measured: np.ndarray) -> None:
        """A control period: the last command and the newest measurement, (J,)."""
        if not 0 <= steady_ns - self._last_ns < _PAUSE_NS:
            self._since = [None] * len(self._bases)
        self._last_ns = steady_ns
        if self.fault and steady_ns >= self._until_ns:
            self.clear()
        for i, base in enumerate(self._bases):
            told, made = command[base] / self._limits.speed[base], measured[base] / self._limits.speed[base]
            stands = np.abs(told).max() >= _TOLD and told @ made < _FOLLOWED * (told @ told)
            self._since[i] = (steady_ns if self._since[i] is None else self._since[i]) if stands else None
            if stands and steady_ns - self._since[i] >= _PATIENCE_NS and not self.fault:
                self.fault, self._until_ns = self._words(base, command, measured), steady_ns + _KEPT_NS

    def _words(self, base: np.ndarray, command: np.ndarray, measured: np.ndarray) -> str:
        names = [f"{self._limits.names[i]} {command[i]:.3g} {self._limits.units[i]}, measured {measured[i]:.3g}"
                 for i in np.flatnonzero(base)]  # fmt: skip
        return (f"the controller does not follow: for {_PATIENCE_NS * 1e-9:g} s the base has stood although it is "
                f"commanded {'; '.join(names)}")
