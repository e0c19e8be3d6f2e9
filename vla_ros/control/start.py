"""The position at which commands begin, at first or after a pause."""

import numpy as np

from vla_ros.control.joint_states import JointStates
from vla_ros.control.limits import Limits
from vla_ros.control.settings import Command, Settings
from vla_ros.control.watchdogs import Watchdogs
from vla_ros.core.errors import InputError, NotYet


class Start:
    """Requested when the robot may be commanded; decided at the first tick, when the length of the pause is known.

    A pause that is no longer than an allowed stall is treated as one: a motion is braked from its last command, and a
    robot at rest near its last command stays there. Otherwise commands begin at the measured position, unless that was
    measured before the last command: then they continue from that command. In simulated time, which stands still while
    a simulator moves the robot to another place, a robot at rest always starts where it was measured.

    Attributes:
        last: the last command; None before the first one.
        asked: commands begin with the next tick.
    """

    def __init__(
        self,
        limits: Limits,
        settings: Settings,
        joint_states: JointStates,
        watchdogs: Watchdogs,
        period_ns: int,
        simulated: bool,
    ) -> None:
        self._limits, self._settings, self._watchdogs = limits, settings, watchdogs
        self._joint_states = joint_states
        self._period_ns, self._simulated = period_ns, simulated
        self.last: Command | None = None
        self.asked = False
        self._last_ns = 0  # steady time of the last command
        self._measured, self._young = np.empty(0), False  # (J,) and whether that was since the last command

    def ask(self, now_ns: int) -> None:
        """Request commands to begin. Raises InputError if they may not, NotYet if the robot was not measured yet."""
        stale = self._watchdogs.stale(now_ns)
        if stale:
            raise NotYet(f"joint states: {stale}")
        measured = self._joint_states.position
        outside = self._limits.outside(measured, self._settings.start_tolerance)
        if outside:
            raise InputError(f"{outside}; move it there by hand or correct the limits")
        self._measured, self.asked = measured.copy(), True
        self._young = self.last is None or self._joint_states.since_mark(self.last.stamp_ns, now_ns)

    def place(self, steady_ns: int, at_rest: bool) -> np.ndarray | None:
        """(J,) where the robot starts at rest, rad or m; None: it continues from its last command, in motion."""
        self.asked = False
        if self.last is None:
            return self._measured
        soon = (steady_ns - self._last_ns - self._period_ns) * 1e-9 <= self._settings.overrun_limit
        if soon and not at_rest:
            return None
        near = not self._simulated and not self._watchdogs.apart(self.last.position, self._measured)
        if self._young and not (soon and near):
            return self._measured
        return np.where(self._limits.rates, 0.0, self.last.position)  # the velocities of a base before the pause

    def commanded(self, command: Command, steady_ns: int) -> None:
        """Remember the last command."""
        self.last, self._last_ns = command, steady_ns
        self._joint_states.mark()
