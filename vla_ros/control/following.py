"""Checks that the robot follows its commands: a controller that refuses them does not report it."""

from collections import deque

import numpy as np

from vla_ros.control.limits import Limits

_SLICE_NS = 50_000_000  # command and measurement are averaged over it, so that trembling does not count as motion
_PAUSE_NS = 1_000_000_000  # without a tick, after which it starts again
_SLICES = 10  # of the slices that are compared
_RECENT = 4  # of them: how long a robot may take to start moving
_MOVED = 0.01  # s at the velocity limit: a smaller change of the command asks for no motion
_FOLLOWED = 0.2  # fraction of the command's motion; a joint that moved less counts as staying
_CAUGHT_UP = 0.5  # fraction of the distance that may be left when it has caught up
_SURE = 8  # checks, 0.4 s, for which the warning must last: a robot that starts late is reported, not stopped


class Following:
    """Compares how far command and measurement moved in the last half second, whatever the reason.

    A joint *stays* if its command has been away from its earlier value, on one side and for 0.2 s, by more than the
    joint travels in 10 ms at its velocity limit, and the measurement has moved by less than a fifth of that. A constant
    offset, as of an arm that sags, does not count. Discrete joints are not checked, because a gripper closes around an
    object.

    Attributes:
        warning: which joint stays, with the values when that was noticed; empty once it has caught up (to half of the
            distance, or to those 10 ms) or moves again.
        fault: the same if it must be the controller: two joints or more stay, and no other joint of their command
            group, or of the robot, follows. A single joint may be blocked, like a gripper by an object.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._groups = [limits.groups == group for group in np.unique(limits.groups)] + [limits.groups >= 0]
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        joints = len(self._limits.names)
        self.warning = self.fault = ""
        self._slices: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=_SLICES)
        self._begin_ns: int | None = None
        self._stays, self._looks = np.zeros(joints, dtype=bool), 0
        # Of a joint that stays: the direction, and where command and measurement were before.
        self._way, self._before = np.zeros(joints), np.zeros((2, joints))

    def tick(self, steady_ns: int, command: np.ndarray, measured: np.ndarray) -> None:
        """A control period: the last command and the newest measurement, (J,) rad or m."""
        if self._begin_ns is None or not 0 <= steady_ns - self._begin_ns < _PAUSE_NS:
            self._slices.clear()
            self._begin_ns, self._ticks = steady_ns, 0
            self._sums = np.zeros((2, len(command)))
        self._sums += command, measured
        self._ticks += 1
        if steady_ns - self._begin_ns >= _SLICE_NS:
            command, measured = self._sums / self._ticks
            self._slices.append((command, measured))
            self._begin_ns, self._ticks = steady_ns, 0
            self._sums = np.zeros_like(self._sums)
            if len(self._slices) > _RECENT:
                self._judge()

    def _judge(self) -> None:
        commands, measured = (np.array(values) for values in zip(*self._slices, strict=True))
        gone = commands[-_RECENT:] - commands[0]
        way = np.sign(gone[-1])
        asked, made = (way * gone).min(axis=0), (way * (measured[-_RECENT:] - measured[0])).max(axis=0)
        least = _MOVED * self._limits.velocity
        asks = (asked > least) & ~self._limits.discrete
        follows = asks & (made >= _FOLLOWED * asked)
        found = asks & ~follows & ~self._stays
        self._way = np.where(found, way, self._way)
        self._before = np.where(found, [commands[0], measured[0]], self._before)
        to_go = self._way * (commands[-1] - self._before[0])
        lag_before, lag = self._way * (self._before[0] - self._before[1]), self._way * (commands[-1] - measured[-1])
        # The lag may be gone once the robot stands, and the arm may sag more in another pose: it has caught up all the
        # same.
        caught_up = lag <= np.maximum(np.maximum(lag_before, 0.0) + least, lag_before + _CAUGHT_UP * to_go)
        self._stays = (self._stays & ~follows & ~caught_up) | found
        if not self._stays.any():
            self.warning, self._looks = "", 0
        elif not self.warning:
            self.warning = self._words(int(np.where(found, asked / least, 0.0).argmax()), commands, measured, asked)
        whole = [(self._stays & group).sum() >= 2 and not (follows & group).any() for group in self._groups]
        self._looks = self._looks + 1 if any(whole) else 0
        if self._looks >= _SURE:
            self.fault = self.warning
        elif not self.warning:
            self.fault = ""

    def _words(self, i: int, commands: np.ndarray, measured: np.ndarray, asked: np.ndarray) -> str:
        unit, went = self._limits.units[i], self._way[i] * (measured[-1][i] - measured[0][i])
        return (
            f"the controller does not follow: joint {self._limits.names[i]} commanded {commands[-1][i]:.3g} {unit}, "
            f"measured {measured[-1][i]:.3g}; for {_RECENT * _SLICE_NS * 1e-9:.1f} s it should have gone "
            f"{asked[i]:.2g} {unit} or more, and went {went:.2g}"
        )
