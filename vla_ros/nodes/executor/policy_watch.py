"""Watches whether the policy is running, by its status, which it publishes twice a second."""

import math
import time
from collections.abc import Callable

_PATIENCE = 3.0  # s
_UNLISTED = 0.2  # s after which the middleware lists the publisher of a status that arrived
_LONGEST = 0.2  # s that one check counts for, two periods of the checks


class PolicyWatch:
    """Reports when a policy that was heard is gone, and when it is back.

    It is gone when its status did not arrive for 3 s, or no longer has a publisher. In simulated time only the latter
    counts, because a slow policy is no fault there. (The middleware's liveliness leases are not used, because their
    timers and locks fail when a peer is killed.)
    """

    def __init__(self, simulated: bool, on_change: Callable[[bool], None], clock: Callable[[], float] = time.monotonic):
        """`on_change`: called with False when the policy is gone, True when it is heard first or again."""
        self._patience = math.inf if simulated else _PATIENCE
        self._on_change, self._clock = on_change, clock
        self._there, self._silence, self._looked = False, 0.0, clock()

    def heard(self) -> None:
        """A status arrived."""
        self._silence = 0.0
        if not self._there:
            self._there = True
            self._on_change(True)

    def look(self, listed: bool) -> None:
        """Called every 0.1 s. `listed`: the status has a publisher."""
        now = self._clock()
        # After a pause of this process the policy was not silent: its messages are taken after this check.
        self._silence += min(now - self._looked, _LONGEST)
        self._looked = now
        if self._there and self._silence > (self._patience if listed else _UNLISTED):
            self._there = False
            self._on_change(False)
