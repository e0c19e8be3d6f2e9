"""A person's commands in place of the policy's: a leader arm, or any other source of joint positions and of velocities
of a base."""

from collections.abc import Sequence

import numpy as np

from vla_ros.control.blending import fade
from vla_ros.control.joint_states import MeasuredJoints
from vla_ros.control.limits import Limits
from vla_ros.control.settings import Settings
from vla_ros.core.errors import InputError, shown

_GENTLY = 0.5  # of the velocity limits: how fast the robot goes to a source that is elsewhere
_PEAK = 1.5  # greatest speed of the fade, in those of a straight line of the same length and time
_PERIOD = 1 / 30  # s between messages, at most; those of a burst are no further apart than these
_BRAKED = 4.0  # time of the fade of a velocity in that velocity over the acceleration that it begins with


class Takeover:
    """A source that commands in place of the policy, and the targets that it gives.

    The robot is braked, and goes from its last command to the source over `takeover_blend` s, longer where the way is
    long; then it is where the source was one message ago, on a straight line between messages. With a stop, with a
    silence or a jump of the source and with an empty instruction the source is followed no more until it takes over
    again: the policy does not go on instead of it, nor does the robot set out for where the source is by then.
    A base goes to the source's velocity as fast as it may change its own. That may be any within its limits: it neither
    fades nor jumps.

    Attributes:
        by: name of the source; "" while the policy commands.
        paused: why the robot does not follow the source although it has taken over, in words.
    """

    def __init__(self, limits: Limits, settings: Settings) -> None:
        self._limits, self._settings = limits, settings
        self.by = self.paused = ""
        self.clear()

    def clear(self) -> None:
        """Forget what was received from the source."""
        self._source = MeasuredJoints((), self._settings.admission.future_tolerance)
        self._columns = np.empty(0, dtype=int)  # of the source's joints, among those of the robot
        self._fault, self._begun = "", False

    @property
    def following(self) -> bool:
        return bool(self.by) and not self.paused

    def heard(self, stamp_ns: int, names: Sequence[str], position: Sequence[float], now_ns: int) -> None:
        """A sensor_msgs/JointState of the source, rad or m, of a base m/s or rad/s, consistent in itself; of some
        joints or all."""
        self._fault = self._fault_of(names, position)
        if self._fault:
            return
        source = self._source
        if new := [name for name in names if name not in source.names]:
            source = self._source = MeasuredJoints((*source.names, *new), self._settings.admission.future_tolerance)
            self._columns = np.array([self._limits.names.index(name) for name in source.names])
            self._left, self._begun = np.zeros(len(source.names)), False
        before, place = source.stamps_ns.copy(), source.position.copy()
        source.update(stamp_ns, names, position, now_ns)
        passed, known = (source.stamps_ns - before) * 1e-9, before > 0
        if jump := self._jump(source.position - place, passed, known):
            self.pause(jump)
        self._left = np.where(known & (passed > 0), np.minimum(passed, self._settings.takeover_timeout), self._left)

    def _jump(self, way: np.ndarray, passed: np.ndarray, known: np.ndarray) -> str:
        """Which joint went further, `way` (K,), in the time that has `passed` (K,), s, than one that moves; "": none.
        Discrete ones and velocities of a base may."""
        limits, columns, speed = self._limits, self._columns, self._settings.admission.outlier_speed
        seconds = np.clip(passed, _PERIOD, max(self._settings.takeover_timeout, _PERIOD))
        most = speed * limits.velocity[columns] * seconds
        gliding = ~(limits.discrete | limits.rates)[columns]
        over = np.where(known & gliding, np.abs(way) - most, -np.inf)
        k = int(over.argmax())
        if not over[k] > 0:
            return ""
        name, unit = limits.names[columns[k]], limits.units[columns[k]]
        return (f"joint {name} jumped by {way[k]:.4g} {unit} from one message to the next, limit {most[k]:.4g} in "
                f"{seconds[k]:.3g} s ({speed:g} x its velocity limit)")

    def _fault_of(self, names: Sequence[str], position: Sequence[float]) -> str:
        limits = self._limits
        if unknown := [name for name in names if name not in limits.names]:
            return f"joint {shown(unknown[0])} is not one of the robot's, expected some of {list(limits.names)}"
        whole = np.clip(np.zeros(len(limits.names)), limits.lower, limits.upper)
        for name, value in zip(names, position, strict=False):
            whole[limits.names.index(name)] = value if np.isfinite(value) else whole[limits.names.index(name)]
        outside = limits.outside(whole, self._settings.admission.position_excess)
        return f"{outside}; are these rad and m, of a base m/s and rad/s?" if outside else ""

    def problem(self, now_ns: int) -> str:
        """Why the source cannot be followed, in words; "" if it can."""
        if self._fault or not self._source.names:
            return self._fault or "nothing received yet, expected joint positions (sensor_msgs/JointState)"
        return self._source.stale(now_ns, self._settings.takeover_timeout)

    def take(self, by: str, now_ns: int) -> None:
        """Follow `by` from now on. Raises InputError if it cannot be followed."""
        if problem := self.problem(now_ns):
            raise InputError(f"{by}: {problem}")
        if not self.following:
            self.by, self.paused, self._begun = by, "", False

    def end(self) -> None:
        """Give control back to the policy."""
        self.by = self.paused = ""

    def pause(self, why: str) -> None:
        """Stop following it until it takes over again."""
        self.paused = self.paused or (why if self.by else "")

    def watch(self, now_ns: int) -> None:
        """A control period."""
        if self.following and (problem := self.problem(now_ns)):
            self.pause(problem)

    def target(self, position: np.ndarray, velocity: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray] | None:
        """(J,) position and (J,) velocity to follow, NaN for joints that the source does not have; None: braking.
        For a base, velocities and how fast they change.

        `position` (J,), `velocity` (J,): of the last command, `dt` s before, before the limits of jerk.
        """
        if not self.following:
            return None
        goal, columns = self._source.position, self._columns
        discrete, limit = self._limits.discrete[columns], self._limits.velocity[columns]
        if not self._begun:
            self._begun, self._at, self._left, self._passed = True, goal.copy(), np.zeros(len(goal)), 0.0
            # A velocity of a base does not fade: the limits bound how fast it changes.
            offset, moved = np.where(self._limits.rates[columns], 0.0, (position[columns] - goal, velocity[columns]))
            ways = np.where(discrete, 0.0, np.abs(offset) / (_GENTLY * limit))
            span = max(self._settings.takeover_blend, dt, _PEAK * float(ways.max()))
            # A motion away from the source must not last as long as the way back: it is braked separately.
            braked = np.maximum(_BRAKED * np.abs(moved) / self._limits.acceleration[columns], dt)
            self._fades = (span, offset, 0.0), (braked, 0.0, moved)
        step = (goal - self._at) * np.where(self._left > dt, dt / np.maximum(self._left, dt), 1.0)
        self._at, self._left = self._at + step, np.maximum(self._left - dt, 0.0)
        self._passed += dt
        at, speed = self._at, step / dt
        for span, *left in self._fades:
            away, faster = fade(np.minimum(self._passed / span, 1.0), span, *left)
            at, speed = at + away, speed + faster
        place, moving = np.full((2, len(position)), np.nan)
        place[columns], moving[columns] = np.where(discrete, goal, at), np.where(discrete, 0.0, speed)
        return place, moving
