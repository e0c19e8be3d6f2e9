"""Statistics of the motion of the last seconds, to see how well the policy works."""

from collections import deque

import numpy as np

from vla_ros.control.limits import Limits

_SLICES = 20  # of the window, which advances by one of them at a time
_TURN = 0.005  # s at the velocity limit: a joint that goes back less far has not reversed
_NEAR = 0.05  # s at the velocity limit: measured configurations no further apart than this are the same
_REMEMBERED = 500  # configurations
_LOOK_NS = 100_000_000  # between two checks for progress


class _Slice:
    """A part of the window: number of ticks that followed chunks, and sums and maxima over them, (J,)."""

    def __init__(self, begin_ns: int, joints: int) -> None:
        self.begin_ns, self.ticks = begin_ns, 0
        self.reversals, self.limited, self.deviation = np.zeros((3, joints))


class Monitor:
    """Called once per control period; reads no clock and changes no command.

    Only ticks that follow chunks count, and every instruction starts again. A *reversal* is a turning point of a
    joint's commanded motion after which it goes back by more than the joint travels in 5 ms at its velocity limit, so
    that neither rounding nor a joint at rest counts. *Progress* is a measured configuration that is new under this
    instruction: one of its joints is further from its position in each earlier one (of the last 500) than it travels in
    50 ms at its velocity limit. A robot that stands still, is stuck or moves back and forth makes none. For a base, the
    distance that its velocities add up to counts.

    Attributes:
        warning: which joint reverses more often than `reversal_limit`, with its rate when that began; empty if none
            does. Discrete joints are counted, but cause no warning.
        first_warning: the first one under this instruction, even if it is over.
    """

    def __init__(self, limits: Limits, window: float, reversal_limit: float) -> None:
        """`window`: s; `reversal_limit`: 1/s, 0 = off."""
        self.window, self.reversal_limit = window, reversal_limit
        self._names, self._discrete = limits.names, limits.discrete
        self._rates = limits.rates
        self._turn, self._near = _TURN * limits.speed, _NEAR * limits.speed
        self._slice_ns, self._window_ns = round(window * 1e9 / _SLICES), round(window * 1e9)
        self.clear()

    def clear(self, instruction: int = 0) -> None:
        """Start again for `instruction`, an instruction_id."""
        self._instruction, self.first_warning = instruction, ""
        self._begin()

    def _begin(self) -> None:
        joints = len(self._names)
        self.warning = ""
        self._slices: deque[_Slice] = deque()
        self._direction = np.zeros(joints)  # of the commanded motion, 1 or -1; 0 before it moves
        self._extreme: np.ndarray | None = None  # (J,) how far it has gone in that direction
        self._driven = np.zeros((2, joints))  # how far a base has gone by commanded and measured velocities
        self._known = np.empty((0, joints))  # configurations, oldest first
        self._looked_ns: int | None = None
        self._progress_ns: int | None = None
        self._now_ns: int | None = None

    def tick(
        self,
        steady_ns: int,
        instruction: int,
        following: bool,
        command: np.ndarray,
        measured: np.ndarray,
        limited: np.ndarray,
    ) -> None:
        """A control period.

        Args:
            steady_ns: steady time; if it jumps, the window starts again.
            instruction: instruction_id of the current one.
            following: the command follows chunks.
            command: (J,) rad or m.
            measured: (J,) rad or m.
            limited: (J,) bool, held back by a limit.
        """
        if instruction != self._instruction:
            self.clear(instruction)
        if self._now_ns is not None and not 0 <= steady_ns - self._now_ns <= self._window_ns:
            self._begin()
        passed = 0.0 if self._now_ns is None else (steady_ns - self._now_ns) * 1e-9
        self._now_ns = steady_ns
        new = not self._slices or steady_ns - self._slices[-1].begin_ns >= self._slice_ns
        if new:
            self._slices.append(_Slice(steady_ns, len(command)))
            while steady_ns - self._slices[0].begin_ns >= self._window_ns:
                self._slices.popleft()
        turned = False
        if following:
            now = self._slices[-1]
            now.ticks += 1
            now.limited += limited
            now.deviation = np.fmax(now.deviation, np.abs(command - measured))
            values = np.stack([command, measured])
            self._driven += np.nan_to_num(values) * passed
            command, measured = np.where(self._rates, self._driven, values)
            reversals = self._turned(command)
            turned = bool(reversals.any())
            now.reversals += reversals
            if self._looked_ns is None or steady_ns - self._looked_ns >= _LOOK_NS:
                self._look_for_progress(measured)
        if turned or new:
            self._judge()

    def _turned(self, command: np.ndarray) -> np.ndarray:
        """(J,) bool, joints whose reversal is certain with this command."""
        if self._extreme is None:
            self._extreme = command.copy()
        move, direction = command - self._extreme, self._direction
        onwards = move * direction > 0
        back = ~onwards & (np.abs(move) > self._turn)
        self._extreme = np.where(onwards | back, command, self._extreme)
        self._direction = np.where(back, np.sign(move), direction)
        return back & (direction != 0)

    def _look_for_progress(self, measured: np.ndarray) -> None:
        self._looked_ns = self._now_ns
        known = (np.abs(self._known - measured) <= self._near).all(axis=1).any()
        if not known and np.isfinite(measured).all():
            self._known = np.concatenate([self._known, measured[None]])[-_REMEMBERED:]
            self._progress_ns = self._now_ns

    def _judge(self) -> None:
        rates = np.where(self._discrete, 0.0, self.reversals)  # a gripper has to open and close
        worst = int(rates.argmax())
        if self.reversal_limit <= 0 or rates[worst] <= self.reversal_limit:
            self.warning = ""
        elif not self.warning:  # the message then stays, so that not every new rate is printed
            self.warning = (
                f"joint {self._names[worst]}: its commanded motion reverses {rates[worst]:.3g} times a second, "
                f"limit {self.reversal_limit:g}"
            )
            self.first_warning = self.first_warning or self.warning

    # Over the window. A part of it that has not been filled yet counts as without motion.

    @property
    def reversals(self) -> np.ndarray:
        """(J,) 1/s."""
        return sum((part.reversals for part in self._slices), np.zeros(len(self._names))) / self.window

    @property
    def limited_share(self) -> np.ndarray:
        """(J,) 0 to 1, of the ticks that followed chunks."""
        limited = sum((part.limited for part in self._slices), np.zeros(len(self._names)))
        return limited / max(1, sum(part.ticks for part in self._slices))

    @property
    def deviation(self) -> np.ndarray:
        """(J,) rad or m, largest distance between command and measurement."""
        return np.max([np.zeros(len(self._names)), *(part.deviation for part in self._slices)], axis=0)

    @property
    def progress_age(self) -> float:
        """s since there was progress; NaN before the first chunk is followed."""
        return np.nan if self._progress_ns is None else (self._now_ns - self._progress_ns) * 1e-9
