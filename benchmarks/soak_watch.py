"""How `soak.py` judges the commands that it hears, and what it remembers of the time around a finding."""

from collections import Counter, deque
from typing import Any, NamedTuple

import numpy as np
from command_check import Bounds, CommandCheck

OVERRUN_LIMIT_NS = 100_000_000
_TRAIL_NS = 90_000_000_000  # longer than the commands that are checked in one go
_FINDINGS = 10  # whose trails are kept


class Heard(NamedTuple):
    """A command as it came.

    Attributes:
        stamp: ns.
        position: (J,) rad or m.
        publisher: what the middleware calls it; the executor has another one after each activation.
        number: of that publisher's messages, from 1: those that are missing were sent and did not come.
    """

    stamp: int
    position: np.ndarray
    publisher: Any
    number: int

    def missing(self, last: "Heard | None") -> int:
        """Commands of this publisher that were sent before this one and since the `last`, and did not come."""
        known = last is not None and last.publisher == self.publisher
        return self.number - 1 - (last.number if known else 0)


class Watch:
    """Checks the commands of one group, some time after they came.

    Attributes:
        lost: commands that were sent and did not come.
        after_silence: where commands began after a silence or an activation -> how often.
        jumps: what began elsewhere, in words, with the stamps before and after.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds, self.check = bounds, CommandCheck(bounds)
        self.pending: deque[Heard] = deque()
        self.last: Heard | None = None
        self.lost = 0
        self.after_silence: Counter[str] = Counter()
        self.jumps: list[tuple[str, int, int]] = []

    def settle(
        self, until_ns: int, stops: list[tuple[int, bool]], inactive: list[int], measured: list[tuple[int, np.ndarray]]
    ) -> None:
        """Check what is stamped before `until_ns`.

        Args:
            stops: (stamp, whether it says that nothing may be followed) of the statuses, in ascending order. What lies
                between two that say so was stopped; one that was lost on the way changes nothing.
            inactive: stamps of those that say that the executor was deactivated; commands begin anew after one.
            measured: (stamp, (J,)) what the executor was told.
        """
        times = [at for at, _ in stops]
        while self.pending and self.pending[0].stamp < until_ns:
            heard, last = self.pending.popleft(), self.last
            missing = heard.missing(last)
            self.lost += missing
            if last is None:
                self.check.begin(heard.position, heard=not missing)
            else:
                silent = heard.stamp - last.stamp > OVERRUN_LIMIT_NS + self.bounds.period * 1e9
                another = heard.publisher != last.publisher
                if silent or another or any(last.stamp < at <= heard.stamp for at in inactive):
                    self._begin(heard, missing, measured)
            after = int(np.searchsorted(times, heard.stamp))
            stopped = 0 < after < len(stops) and stops[after - 1][1] and stops[after][1]
            self.check.add(heard.position, heard.stamp, stopped=stopped)
            self.last = heard

    def _begin(self, heard: Heard, missing: int, measured: list[tuple[int, np.ndarray]]) -> None:
        """After a silence it goes on from rest at the last command, or at what was measured since."""
        position, last = heard.position, self.last
        if missing:  # it may be in motion by now; nobody who listened here heard where it began
            self.after_silence["not heard"] += 1
            self.check.begin(position, heard=False)
            return
        reach = self.bounds.acceleration * self.bounds.period**2 * (1 + 1e-6) + 1e-9
        said = [x for at, x in measured if last.stamp < at <= heard.stamp]
        for words, starts, far in (
            ("at a measured position", reversed(said), 1e-9),
            ("at the last command", [last.position], reach),
        ):
            near = next((start for start in starts if (np.abs(position - start) <= far).all()), None)
            if near is not None:
                self.after_silence[words] += 1
                self.check.begin(near if words == "at the last command" else position)  # a measured one is rounded
                return
        words = f"{position} after {last.position}, {(heard.stamp - last.stamp) * 1e-9:.3f} s later"
        self.jumps.append((words, last.stamp - 500_000_000, heard.stamp + 100_000_000))
        self.check.begin(position)


class Trail:
    """What came in the last minute and a half, for a look at what was found."""

    def __init__(self) -> None:
        self._entries: deque[tuple[int, int, str, Any]] = deque()  # stamp and arrival, ns
        self.findings: list[dict[str, Any]] = []
        self._known: set[str] = set()

    def note(self, stamp: int, now_ns: int, what: str, value: Any) -> None:
        """`value`: for json."""
        self._entries.append((stamp, now_ns, what, value))
        while self._entries[0][1] < now_ns - _TRAIL_NS:
            self._entries.popleft()

    def keep(self, words: str, first: int, last: int) -> None:
        """Something was found about what is stamped from `first` to `last`, ns: once for the same words."""
        if words in self._known or len(self.findings) >= _FINDINGS:
            return
        self._known.add(words)
        near = [entry for entry in self._entries if first <= entry[0] <= last or first <= entry[1] <= last]
        fault = next((entry[3] for entry in reversed(self._entries) if entry[2] == "fault" and entry[0] <= last), "")
        trail = [[round((at - first) * 1e-9, 6), round((now - first) * 1e-9, 6), *rest] for at, now, *rest in near]
        self.findings.append({"what": words, "fault before": fault, "stamp, arrival, what, value": trail})
