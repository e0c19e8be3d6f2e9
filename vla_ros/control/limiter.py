"""Bounded commands: position, velocity, acceleration and optional jerk limits on what is published.

One call makes one command, a period `dt` after the one before. With x and v the last position and velocity:

    v' = the wish, clipped to |v'| <= v_max, |v' - v| <= a_max dt and to what can still stop before the limit
    x' = x + v' dt

*What can still stop.* After the step with v' the fastest stop travels with v' - a dt, v' - 2 a dt, ... In units
u = v' / (a dt) and r = room / (a dt²) the whole way is F(u) = (n + 1) u - n (n + 1) / 2 with n = floor(u), so the
greatest admissible v' is a dt F⁻¹(r). If the last command was stoppable, v - a dt is admissible now: the rules never
contradict each other, and braking is always possible.

*The wish* is to follow a target that moves with its own velocity w: the same law in the target's frame,
v' = w + sign(e) a dt F⁻¹(|e| / (a dt²)) with e what is left to catch up. A target within the limits is met exactly,
a jump is made up for in the shortest bounded way that does not overshoot.

*Jerk* is bounded by a moving average over N = ceil(2 a_max / (j_max dt)) commands of the law above: the average
keeps every bound it has, and changes its acceleration by at most 2 a_max / N a period (box filter of FIR trajectory
generation, Biagiotti and Melchiorri, "FIR filters for online trajectory planning", 2012). It delays by (N - 1) / 2
periods.
"""

import numpy as np

from vla_ros.control.limits import Limits

_HELD_BACK = 1e-9  # rad or m: what counts as held back by a limit


def stoppable_speed(room: np.ndarray, acceleration: np.ndarray, dt: float) -> np.ndarray:
    """(J,) greatest speed of the next step from which a stop fits into `room` (J,), the step included."""
    unit = acceleration * dt * dt
    r = np.maximum(room, 0.0) / unit
    n = np.floor((np.sqrt(1.0 + 8.0 * r) - 1.0) / 2.0)
    return (r + n * (n + 1.0) / 2.0) / (n + 1.0) * (acceleration * dt)


class Limiter:
    """The state between two commands.

    Attributes:
        position: (J,) the last command, rad or m.
        velocity: (J,) its velocity over the last period, rad/s or m/s.
        limited: (J,) bool, joints whose last command was held back.
    """

    def __init__(self, limits: Limits, dt: float) -> None:
        """`dt`: control period, s."""
        self.limits = limits
        self.dt = dt
        with np.errstate(divide="ignore"):
            lengths = np.where(np.isinf(limits.jerk), 1.0, np.ceil(2.0 * limits.acceleration / (limits.jerk * dt)))
        self._lengths = np.maximum(lengths, 1.0).astype(int)
        self._window = np.zeros((int(self._lengths.max()), len(limits.names)))  # newest first
        self.reset(np.clip(np.zeros(len(limits.names)), limits.lower, limits.upper))

    def reset(self, position: np.ndarray) -> None:
        """At rest at `position` (J,). Outside the limits the joint may move inwards only."""
        self._x = np.array(position, dtype=np.float64)
        if not np.isfinite(self._x).all():
            raise ValueError(f"position {position}, expected finite numbers")
        self._v = np.zeros_like(self._x)
        self._window[:] = self._x
        self.position = self._x.copy()
        self.velocity = np.zeros_like(self._x)
        self.limited = np.zeros(len(self._x), dtype=bool)
        self._lower = np.minimum(self.limits.lower, self._x)
        self._upper = np.maximum(self.limits.upper, self._x)

    @property
    def unsmoothed(self) -> np.ndarray:
        """(J,) the last command before the moving average; `position` itself without jerk limits and at rest."""
        return self._x

    @property
    def at_rest(self) -> bool:
        """Nothing moves any more, the moving average included."""
        return not self._v.any() and bool((self._window == self._x).all())

    def follow(self, target: np.ndarray, target_velocity: np.ndarray) -> np.ndarray:
        """(J,) the next command towards a target that is at `target` (J,) with `target_velocity` (J,)."""
        limits, dt = self.limits, self.dt
        w = np.clip(target_velocity, -limits.velocity, limits.velocity)
        left = target - w * dt - self._x
        wish = w + np.sign(left) * stoppable_speed(np.abs(left), limits.acceleration, dt)
        return self._step(wish, target)

    def brake(self) -> np.ndarray:
        """(J,) the next command of the fastest stop; then the same one again and again."""
        return self._step(np.zeros_like(self._x), None)

    def _step(self, wish: np.ndarray, target: np.ndarray | None) -> np.ndarray:
        """(J,) the next command, from the wished velocity (J,) and what it is to reach (J,), None to brake."""
        limits, dt, x = self.limits, self.dt, self._x
        step = limits.acceleration * dt
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
        self._v = v
        self._x = new
        self._lower = np.minimum(limits.lower, new)
        self._upper = np.maximum(limits.upper, new)
        self._window[1:] = self._window[:-1]
        self._window[0] = new
        if len(self._window) == 1:
            out = new.copy()
        else:
            # written around the newest value, so that a window of equal values gives that value exactly
            offset = np.where(np.arange(len(self._window))[:, None] < self._lengths, self._window - new, 0.0)
            out = new + offset.sum(axis=0) / self._lengths
        self.velocity = (out - self.position) / dt
        self.position = out
        return out
