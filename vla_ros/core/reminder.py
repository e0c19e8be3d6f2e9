"""When to repeat a message about what is being waited for."""

import re
import time

_QUANTITY = re.compile(r"-?\d+\.\d+|\d+(?= (s|ms|Hz)\b)")
_FIRST, _LATER = 10.0, 60.0  # s until a message is repeated, the first time and later


def without_quantities(words: str) -> str:
    """The message without ages, rates and distances, which may change while nothing else does."""
    return _QUANTITY.sub("#", words)


class Reminder:
    """A new message is due at once, the same one again after 10 s, then each minute. Only an age that changes does not
    make a message new."""

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
