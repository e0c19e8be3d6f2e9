"""When to say again what is waited for."""

import re
import time

_QUANTITY = re.compile(r"-?\d+\.\d+|\d+(?= (s|ms|Hz)\b)")
_FIRST, _LATER = 10.0, 60.0  # s until something is said again, the first time and later


def without_quantities(words: str) -> str:
    """The words without ages, rates and distances, which change while nothing else does."""
    return _QUANTITY.sub("#", words)


class Reminder:
    """New words are due at once, the same ones again after 10 s, then each minute. Ages in them make them no newer."""

    def __init__(self) -> None:
        self._words, self._next = "", 0.0

    def due(self, words: str, now: float | None = None) -> bool:
        """`now`: s, steady; None: the clock's."""
        now = time.monotonic() if now is None else now
        new = without_quantities(words) != self._words
        if not new and now < self._next:
            return False
        self._words = without_quantities(words)
        self._next = now + (_FIRST if new else _LATER)
        return True
