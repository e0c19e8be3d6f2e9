"""Watches whether the policy is running, by its statuses: it publishes one twice a second."""

import math
import time
from collections.abc import Callable

_PATIENCE = 3.0  # s
_UNLISTED = 0.2  # s; by then the middleware lists the publisher of a status that arrived
_LONGEST = 0.2  # s that one look counts for, two periods of the looks


class PolicyWatch:
    """Tells when a policy that was heard is gone, and when it is there again.

    It is gone when it said nothing for 3 s, or when the middleware lists no publisher of its status any more. In
    simulated time only the latter counts: a policy that is slow there is no fault. (The middleware's own means for
    this, a liveliness lease, is not used: another timer and other locks in it, which fail when a peer is killed.)
    """

    def __init__(self, simulated: bool, on_change: Callable[[bool], None], clock: Callable[[], float] = time.monotonic):
        """`on_change`: told False when the policy is gone, True when it is heard first or again."""
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
        """To be called every 0.1 s. `listed`: the middleware knows a publisher of the status."""
        now = self._clock()
        # Where this process stood still, the policy was not silent: what it said is taken after this look.
        self._silence += min(now - self._looked, _LONGEST)
        self._looked = now
        if self._there and self._silence > (self._patience if listed else _UNLISTED):
            self._there = False
            self._on_change(False)
