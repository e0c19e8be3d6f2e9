"""Executors that are broken on purpose. A check that cannot find these would find nothing else either."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import command_check as check
import numpy as np

from vla_ros.control.executor import Executor
from vla_ros.control.limits import Limits
from vla_ros.control.settings import Command, Settings
from vla_ros.control.timing import SimulatedPeriods

STOPPED, E_STOPPED = 5, 6


def with_limits(**change: Callable[[Limits], np.ndarray]) -> Callable[..., Executor]:
    """The executor believes in other limits than the robot has."""

    def make(limits: Limits, *args: Any) -> Executor:
        return Executor(replace(limits, **{name: of(limits) for name, of in change.items()}), *args)

    return make


def careless_start(limits: Limits, rate: float, settings: Settings, *args: Any) -> Executor:
    return Executor(limits, rate, replace(settings, start_tolerance=1e9), *args)


class Changed(Executor):
    """Changes what comes out."""

    count = 0
    last: Command | None = None
    before: Command | None = None

    def tick(self, now_ns: int, steady_ns: int, lateness: float = 0.0) -> Command | None:
        self.count += 1
        command = self.change(super().tick(now_ns, steady_ns, lateness))
        if command is not None:
            self.before, self.last = self.last, command
        return command

    def change(self, command: Command | None) -> Command | None:
        raise NotImplementedError

    @property
    def step(self) -> np.ndarray:
        """(J,) from the command before the last one to the last one."""
        if self.last is None or self.before is None:
            return np.zeros(len(self.limits.names))
        return self.last.position - self.before.position


class Poisoned(Changed):
    def change(self, command: Command | None) -> Command | None:
        return replace(command, position=command.position * np.nan) if command and self.count % 97 == 0 else command


class Repeating(Changed):
    """Stamps a command like the one before."""

    def change(self, command: Command | None) -> Command | None:
        return (
            replace(command, stamp_ns=self.last.stamp_ns) if command and self.last and self.count % 97 == 0 else command
        )


class Trembling(Changed):
    """Stamps that are off by up to a third of a period."""

    def change(self, command: Command | None) -> Command | None:
        off = round(self.limiter.dt * 1e9 / 3) * (self.count % 2)
        return replace(command, stamp_ns=command.stamp_ns + off) if command else None


class Talkative(Changed):
    def change(self, command: Command | None) -> Command | None:
        return command or self.last


class Coasting(Changed):
    """Goes on with its speed when it is stopped."""

    def change(self, command: Command | None) -> Command | None:
        stopped = command is not None and self.last is not None and self.state[0] in (STOPPED, E_STOPPED)
        return replace(command, position=self.last.position + self.step) if stopped else command


class Kicking(Changed):
    """The first command of a stop goes back a little."""

    was = False

    def change(self, command: Command | None) -> Command | None:
        is_stopped = command is not None and self.last is not None and self.state[0] in (STOPPED, E_STOPPED)
        first, self.was = is_stopped and not self.was, is_stopped
        return replace(command, position=self.last.position - self.step) if first else command


class Deaf(Executor):
    def e_stop(self, message: str) -> None:
        pass


class Forgetful(Executor):
    """A policy that lives again resets the e-stop."""

    def policy_alive(self, alive: bool, now_ns: int) -> None:
        super().policy_alive(alive, now_ns)
        if alive:
            self.reset_e_stop(now_ns)


class Punctual(Changed):
    """Believes that its ticks are never late."""

    missed_ns = 0
    before_ns: int | None = None

    def tick(self, now_ns: int, steady_ns: int, lateness: float = 0.0) -> Command | None:
        passed = steady_ns - self.before_ns if self.before_ns is not None else 0
        if 0 < passed < 1e9 * self.settings.overrun_limit:
            self.missed_ns += passed - round(1e9 * self.limiter.dt)
        self.before_ns, self.stamp_ns = steady_ns, now_ns
        return super().tick(now_ns - self.missed_ns, steady_ns - self.missed_ns, lateness)

    def joint_state(self, stamp_ns: int, names: list[str], position: list[float], now_ns: int) -> None:
        super().joint_state(stamp_ns - self.missed_ns, names, position, now_ns - self.missed_ns)

    def change(self, command: Command | None) -> Command | None:
        return replace(command, stamp_ns=self.stamp_ns) if command else None


class EveryMessage(SimulatedPeriods):
    """A tick for each message of a simulated clock, instead of one for each control period."""

    def due(self, now_ns: int) -> Iterator[tuple[int, int]]:
        if now_ns <= self._at_ns:
            yield from super().due(now_ns)
        else:
            yield self._tick(now_ns, now_ns - self._at_ns)


class OffGrid(Punctual):
    """Takes them for control periods."""

    periods = EveryMessage

    def tick(self, now_ns: int, steady_ns: int, lateness: float = 0.0) -> Command | None:
        tick = Punctual.tick if self._time.simulated else Executor.tick
        return tick(self, now_ns, steady_ns, lateness)


class Homing(Executor):
    """Begins where it first stood, wherever the robot is now."""

    home: np.ndarray | None = None

    def activate(self, now_ns: int) -> None:
        super().activate(now_ns)
        self.home = self.joint_states.position.copy() if self.home is None else self.home

    def _begin(self, steady_ns: int) -> None:
        super()._begin(steady_ns)
        self.limiter.reset(self.home)


class Hasty(Executor):
    """Moves before anybody can have heard of it."""

    heard = property(lambda self: True, lambda self, value: None)


class Led(Executor):
    """Follows a source that is silent, or was stopped, from where it was heard last."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.takeover.pause = lambda why: None


class Fragile(Executor):
    def set_instruction(self, text: str) -> None:
        if "[" in text:
            raise KeyError(text)
        super().set_instruction(text)


# name -> how to make it, and the kinds of violation of which at least one must be found
SABOTAGES: dict[str, tuple[Callable[..., Executor], tuple[str, ...]]] = {
    "position": (
        with_limits(lower=lambda x: x.lower - 0.01 * x.range, upper=lambda x: x.upper + 0.01 * x.range),
        (check.POSITION,),
    ),
    "velocity": (with_limits(velocity=lambda x: 1.1 * x.velocity), (check.VELOCITY, check.VELOCITY_STAMPS)),
    "acceleration": (
        with_limits(acceleration=lambda x: 1.1 * x.acceleration),
        (check.ACCELERATION, check.ACCELERATION_STAMPS),
    ),
    "jerk": (with_limits(jerk=lambda x: 1.2 * x.jerk), (check.JERK,)),
    "start": (careless_start, (check.START,)),
    "finite": (Poisoned, (check.NOT_FINITE,)),
    "stamps": (Repeating, (check.STAMPS,)),
    "trembling stamps": (Trembling, (check.ACCELERATION_STAMPS,)),
    "late ticks": (Punctual, (check.ACCELERATION,)),
    "clock off the grid": (OffGrid, (check.ACCELERATION,)),
    "coasting": (Coasting, (check.BRAKING,)),
    "kicking": (Kicking, (check.STOPPED,)),
    "hasty": (Hasty, (check.STOPPED,)),
    "talkative": (Talkative, ("command while silent",)),
    "deaf": (Deaf, ("e-stop lost",)),
    "forgetful": (Forgetful, ("e-stop lost",)),
    "homing": (Homing, ("continuity",)),
    "base that coasts": (with_limits(units=lambda x: ("m",) * len(x.names)), (check.BRAKING,)),
    "led on": (Led, ("led without leave",)),
    "fragile": (Fragile, ("crash",)),
}
