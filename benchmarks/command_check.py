"""Are these commands within the robot's limits? Decided from the robot file, the commands and their times alone.

Nothing of vla_ros is imported: a mistake in its limiter cannot hide in here. Commands come in stretches. A stretch
begins at rest at a known position; within it, with x_i a command and T_i the time since the one before,

    v_i = (x_i - x_{i-1}) / T_i        a_i = (v_i - v_{i-1}) / ((T_i + T_{i-1}) / 2)

are compared with the limits for every i, with T_i by the commands' stamps and, where it is known, by steady time.
The jerk limit is compared where ticks were regular and nothing was stopped for as long as the limiter may average.
A column in m/s or rad/s is a velocity of a base: v_i is its acceleration, and while nothing may be followed it goes to
zero. What a reader tolerates is rounding: a share of 1e-6 of each limit, and 4e-12 + 16 eps |x| of a position.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Kinds of violation
NOT_FINITE = "not finite"
POSITION = "position"  # outside the limits, or outside and not on the way in
START = "start"  # begins further outside than is tolerated
VELOCITY, VELOCITY_STAMPS = "velocity, steady time", "velocity, stamps"
ACCELERATION, ACCELERATION_STAMPS = "acceleration, steady time", "acceleration, stamps"
JERK = "jerk, regular ticks"
STAMPS = "stamps"  # not later than the command before, which may only be while the robot stands still
STOPPED = "stopped"  # speed grew or turned round while nothing may be followed
BRAKING = "braking"  # was not on the way to rest by then, with 0.9 of the acceleration limit
KINDS = (NOT_FINITE, POSITION, START, VELOCITY, VELOCITY_STAMPS, ACCELERATION, ACCELERATION_STAMPS, JERK, STAMPS,
         STOPPED, BRAKING)  # fmt: skip

_SHARE = 1e-6
_FREE = 1e300  # the change of a base's acceleration
_LONGEST = 5000  # commands that are checked in one go
_BEFORE, _AFTER = 50, 10  # commands that are looked at around a violation


@dataclass(frozen=True)
class Bounds:
    """Limits of J joints, from the mapping that a robot file contains; the position margin is taken off.

    Attributes:
        lower, upper: (J,) rad or m; of a base's velocities m/s or rad/s.
        velocity, acceleration, jerk: (J,) per s, s² and s³; jerk is infinite where it is not limited.
        period: s between commands.
        rates: (J,) bool, velocities of a base.
    """

    names: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    period: float
    rates: np.ndarray

    @classmethod
    def of(cls, robot: Mapping[str, Any], joints: tuple[str, ...] | None = None) -> "Bounds":
        """`joints`: some of the robot's, in an order of their own; None for all."""
        by_name = {joint["name"]: joint for joint in robot["joints"]}
        names = joints or tuple(by_name)
        columns = {
            field: np.array([float(by_name[name].get(field) or np.inf) for name in names])
            for field in ("velocity", "acceleration", "jerk")
        }
        common = {"rad": float(robot.get("position_margin", 0.0))}
        units = [by_name[name].get("unit", "rad") for name in names]
        own = [by_name[name].get("margin") for name in names]
        pairs = zip(own, units, strict=True)
        margin = np.array([common.get(unit, 0.0) if kept is None else kept for kept, unit in pairs])
        fastest = columns["velocity"]
        lower, upper = (
            np.array([float(by_name[name].get(end, sign * fastest[i])) for i, name in enumerate(names)])
            for end, sign in (("lower", -1), ("upper", 1))
        )
        rates = np.array([unit.endswith("/s") for unit in units])
        columns["velocity"] = np.where(rates, columns["acceleration"], fastest)
        columns["acceleration"] = np.where(rates, _FREE, columns["acceleration"])
        period = 1.0 / float(robot.get("control_rate", 100.0))
        return cls(names, lower + margin, upper - margin, **columns, period=period, rates=rates)

    def outside(self, position: np.ndarray) -> np.ndarray:
        """(..., J) how far `position` (..., J) is outside, rad or m; 0 inside."""
        return np.maximum(np.maximum(position - self.upper, self.lower - position), 0.0)


class CommandCheck:
    """Takes commands one by one, and counts what is wrong with them when a stretch ends.

    Attributes:
        commands: number of commands checked.
        moving: number of those that differ from the one before.
        violations: kind -> number of commands.
        first: kind -> the first one in words.
        around: kind -> stamps of what is to be looked at for it, the first and the last one, ns.
        share: the greatest shares of the velocity and of the acceleration limit that were used.
    """

    def __init__(
        self, bounds: Bounds, start_tolerance: float = 0.1, stamp_error: float = 0.0, together: Collection[str] = ()
    ) -> None:
        """`start_tolerance`: share of a joint's range that a stretch may begin outside its limits.

        `stamp_error`: s by which the time between two stamps may be wrong, where a clock is adjusted.
        `together`: joints that may come to rest together, when the slowest of them can.
        """
        self.bounds, self._together = bounds, np.isin(bounds.names, list(together))
        self.start_tolerance, self.stamp_error = start_tolerance, stamp_error
        self.commands = self.moving = 0
        self.violations: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.around: dict[str, tuple[int, int]] = {}
        self.share = {"velocity": 0.0, "acceleration": 0.0}
        periods = np.ceil(2.0 * bounds.acceleration / (bounds.jerk * bounds.period))
        self._average = np.clip(periods, 1.0, _LONGEST // 2).astype(int)  # over which a jerk limit may be averaged
        self.longest_average = int(self._average.max())
        self._clear()

    def _clear(self) -> None:
        self._start: np.ndarray | None = None
        self._skip = 0
        self._rows: list[np.ndarray] = []
        self._stamps: list[int] = []
        self._steady: list[int] = []
        self._stopped: list[bool] = []

    def begin(self, start: np.ndarray, heard: bool = True) -> None:
        """The next command is one control period after rest at `start` (J,).

        `heard`: False: `start` is that command, and those before it are not known; it may be in motion.
        """
        self.end()
        self._start, self._skip = np.array(start, dtype=np.float64), 0 if heard else 2
        far = self.bounds.outside(self._start) - self.start_tolerance * (self.bounds.upper - self.bounds.lower)
        if (far > 1e-9).any():
            joint = int(far.argmax())
            self._found(START, 1, f"{self.bounds.names[joint]} begins at {self._start[joint]:.6g}")

    def add(self, position: np.ndarray, stamp_ns: int, steady_ns: int | None = None, stopped: bool = False) -> None:
        """A command, (J,). `stopped`: it was made while the robot had to brake or stand still."""
        if self._start is None:
            self.begin(position)
        self._rows.append(np.array(position, dtype=np.float64))
        self._stamps.append(stamp_ns)
        self._steady.append(stamp_ns if steady_ns is None else steady_ns)
        self._stopped.append(stopped)
        self._by_steady = steady_ns is not None
        if len(self._rows) >= _LONGEST:
            self._check()
            keep = self._rows, self._stamps, self._steady, self._stopped
            start, context = self._start, self.longest_average + 4  # looked back upon
            self._clear()
            self._start, self._skip = start, context
            self._rows, self._stamps, self._steady, self._stopped = (some[-context:] for some in keep)

    def end(self) -> None:
        """The stretch is over."""
        if self._start is not None:
            self._check()
        self._clear()

    def _found(self, kind: str, count: int, words: str, row: int = 0) -> None:
        """`row`: of what was added."""
        self.violations[kind] += count
        self.first.setdefault(kind, f"command {self.commands}: {words}")
        if self._stamps:
            last = min(row + _AFTER, len(self._stamps) - 1)
            self.around.setdefault(kind, (self._stamps[max(row - _BEFORE, 0)], self._stamps[last]))

    def _check(self) -> None:
        """What was added since the last check; the `_skip` commands before it are context."""
        if len(self._rows) <= self._skip:
            return
        bounds, period_ns = self.bounds, round(self.bounds.period * 1e9)
        x, stopped = np.array(self._rows), np.array(self._stopped)
        if not np.isfinite(x).all():
            bad = ~np.isfinite(x).all(axis=1)
            self._found(NOT_FINITE, int(bad[self._skip :].sum()), f"{x[int(bad.argmax())]}")
            self.commands += len(x) - self._skip
            return
        assert self._start is not None
        lead = np.tile(self._start, (0 if self._skip else 2, 1))  # at rest for two periods before the first command
        whole = np.concatenate([lead, x])
        stopped = np.concatenate([np.zeros(len(lead), bool), stopped])
        slack = 4e-12 + 16 * np.finfo(float).eps * np.abs(whole).max(axis=0)
        new = np.arange(len(whole)) >= (self._skip or len(lead))

        def report(kind: str, hit: np.ndarray, value: np.ndarray, limit: np.ndarray) -> None:
            """`hit`, `value`: (K, J) of the last K rows."""
            hit = hit & new[len(new) - len(hit) :, None]
            if hit.any():
                row, joint = np.unravel_index(int(hit.argmax()), hit.shape)
                at = int(row) + len(whole) - len(hit) - (self._skip or len(lead))
                words = f"{value[row, joint]:.9g}, limit {np.broadcast_to(limit, value.shape)[row, joint]:.9g}"
                self._found(kind, int(hit.any(axis=1).sum()), f"+{at}: {bounds.names[joint]} {words}", at + self._skip)

        outside = bounds.outside(whole)
        nearest = np.where(whole > bounds.upper, bounds.upper, bounds.lower)
        report(POSITION, outside[1:] > outside[:-1] + slack, whole[1:], nearest[1:])
        still = (np.diff(whole, axis=0) == 0).all(axis=1) & ~whole[1:, bounds.rates].any(axis=1)
        for times, kinds in (
            (self._steady, (VELOCITY, ACCELERATION)),
            (self._stamps, (VELOCITY_STAMPS, ACCELERATION_STAMPS)),
        ):
            by_stamps = times is self._stamps
            if not by_stamps and not self._by_steady:
                continue
            ns = np.array(times, dtype=np.int64)
            ns = np.concatenate([ns[0] - period_ns * np.arange(len(lead), 0, -1), ns])
            T = np.diff(ns) * 1e-9
            late = T <= 0
            if by_stamps and (late & new[1:]).any():
                report(STAMPS, (late & ~still)[:, None], T[:, None], np.zeros(1))
            T = np.where(late, np.nan, T)[:, None]
            v = np.diff(whole, axis=0) / T
            middle = (T[1:] + T[:-1]) / 2
            a = np.diff(v, axis=0) / middle
            with np.errstate(invalid="ignore"):
                off = (slack + (np.abs(v) * self.stamp_error if by_stamps else 0.0)) / T
                report(kinds[0], np.abs(v) > bounds.velocity * (1 + _SHARE) + off, v, bounds.velocity)
                room = bounds.acceleration * (1 + _SHARE) + (off[1:] + off[:-1]) / middle
                report(kinds[1], np.abs(a) > room, a, bounds.acceleration)
            if by_stamps == self._by_steady:
                continue  # once is enough for what follows
            self._check_stop(
                v, np.cumsum(np.nan_to_num(T))[:, None], slack / np.nan_to_num(T, nan=np.inf), stopped, report,
                whole[1:],
            )
            if np.isfinite(bounds.jerk).any():
                self._check_jerk(a, np.diff(ns) == period_ns, still, stopped, slack, report)
            for name, value, limit in (("velocity", v, bounds.velocity), ("acceleration", a, bounds.acceleration)):
                if value.size:
                    self.share[name] = max(self.share[name], float(np.nanmax(np.abs(value) / limit)))
        self.commands += int(new.sum())
        self.moving += int((~still & new[1:]).sum())

    def _check_stop(
        self, v: np.ndarray, t: np.ndarray, slack: np.ndarray, stopped: np.ndarray, report: Any, x: np.ndarray
    ) -> None:
        """`v`, `slack`: (K, J) of the intervals that end at `t` (K, 1), s; `stopped`: (K + 1,) of the commands; `x`:
        (K, J) at the ends of the intervals."""
        if not stopped.any():
            return
        bounds = self.bounds
        v, hardest = np.where(bounds.rates, x, v), np.where(bounds.rates, bounds.velocity, bounds.acceleration)
        slack = np.where(bounds.rates, 1e-12, slack)
        length = np.diff(t, axis=0, prepend=0)
        # at the end of a late interval the speed may have been another one than its mean
        unseen = hardest * np.maximum(length - bounds.period * (1 + _SHARE), 0.0) / 2 + 2 * slack
        unseen = np.where(bounds.rates, 2 * slack, unseen)
        before, now, room = v[:-1], v[1:], unseen[:-1] + 2 * slack[1:]
        with np.errstate(invalid="ignore"):
            grew = np.abs(now) > np.abs(before) * (1 + _SHARE) + room
            turned = (now * before < 0) & (np.abs(now) > room) & (np.abs(before) > room)
        report(STOPPED, (grew | turned) & stopped[2:, None], now, np.abs(before))
        # from the end of the last interval before the stop to the beginning of this one, but for two periods
        since = np.maximum.accumulate(np.where(stopped[1:], 0, np.arange(len(v))))
        braked = np.maximum(t - length - t[since] - 2 * bounds.period, 0.0)
        speed = np.abs(v[since]) + unseen[since]
        room = speed - 0.9 * hardest * braked
        if self._together.any():
            rest = (speed / (0.9 * hardest))[:, self._together].max(axis=1, keepdims=True)  # s to rest
            left = np.clip(1.0 - braked / np.maximum(rest, 1e-9), 0.0, 1.0)
            room = np.where(self._together, np.maximum(room, speed * left), room)
        with np.errstate(invalid="ignore"):
            slow = np.abs(v) <= np.maximum(room, 0.0) * (1 + _SHARE) + 2 * slack
            report(BRAKING, ~slow & np.isfinite(v) & stopped[1:, None], v, room)

    def _check_jerk(
        self, a: np.ndarray, regular: np.ndarray, still: np.ndarray, stopped: np.ndarray, slack: np.ndarray, report: Any
    ) -> None:
        bounds = self.bounds
        jerk = np.diff(a, axis=0) / bounds.period
        k = np.arange(len(regular))  # a stop goes on to its end, which is where all stand still
        stop, rest = (np.maximum.accumulate(np.where(at, k, -1)) for at in (stopped[1:], still))
        disturbed = np.concatenate([[0], np.cumsum(~regular | (stop > rest) | stopped[1:])])  # before the i-th interval
        i = np.arange(2, len(regular))
        since = disturbed[i + 1][:, None] - disturbed[np.maximum(i[:, None] - 3 - self._average, 0)]
        room = bounds.jerk * (1 + _SHARE) + 8 * slack / bounds.period**3
        report(JERK, (np.abs(jerk) > room) & (since == 0), jerk, bounds.jerk)
