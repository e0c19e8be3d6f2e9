"""What was measured or commanded in the last seconds, by its stamps."""

from collections import deque

import numpy as np

_MOST_STATES = 10_000


class Recent:
    """Rows of numbers, the newest last."""

    def __init__(self, keep: float) -> None:
        """`keep`: s for which rows are kept."""
        self._keep_ns = keep * 1e9
        self.clear()

    def clear(self) -> None:
        self._states: deque[tuple[int, np.ndarray]] = deque(maxlen=_MOST_STATES)

    @property
    def newest(self) -> tuple[int, np.ndarray] | None:
        return self._states[-1] if self._states else None

    def add(self, stamp_ns: int, values: np.ndarray, late_ns: int) -> None:
        """Add (J,) values. A row that is not newer is ignored, unless it is older by more than `late_ns`: then time was
        set back."""
        states = self._states
        while states and states[-1][0] > stamp_ns + late_ns:
            states.pop()
        if states and states[-1][0] >= stamp_ns:
            return
        states.append((stamp_ns, values.copy()))
        while states[0][0] < stamp_ns - self._keep_ns:
            states.popleft()

    def around(self, stamp_ns: int) -> tuple[tuple[int, np.ndarray] | None, tuple[int, np.ndarray] | None]:
        """The last row at or before a time, and the first one at or after it."""
        after = None
        for state in reversed(self._states):
            if state[0] <= stamp_ns:
                return state, state if state[0] == stamp_ns else after
            after = state
        return None, after

    def near(self, stamp_ns: int, within: float) -> np.ndarray | None:
        """(J,) values at a time, interpolated between the rows around it, neither further away than `within` s; else
        None."""
        known = [state for state in self.around(stamp_ns) if state and abs(state[0] - stamp_ns) <= within * 1e9]
        return between(stamp_ns, known[0], known[-1]) if known else None


def between(stamp_ns: int, first: tuple[int, np.ndarray], last: tuple[int, np.ndarray]) -> np.ndarray:
    """(J,) values at a time, interpolated between two rows."""
    share = (stamp_ns - first[0]) / (last[0] - first[0]) if last[0] > first[0] else 0.0
    return first[1] + share * (last[1] - first[1])
