"""The position at which commands begin, at first or after a pause."""

import numpy as np

from vla_ros.control.joint_states import JointStates
from vla_ros.control.limits import Limits
from vla_ros.control.settings import Command, Settings
from vla_ros.control.watchdogs import Watchdogs
from vla_ros.core.errors import InputError, NotYet


class Start:
    """Asked for where the robot may be commanded; decided with the first tick, which knows how long nothing was said.

    A silence no longer than a stall may be is one: a motion is braked from its last command, and a robot at rest near
    its last command stays there. Otherwise commands begin at the measured position; but a measurement older than the
    last command does not know where that has led, so they go on from the command then. In simulated time, which stands
    still while a simulator puts the robot elsewhere, a robot at rest is always where it was measured.

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
        """Commands may begin here. Raises InputError where they may not, NotYet where the robot has not been heard."""
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
        """(J,) where the robot stands, rad or m; None: it goes on from its last command, in motion."""
        self.asked = False
        if self.last is None:
            return self._measured
        soon = (steady_ns - self._last_ns - self._period_ns) * 1e-9 <= self._settings.overrun_limit
        if soon and not at_rest:
            return None
        near = not self._simulated and not self._watchdogs.apart(self.last.position, self._measured)
        if self._young and not (soon and near):
            return self._measured
        return np.where(self._limits.rates, 0.0, self.last.position)  # what a base was told before the silence

    def commanded(self, command: Command, steady_ns: int) -> None:
        """This is the last command now."""
        self.last, self._last_ns = command, steady_ns
        self._joint_states.mark()
