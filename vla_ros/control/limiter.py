"""Bounded commands: position, velocity, acceleration and optional jerk limits on what is published.

One call makes one command, T seconds after the one before; T may be another one each time. With x the last position,
v its mean velocity over its own interval T₀, and difference quotients that put a velocity into its interval's middle:

    v' = the wish, clipped to |v'| <= v_max, |v' - v| <= a_max (T₀ + T) / 2 and to what can still stop before the limit
    x' = x + v' T

*What can still stop.* On a parabola of constant deceleration a, sampled at any instants, the difference quotient is
exactly -a, and less where it has come to rest in between: a parabola can be followed whatever intervals come. The one
through the step just taken has v' in the step's middle, so e = v' - a T / 2 at its end, and from there needs e² / (2 a)
to stop (0 if e < 0). So v' is admissible if v' T + max(e, 0)² / (2 a) <= room. If the last command was admissible, the
parabola's next sample is so now, and |v' - v| <= a (T₀ + T) / 2 allows it: the rules never contradict each other, and
braking is always possible.

*The wish* is to follow a target that moves with its own velocity w: the same law in the target's frame, with what is
left to catch up for the room. There it is known that the next interval will be no shorter than m, one period, and an
overshoot would do no harm; the last step may then end with e up to a m / 2 and stop at once. In between, the next step
travels (e - a m / 2) m. A target within the limits is met exactly, a jump is made up for in the shortest bounded way
that does not overshoot.

*Jerk* is bounded by a moving average over N = ceil(2 a_max / (j_max dt)) commands of the law above, all `dt` apart: the
average keeps every bound it has, and changes its acceleration by at most 2 a_max / N a period (box filter of FIR
trajectory generation, Biagiotti and Melchiorri, "FIR filters for online trajectory planning", 2012). It delays by
(N - 1) / 2 periods. `stop` leaves it out: braking begins at once, with a_max, from the average's own position p and
velocity u. That it fits follows from convexity: each of the N commands had x + max(v - a T / 2, 0)² / (2 a) inside the
limit, so their average has, and that is no less than p + max(u - a T / 2, 0)² / (2 a).

Some of the commands may be left unpublished: divided differences over a part of the instants are averages of those
over all of them, so what is published keeps every limit, that of jerk included.
"""

import numpy as np

from vla_ros.control.limits import Limits

_HELD_BACK = 1e-9  # rad or m: what counts as held back by a limit


def stoppable_speed(room: np.ndarray, acceleration: np.ndarray, dt: float, following: float = 0.0) -> np.ndarray:
    """(J,) greatest mean speed over the next `dt` s from which a stop fits into `room` (J,), the step included.

    `following`: s that every later interval takes at least.
    """
    r, both = np.maximum(room, 0.0), dt + following
    near = np.minimum(r / dt, (r + 0.5 * following * both * acceleration) / both)
    far = np.sqrt(2.0 * acceleration * r) - 0.5 * dt * acceleration
    return np.where(r < 0.5 * both * both * acceleration, near, far)


class Limiter:
    """The state between two commands.

    Attributes:
        position: (J,) the last command, rad or m.
        velocity: (J,) its mean velocity since the one before, rad/s or m/s.
        limited: (J,) bool, joints whose last command was held back.
        stopping: a stop without regard to jerk has begun and not ended; until then nothing is followed.
    """

    def __init__(self, limits: Limits, dt: float) -> None:
        """`dt`: control period, s."""
        self.limits = limits
        self.dt = dt
        self._lengths = limits.window(dt)
        self._window = np.zeros((int(self._lengths.max()), len(limits.names)))  # newest first
        self.reset(np.clip(np.zeros(len(limits.names)), limits.lower, limits.upper))

    def reset(self, position: np.ndarray) -> None:
        """At rest at `position` (J,). Outside the limits the joint may move inwards only."""
        self._place(np.array(position, dtype=np.float64))
        if not np.isfinite(self._x).all():
            raise ValueError(f"position {position}, expected finite numbers")
        self._v = np.zeros_like(self._x)
        self._before = self.dt  # s, the interval of the last command
        self._window[:] = self._x
        self.stopping = False
        self.position = self._x.copy()
        self.velocity = np.zeros_like(self._x)
        self.limited = np.zeros(len(self._x), dtype=bool)

    def shorten_interval(self) -> None:
        """The last interval may have been shorter than it was said to be."""
        self._before = 0.0

    @property
    def unsmoothed(self) -> np.ndarray:
        """(J,) the last command before the moving average; `position` itself without jerk limits and at rest."""
        return self._x

    @property
    def at_rest(self) -> bool:
        """Nothing moves any more, the moving average included."""
        return not self._v.any() and bool((self._window == self._x).all())

    def follow(self, target: np.ndarray, target_velocity: np.ndarray, dt: float | None = None) -> np.ndarray:
        """(J,) the next command towards a target that is at `target` (J,) with `target_velocity` (J,).

        `dt`: s since the last command, one period if it is left out.
        """
        if self.stopping:
            return self.stop(dt)
        limits, dt = self.limits, dt or self.dt
        w = np.clip(target_velocity, -limits.velocity, limits.velocity)
        left = target - w * dt - self._x
        wish = w + np.sign(left) * stoppable_speed(np.abs(left), limits.acceleration, dt, following=dt)
        return self._smooth(self._step(wish, target, dt), dt)

    def brake(self, dt: float | None = None) -> np.ndarray:
        """(J,) the next command of the fastest stop within every limit; then the same one again and again."""
        if self.stopping:
            return self.stop(dt)
        dt = dt or self.dt
        return self._smooth(self._step(np.zeros_like(self._x), None, dt), dt)

    def stop(self, dt: float | None = None) -> np.ndarray:
        """(J,) as `brake`, without regard to jerk: no joint becomes faster or turns round."""
        dt = dt or self.dt
        if len(self._window) > 1 and not self.stopping:
            self._v = self.velocity
            self._place(self.position)
        new = self._step(np.zeros_like(self._x), None, dt)
        self._window[:] = new
        self.stopping = len(self._window) > 1 and bool(self._v.any())
        return self._publish(new.copy(), dt)

    def _step(self, wish: np.ndarray, target: np.ndarray | None, dt: float) -> np.ndarray:
        """(J,) the next command, from the wished velocity (J,) and what it is to reach (J,), None to brake."""
        limits, x = self.limits, self._x
        step = limits.acceleration * (0.5 * (self._before + dt))
        up = stoppable_speed(self._upper - x, limits.acceleration, dt)
        down = stoppable_speed(x - self._lower, limits.acceleration, dt)
        high = np.minimum(np.minimum(limits.velocity, self._v + step), up)
        low = np.maximum(np.maximum(-limits.velocity, self._v - step), -down)
        v = np.minimum(np.maximum(wish, low), high)
        new = np.minimum(np.maximum(x + v * dt, self._lower), self._upper)
        if target is None:
            self.limited = np.zeros(len(x), dtype=bool)
        else:
            missed = np.abs(new - target)
            self.limited = missed > _HELD_BACK
            new = np.where(missed <= 1e-12, target, new)  # rounding only: the blend itself, to the last bit
            new = np.minimum(np.maximum(new, self._lower), self._upper)
        self._v, self._before = v, dt
        self._place(new)
        return new

    def _place(self, x: np.ndarray) -> None:
        """The commands before the moving average are at `x` (J,) now; outside the limits they do not go further out."""
        self._x = x
        self._lower = np.minimum(self.limits.lower, x)
        self._upper = np.maximum(self.limits.upper, x)

    def _smooth(self, new: np.ndarray, dt: float) -> np.ndarray:
        self._window[1:] = self._window[:-1]
        self._window[0] = new
        if len(self._window) == 1:
            return self._publish(new.copy(), dt)
        # written around the newest value, so that a window of equal values gives that value exactly
        offset = np.where(np.arange(len(self._window))[:, None] < self._lengths, self._window - new, 0.0)
        return self._publish(new + offset.sum(axis=0) / self._lengths, dt)

    def _publish(self, out: np.ndarray, dt: float) -> np.ndarray:
        self.velocity = (out - self.position) / dt
        self.position = out
        return out
