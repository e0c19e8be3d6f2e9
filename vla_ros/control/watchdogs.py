"""The watchdogs: faults that stop the robot, and when each of them ends."""

from collections.abc import Callable, Sequence

import numpy as np

from vla_ros.control.following import Following
from vla_ros.control.joint_states import JointStates
from vla_ros.control.limiter import Limiter
from vla_ros.control.limits import Limits
from vla_ros.control.monitor import Monitor
from vla_ros.control.settings import Settings
from vla_ros.control.stall import Stall
from vla_ros.control.supervisor import SETTLE_NS, Cause, Supervisor
from vla_ros.control.timing import CommandTime

_LONGEST = 3600.0  # s, longest time that a message may give for reaching a command
_FOUND = 0.01  # s at the velocity limit; a tool nearer than this is at its command


class Watchdogs:
    """Trip the supervisor, and end a trip when its fault has been absent for long enough.

    `now_ns` is ROS time.

    Attributes:
        following: checks that the robot follows its commands.
    """

    def __init__(
        self,
        limits: Limits,
        settings: Settings,
        supervisor: Supervisor,
        joint_states: JointStates,
        forget_chunks: Callable[[], None],
    ) -> None:
        """`forget_chunks` is called when earlier observations must no longer be followed."""
        self._limits, self._settings = limits, settings
        self._supervisor, self._joint_states = supervisor, joint_states
        self._forget_chunks = forget_chunks
        self._pace = np.maximum(limits.velocity, limits.speed)
        self.following, self._stall = Following(limits), Stall(limits)

    def begin(self) -> None:
        """Nothing of the robot's motion has been seen yet."""
        self.following.clear()
        self._stall.clear()

    def trip(self, cause: Cause, message: str, now_ns: int, again: bool = False) -> None:
        """`again`: also if it was tripped before, so that its recovery starts again."""
        if self._supervisor.trip(cause, message, now_ns) or again:
            self._supervisor.not_before_ns = now_ns
            self._forget_chunks()

    def recovered(self, cause: Cause, now_ns: int, settle_ns: int = 0) -> None:
        """The fault is absent now; its trip ends after `settle_ns` without it."""
        if self._supervisor.recovered(cause, now_ns, settle_ns):
            self._forget_chunks()

    def stale(self, now_ns: int) -> str:
        """The joints without a fresh position, in words; "" if all are fresh."""
        return self._joint_states.stale(now_ns, self._settings.joint_state_timeout)

    def clock(self, time: CommandTime, now_ns: int) -> bool:
        """Check whether ROS time was set. True if it jumped since the last tick."""
        passed, limit = time.interval_ns * 1e-9, time.tolerance_ns * 1e-9
        if abs(time.leap_ns) >= time.tolerance_ns:
            text = f"ROS time changed by {passed + time.leap_ns * 1e-9:+.3f} s in {passed:.3f} s, limit {limit:.3f} s"
            self.trip(Cause.CLOCK_JUMP, text, now_ns, again=True)
            return True
        if abs(time.away_ns) >= time.tolerance_ns:  # until the robot has braked
            text = f"ROS time is {time.away_ns * 1e-9:+.3f} s from where it was, limit {limit:.3f} s"
            known = self._supervisor.tripped(Cause.CLOCK_JUMP)
            self.trip(Cause.CLOCK_JUMP, self._supervisor.message(Cause.CLOCK_JUMP) if known else text, now_ns, True)
        else:
            self.recovered(Cause.CLOCK_JUMP, now_ns, SETTLE_NS)
        return False

    def stall(self, time: CommandTime, now_ns: int) -> bool:
        """True if the control loop was stalled for longer than allowed."""
        stall, limit = (time.interval_ns - time.period_ns) * 1e-9, self._settings.overrun_limit
        if stall > limit:
            text = f"the control loop stalled for {stall:.3f} s, limit {limit} s"
            self.trip(Cause.OVERRUN, text, now_ns, again=True)
            return True
        self.recovered(Cause.OVERRUN, now_ns, SETTLE_NS)
        return False

    def place(self, now_ns: int) -> None:
        """A robot that is stopped does not continue from a position where it could not be activated."""
        if self._supervisor.stopped and not self.stale(now_ns):
            outside = self._limits.outside(self._joint_states.position, self._settings.start_tolerance)
            if outside:
                self.trip(Cause.FOLLOWING_ERROR, outside, now_ns, again=True)

    def joints(self, command: np.ndarray, now_ns: int, steady_ns: int) -> None:
        """Check that all joints are measured, near the last `command` (J,), and follow it."""
        stale = self.stale(now_ns)
        if stale:
            self.trip(Cause.STALE_JOINT_STATES, stale, now_ns)
            self.following.clear()
            return  # an error against an old measurement means nothing
        self.recovered(Cause.STALE_JOINT_STATES, now_ns)
        measured, supervisor = self._joint_states.position, self._supervisor
        if supervisor.tripped(Cause.RIVAL):
            self.following.clear()  # another node moves the robot
        else:
            self.following.tick(steady_ns, command, measured)
            self._stall.tick(steady_ns, command, measured)
        faults = self.following.fault or self._stall.fault
        away = self.apart(command, measured) or (faults if self._settings.following_limit > 0 else "")
        if away:
            self.trip(Cause.FOLLOWING_ERROR, away, now_ns)
        elif not self.apart(command, measured, 0.5):
            self.recovered(Cause.FOLLOWING_ERROR, now_ns, SETTLE_NS)
        elif supervisor.tripped(Cause.FOLLOWING_ERROR):
            self.trip(Cause.FOLLOWING_ERROR, supervisor.message(Cause.FOLLOWING_ERROR), now_ns)

    def apart(self, command: np.ndarray, measured: np.ndarray, share: float = 1.0) -> str:
        """The joint whose command and measurement (J,) differ by more than `share` of its limit, in words, or ""."""
        limits, most, behind = self._limits, self._settings.following_limit, self.behind(command, measured)
        if most <= 0 or (behind <= share * most).all():
            return ""
        worst = int(behind.argmax())
        return (
            f"joint {limits.names[worst]}: commanded {command[worst]:.4g} {limits.units[worst]}, "
            f"measured {measured[worst]:.4g}, limit {most * self._pace[worst]:.4g} apart"
        )

    def behind(self, command: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """(J,) s that each joint needs from `measured` (J,) to `command` (J,) at its velocity limit; for velocities of
        a base, at its acceleration, or the fraction of its highest speed, whichever is less."""
        away = np.abs(command - measured) / self._pace
        return np.where(self._limits.discrete, 0.0, away)  # a gripper that holds an object never arrives

    def reach_in(self, command: np.ndarray, measured: np.ndarray, dt: float) -> float:
        """s in which the robot should reach the command (J,), `dt` or more. A robot that stayed behind must not jump to
        it when its controller starts to listen again, so it gets as long as its limits need."""
        if not self._supervisor.tripped(Cause.FOLLOWING_ERROR):
            return dt
        behind = np.where(self._limits.rates, 0.0, self.behind(command, measured)).max()
        return max(dt, min(float(behind), _LONGEST)) if np.isfinite(behind) else dt

    def left_behind(self, columns: Sequence[int], command: np.ndarray, now_ns: int) -> bool:
        """Whether the robot was stopped because it does not follow, could start where it is, and one of `columns` is
        not at its command (J,)."""
        measured = self._joint_states.position
        if not self._supervisor.tripped(Cause.FOLLOWING_ERROR) or self.stale(now_ns):
            return False
        if self._limits.outside(measured, self._settings.start_tolerance):
            return False
        return bool((self.behind(command, measured)[columns] > _FOUND).any())

    def policy(self, monitor: Monitor, limiter: Limiter, following: bool, now_ns: int) -> None:
        """Check that the motion seen by `monitor` does not reverse too often; `following`: chunks are followed now."""
        if following and monitor.warning and self._settings.on_reversals == "hold":
            self.trip(Cause.REVERSALS, monitor.warning, now_ns)
        elif limiter.at_rest and not monitor.first_warning:  # there is another instruction
            self.recovered(Cause.REVERSALS, now_ns, SETTLE_NS)
