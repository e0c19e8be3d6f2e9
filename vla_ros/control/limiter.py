"""Bounded commands: position, velocity, acceleration and optional jerk limits on what is published.

One call makes one command, T seconds after the last one; T may differ each time. With x the last position,
v its mean velocity over its own interval T₀, and difference quotients that put a velocity into its interval's middle:

    v' = the wish, clipped to |v'| <= v_max, |v' - v| <= a_max (T₀ + T) / 2 and to speeds from which it can still stop
    x' = x + v' T

For a joint at rest, T₀ is replaced by min(T₀, T), so that a long rest does not allow a faster start.

*Stopping.* On a parabola of constant deceleration a, sampled at any times, the difference quotient of the velocity is
exactly -a, or less where the motion ends in between: a parabola can be followed whatever the intervals are. The
parabola through the step just taken has v' in the step's middle, so e = v' - a T / 2 at its end, and from there needs
e² / (2 a)
to stop (0 if e < 0). So v' is admissible if v' T + max(e, 0)² / (2 a) <= room, where room is the distance to the limit.
If the last command was admissible, so is the parabola's next sample, and |v' - v| <= a (T₀ + T) / 2 allows it: the
rules never contradict each other, and braking is always possible.

*The wish* is to follow a target that moves with its own velocity w: the same law in the target's frame, with the
remaining distance as the room. There the next interval is known to be no shorter than m, one period, and an overshoot
would be harmless; so the last step may end with e up to a m / 2 and stop at once. In between, the next step travels (e
- a m / 2) m. A target within the limits is met exactly; a jump is followed by the fastest bounded motion without
overshoot.

*Jerk* is bounded by a moving average over N = ceil(2 a_max / (j_max dt)) commands of the law above: if all are `dt`
apart, the average obeys the same bounds, and its acceleration changes by at most 2 a_max / N per period (box filter of
FIR trajectory generation, Biagiotti and Melchiorri, "FIR filters for online trajectory planning", 2012). It delays by
(N - 1) / 2 periods. That an admissible step remains follows from convexity: each of the N commands had
x + max(v - a T / 2, 0)² / (2 a) inside the limit, so their average has, and that is no less than the same of the
average's own position and velocity. What is published follows the average by the law above: at regular intervals it
equals the average; at irregular ones, where nothing is known about the average, it obeys every bound except that of
jerk. `stop` bypasses the average: braking begins at once, with a_max, from the position and velocity that were
published.

*Velocity dimensions* of a base are values that are velocities themselves (`Limits.rates`): the law bounds their values
and how fast they change, and braking takes the value to zero as fast as it may change.

Some commands may be left unpublished: divided differences over some of the times are averages of those over all of
them, so the published commands obey every limit, including that of jerk.
"""

from collections.abc import Sequence

import numpy as np

from vla_ros.control.limits import Limits

_HELD_BACK = 1e-9  # rad or m: a larger difference counts as held back by a limit
Together = Sequence[tuple[np.ndarray, float]]


def stoppable_speed(room: np.ndarray, acceleration: np.ndarray, dt: float, following: float = 0.0) -> np.ndarray:
    """(J,) greatest mean speed over the next `dt` s from which a stop fits into `room` (J,), the step included.

    `following`: s that every later interval takes at least.
    """
    r, both = np.maximum(room, 0.0), dt + following
    near = np.minimum(r / dt, (r + 0.5 * following * both * acceleration) / both)
    far = np.sqrt(2.0 * acceleration * r) - 0.5 * dt * acceleration
    return np.where(r < 0.5 * both * both * acceleration, near, far)


class _Law:
    """A sequence of positions, each the admissible one nearest to a wish.

    Attributes:
        x: (J,) the last position, rad or m; a new array for each.
        v: (J,) its mean velocity since the one before, rad/s or m/s.
        before: s between the two.
    """

    def __init__(self, limits: Limits, x: np.ndarray, dt: float) -> None:
        """At rest at `x` (J,)."""
        self._limits = limits
        self._place(x)
        self.v, self.before = np.zeros_like(x), dt

    def take(self, other: "_Law") -> None:
        """Continue from the state of another one."""
        self._place(other.x)
        self.v, self.before = other.v, other.before

    def follow(self, target: np.ndarray, velocity: np.ndarray, dt: float) -> np.ndarray:
        """Go to the next position; returns (J,), how far it is from a target (J,) that moves with `velocity` (J,)."""
        w = np.clip(velocity, -self._limits.velocity, self._limits.velocity)
        left = target - w * dt - self.x
        new = self._step(w + np.sign(left) * stoppable_speed(np.abs(left), self._limits.acceleration, dt, dt), dt)
        missed = np.abs(new - target)
        new = np.where(missed <= 1e-12, target, new)  # only rounding: use the target itself, to the last bit
        self._place(np.minimum(np.maximum(new, self._lower), self._upper))
        return missed

    def brake(self, dt: float, together: Together = ()) -> None:
        new = self._step(self.braked(together, dt), dt)
        self._place(np.where(self._limits.rates & (np.abs(new) <= 1e-12), 0.0, new))

    def braked(self, together: Together, dt: float) -> np.ndarray:
        """(J,) the mean velocity over the next `dt` s of a stop; of a velocity dimension the change that takes it to
        zero."""
        slower = self.deceleration(together, dt) * (0.5 * (self.before + dt))
        left = np.sign(self.v) * np.maximum(np.abs(self.v) - slower, 0.0)
        return np.where(self._limits.rates, -self.x / dt, left)

    @property
    def at_rest(self) -> bool:
        return not self.v.any() and not self.x[self._limits.rates].any()

    def deceleration(self, together: Together, dt: float) -> np.ndarray:
        """(J,) deceleration of a stop, rad/s² or m/s²: the limits; for columns that brake together, in proportion to
        their speeds, if all of them then come to rest before their limits."""
        found = self._limits.acceleration.copy()
        speeds, room = np.abs(self.v), np.where(self.v > 0, self._upper - self.x, self.x - self._lower)
        for columns, order in together:
            if (longest := np.linalg.norm(speeds[columns] / found[columns], order)) > 0:
                rates = speeds[columns] / longest
                next_ = np.maximum(speeds[columns] - 0.5 * rates * (self.before + dt), 0.0)
                if (next_ <= stoppable_speed(room[columns], rates, dt) + 1e-12).all():
                    found[columns] = rates
        return found

    def _step(self, wish: np.ndarray, dt: float) -> np.ndarray:
        """(J,) the next position, with the admissible velocity nearest to the wish (J,)."""
        limits, x = self._limits, self.x
        before = np.where(self.v == 0, min(self.before, dt), self.before)
        step = limits.acceleration * (0.5 * (before + dt))
        up = stoppable_speed(self._upper - x, limits.acceleration, dt)
        down = stoppable_speed(x - self._lower, limits.acceleration, dt)
        high = np.minimum(np.minimum(limits.velocity, self.v + step), up)
        low = np.maximum(np.maximum(-limits.velocity, self.v - step), -down)
        self.v, self.before = np.minimum(np.maximum(wish, low), high), dt
        return np.minimum(np.maximum(x + self.v * dt, self._lower), self._upper)

    def _place(self, x: np.ndarray) -> None:
        """Now at `x` (J,); if that is outside the limits, it does not move further out."""
        self.x = x
        self._lower = np.minimum(self._limits.lower, x)
        self._upper = np.maximum(self._limits.upper, x)


class Limiter:
    """The state between two commands.

    Attributes:
        limited: (J,) bool, joints whose last command was held back.
        stopping: a stop that ignores the jerk limit has begun and not ended; nothing is followed until it has.
        together: (columns, order) of joints that come to rest at the same time when they brake, so that the tool stays
            on its path: in the time that the slowest of them needs (order inf), or with an acceleration whose length is
            within their limit (order 2). Close to a limit each brakes separately.
    """

    def __init__(self, limits: Limits, dt: float) -> None:
        """`dt`: control period, s."""
        self.limits = limits
        self.dt = dt
        self.together: Together = ()
        self._lengths = limits.window(dt)
        self._window = np.zeros((int(self._lengths.max()), len(limits.names)))  # newest first
        self.reset(np.clip(np.zeros(len(limits.names)), limits.lower, limits.upper))

    def reset(self, position: np.ndarray) -> None:
        """At rest at `position` (J,). Outside the limits the joint may move inwards only."""
        start = np.array(position, dtype=np.float64)
        if not np.isfinite(start).all():
            raise ValueError(f"position {position}, expected finite numbers")
        self._out = self._raw = _Law(self.limits, start, self.dt)  # what is published, and before the average
        if len(self._window) > 1:
            self._raw = _Law(self.limits, start, self.dt)
        self._fill(start)
        self.stopping = False
        self.limited = np.zeros(len(start), dtype=bool)

    def _fill(self, x: np.ndarray) -> None:
        self._window[:] = self._average = x

    def shorten_interval(self) -> None:
        """The last interval may have been shorter than given."""
        self._out.before = self._raw.before = 0.0

    @property
    def position(self) -> np.ndarray:
        """(J,) the last command, rad or m."""
        return self._out.x

    @property
    def velocity(self) -> np.ndarray:
        """(J,) its mean velocity since the one before, rad/s or m/s."""
        return self._out.v

    @property
    def unsmoothed(self) -> np.ndarray:
        """(J,) the last command before the moving average; `position` itself without jerk limits and at rest."""
        return self._raw.x

    @property
    def unsmoothed_velocity(self) -> np.ndarray:
        """(J,) the mean velocity before the moving average since the command before."""
        return self._raw.v

    @property
    def at_rest(self) -> bool:
        """Nothing moves, and the moving average is constant."""
        if not (self._raw.at_rest and self._out.at_rest):
            return False
        return len(self._window) == 1 or bool((self._window == self._out.x).all())

    def follow(self, target: np.ndarray, target_velocity: np.ndarray, dt: float | None = None) -> np.ndarray:
        """(J,) the next command towards `target` (J,), which moves with `target_velocity` (J,).

        `dt`: s since the last command, one period if it is left out.
        """
        if self.stopping:
            return self.stop(dt)
        dt = dt or self.dt
        self.limited = self._raw.follow(target, target_velocity, dt) > _HELD_BACK
        return self._smooth(dt)

    def held(self, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """(J,) target and (J,) velocity with which `follow` brakes joints as `brake` does."""
        velocity, rates = self._raw.braked(self.together, dt), self.limits.rates
        return np.where(rates, 0.0, self._raw.x + velocity * dt), np.where(rates, 0.0, velocity)

    def slowed(self, passed: float) -> np.ndarray:
        """(J,) the last command, with velocity dimensions braked for `passed` s."""
        x = self.position
        slower = np.sign(x) * np.maximum(np.abs(x) - self.limits.velocity * passed, 0.0)
        return np.where(self.limits.rates, slower, x)

    def brake(self, dt: float | None = None) -> np.ndarray:
        """(J,) the next command of the fastest stop within every limit; at rest, the last command again."""
        if self.stopping:
            return self.stop(dt)
        dt = dt or self.dt
        self._raw.brake(dt, self.together)
        self.limited = np.zeros_like(self.limited)
        return self._smooth(dt)

    def begin_stop(self) -> None:
        """Until the robot is at rest, every command is one of `stop`; without jerk limits, the same as `brake`."""
        self.stopping = len(self._window) > 1

    def stop(self, dt: float | None = None) -> np.ndarray:
        """(J,) as `brake`, but ignoring the jerk limit: no joint becomes faster or reverses."""
        self._out.brake(dt or self.dt, self.together)
        self._raw.take(self._out)
        self._fill(self._out.x)
        self.limited = np.zeros_like(self.limited)
        self.stopping = len(self._window) > 1 and not self._out.at_rest
        return self._out.x.copy()

    def braking(self, most: int) -> np.ndarray:
        """(K, J) the commands of `stop` for the next periods, until the robot is at rest; at most `most` of them."""
        x, dt = self._out.x, self.dt
        v = np.where(self.limits.rates, 0.0, self._out.v)  # no message contains later commands of a base
        decelerations = self._out.deceleration(self.together, dt)
        slower, first = decelerations * dt, np.abs(v) - 0.5 * decelerations * (self._out.before + dt)
        count = int(min(np.ceil(np.max(first[v != 0] / slower[v != 0], initial=0.0)), most))
        if count <= 0:
            return np.empty((0, len(x)))
        steps = np.sign(v) * np.maximum(first - slower * np.arange(count)[:, None], 0.0) * dt
        limits = self.limits
        path = np.clip(x + np.cumsum(steps, axis=0), np.minimum(limits.lower, x), np.maximum(limits.upper, x))
        path[:, limits.rates] = [self.slowed(dt * (k + 1))[limits.rates] for k in range(count)]
        return path

    def _smooth(self, dt: float) -> np.ndarray:
        """(J,) what is published after a step of the law."""
        new = self._raw.x
        if len(self._window) > 1:
            self._window[1:] = self._window[:-1]
            self._window[0] = new
            # computed relative to the newest value, so that equal values average to that value exactly
            offset = np.where(np.arange(len(self._window))[:, None] < self._lengths, self._window - new, 0.0)
            average = new + offset.sum(axis=0) / self._lengths
            before = self._out.x
            self._out.follow(average, (average - self._average) / dt, dt)
            self._out.v = (self._out.x - before) / dt  # the average itself where it was met, to the last bit
            self._average = average
        return self._out.x.copy()
