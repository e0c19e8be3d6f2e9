"""How a program that moves a robot handles the signals that ask it to stop."""

import signal
import time
from collections import defaultdict

from vla_ros.core.text import say

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ONE_REQUEST = 0.5  # s: signals of one kind that follow each other so closely are one request


class StopSignals:
    """Counts the signals: only the third of one kind ends a program at once, whether the robot has stopped or not.

    A single stop often sends several signals (a terminal and a launch both send SIGINT, a launch then SIGTERM, and
    systemd sends SIGTERM as well), so each kind is counted separately, and of those within half a second only the first
    counts.
    """

    def __init__(self) -> None:
        self._times: dict[int, list[float]] = defaultdict(list)  # signal: when it counted, s

    def is_third(self, number: int) -> bool:
        """A signal arrived: whether it is the third of its kind. The second and the third print a line on stderr."""
        name, times, now = signal.Signals(number).name, self._times[number], time.monotonic()
        if times and now - times[-1] < _ONE_REQUEST:
            return False
        times.append(now)
        if len(times) == 2:
            say(f"[WARN] {name} again: already stopping; a third one ends it at once, stopped or not", error=True)
        elif len(times) > 2:
            say(f"[FATAL] third {name}: ended without stopping first", error=True)
        return len(times) > 2


def taken() -> list[int]:
    """The signals that a program should handle: not SIGHUP if nohup made it ignored."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in STOPPING if number != signal.SIGHUP or not ignored]
