"""Reversals, tube, time at a limit and progress, in exact numbers; and what the executor makes of them."""

import numpy as np
import pytest
from control.fakes import HOME, NS, World
from control.robots import limits
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.control.admission import Reason
from vla_ros.control.monitor import Monitor
from vla_ros.control.settings import Command
from vla_ros.control.supervisor import Cause, State
from vla_ros.core.chunk import ActionChunk

WINDOW, LIMIT = 3.0, 3.5  # s, 1/s
TURN = 0.005 * limits().velocity  # what a joint has to go back to have turned round


class Watched:
    """A monitor and the time. Both joints do the same, each in its own measure."""

    def __init__(self, rate: float = 100.0, window: float = WINDOW) -> None:
        self.monitor, self.rate = Monitor(limits(), window, LIMIT), rate
        self.steady_ns, self.ticks = 7 * NS, 0

    def run(self, command: object, seconds: float, instruction: int = 1, following: bool = True, **change: object):
        """`command`: (t) s -> multiples of what the joints travel in 10 ms; gives what `reversals` said each tick."""
        said = []
        for _ in range(round(seconds * self.rate)):
            position = np.full(2, command(self.ticks / self.rate)) * 2 * TURN
            measured = position - change.get("away", 0.0)
            limited = np.array([self.ticks % 4 == 0, False])
            self.monitor.tick(self.steady_ns, instruction, following, position, measured, limited)
            self.steady_ns += round(NS / self.rate)
            self.ticks += 1
            said.append(self.monitor.reversals)
        return np.array(said)


def sine(frequency: float, size: float = 10.0):
    return lambda t: size * np.sin(2 * np.pi * frequency * t)


@pytest.mark.parametrize("rate", [50.0, 100.0, 333.0])
@pytest.mark.parametrize("frequency", [0.5, 1.0, 2.0, 4.0])
def test_a_sine_turns_round_twice_a_period(frequency, rate):
    watched = Watched(rate, window=10.0)
    assert watched.run(sine(frequency), 10.0)[-1] == pytest.approx(2 * frequency)
    later = watched.run(sine(frequency), 10.0)  # the window reaches back 9.5 to 10 s; one turn more or less at its ends
    assert later.max() <= 2 * frequency + 0.1 + 1e-9 and later.min() >= 2 * frequency * 0.95 - 0.1 - 1e-9


@pytest.mark.parametrize(
    "command",
    [
        lambda t: 0.0,
        lambda t: 5.0 * t,
        lambda t: 5.0 * min(t, 2.0),  # goes somewhere and stands there
        lambda t: np.random.default_rng(round(t * 1e6)).uniform(-0.24, 0.24),  # less than half a turn to either side
        lambda t: 3.0 * t + 0.24 * (-1) ** round(t * 100),
    ],
    ids=["still", "ramp", "there", "noise", "noisy ramp"],
)
def test_what_is_no_reversal(command):
    watched = Watched()
    assert not watched.run(command, 8.0).any()
    assert watched.monitor.warning == watched.monitor.first_warning == ""


def test_a_turn_counts_once_from_when_it_is_larger_than_rounding():
    for back, expected in ((0.49, 0.0), (0.51, 1 / WINDOW)):  # in units of two turns
        assert Watched().run(lambda t, back=back: min(t, 1.0) - back * (t > 1.5), 2.0)[-1] == pytest.approx(expected)


def test_only_what_follows_chunks_counts_and_an_instruction_starts_afresh():
    watched = Watched()
    assert not watched.run(sine(2.0), 3.0, following=False).any()
    assert np.isnan(watched.monitor.progress_age)
    assert watched.run(sine(2.0), 3.0).max() == pytest.approx(4.0)
    words = "joint turn: its commanded motion reverses 3.67 times a second, limit 3.5"
    assert watched.monitor.first_warning == words
    watched.run(sine(2.0), 4.0, following=False)  # a hold: the window is empty again
    assert (watched.monitor.warning, watched.monitor.first_warning) == ("", words)
    watched.run(sine(2.0), 3.0)
    assert watched.monitor.warning
    assert watched.run(sine(2.0), 0.2, instruction=2).max() <= 1 / WINDOW
    assert watched.monitor.warning == watched.monitor.first_warning == ""


def test_the_tube_and_the_share_of_limited_ticks_are_those_of_the_window():
    watched = Watched()
    watched.run(lambda t: t, 1.0, away=0.0)
    assert not watched.monitor.deviation.any()
    watched.run(lambda t: t, 0.01, away=np.array([0.02, -0.5]))
    watched.run(lambda t: t, 2.7, away=0.001)
    assert watched.monitor.deviation == pytest.approx([0.02, 0.5])
    assert watched.monitor.limited_share == pytest.approx([0.25, 0.0], abs=0.005)
    watched.run(lambda t: t, 1.0, away=0.001)
    assert watched.monitor.deviation == pytest.approx([0.001, 0.001])


def test_progress_is_to_be_where_the_robot_has_not_been():
    watched = Watched()
    watched.run(lambda t: 20.0 * t, 4.0)  # 5 of these are new: every 0.25 s, looked for every 0.1 s
    assert watched.monitor.progress_age <= 0.4
    watched.run(lambda t: 80.0, 6.0)
    assert 6.0 <= watched.monitor.progress_age <= 6.4
    watched.run(lambda t: 80.0 - 20.0 * np.sin(t) ** 2, 6.0)  # where it has been already
    assert 12.0 <= watched.monitor.progress_age <= 12.4
    watched.run(lambda t: 80.0, 1.0, following=False)  # a pause is none either
    assert 13.0 <= watched.monitor.progress_age <= 13.4
    watched.run(lambda t: 90.0, 0.5)
    assert watched.monitor.progress_age <= 0.5
    watched.run(lambda t: 90.0, 1.0, instruction=2)
    assert watched.monitor.progress_age == pytest.approx(0.99)


def test_late_ticks_change_little_and_a_jump_of_time_starts_over():
    rng = np.random.default_rng(3)
    watched, said = Watched(), []
    for _ in range(1000):
        t = watched.steady_ns / NS
        watched.steady_ns += round(rng.choice([0.01, 0.01, 0.01, 0.06]) * NS)
        said.append(watched.run(lambda _, t=t: sine(1.0)(t), 0.01)[-1, 0])
    assert max(said) == pytest.approx(2.0, abs=0.34) and min(said[300:]) >= 1.3
    for leap in (-1, 60):
        watched.steady_ns += leap * NS
        assert watched.run(lambda t: 0.0, 0.02).max() == 0.0 and watched.monitor.progress_age < 0.02
        watched.run(sine(2.0), 2.0)


# In the executor


def shaken(world: World, seconds: float, frequency: float = 2.5) -> list[Command]:
    """A policy that sees the robot and cannot make up its mind: to one side, to the other."""
    commands = []
    for k in range(round(seconds * 10)):
        side = 0.05 if int(k / 10 * 2 * frequency) % 2 else -0.05
        world.send(np.tile(HOME + [side, 0.0, 0.0], (3, 1)))
        commands += [world.tick() for _ in range(10)]
    return commands


def test_on_reversals_hold_stops_until_there_is_another_instruction():
    world = World(on_reversals="hold", monitor_window=3.0, reversal_limit=3.0, mode="latest", crossfade=0.0).activate()
    shaken(world, 1.9)
    assert world.executor.state == (State.EXECUTING, Cause.NONE, "")
    shaken(world, 2.0)
    state, cause, words = world.executor.state
    assert (state, cause) == (State.STOPPED, Cause.REVERSALS)
    assert words == "joint turn: its commanded motion reverses 3.33 times a second, limit 3"
    assert world.executor.at_rest and world.send().reason == Reason.STOPPED
    at = world.tick().position
    world.executor.set_instruction("go")  # the same again is no way back, nor is time
    assert np.array_equal(world.tick(500).position, at)
    assert world.executor.state[1] == Cause.REVERSALS
    world.tick(leap=100.0)  # nor a clock that jumps
    world.tick(100)
    assert world.executor.state[1] == Cause.REVERSALS
    world.instruction = "another"
    world.executor.set_instruction("another")
    world.tick(50)
    assert world.executor.state[1] == Cause.REVERSALS  # half a second
    world.tick(2)
    assert world.executor.state[:2] == (State.HOLDING, Cause.NO_CHUNK)
    assert isinstance(world.send(np.tile(HOME, (20, 1))), ActionChunk)
    world.tick(60)
    assert world.executor.state == (State.EXECUTING, Cause.NONE, "")


def test_a_new_activation_is_the_other_way_back():
    world = World(on_reversals="hold", monitor_window=3.0, reversal_limit=3.0, mode="latest", crossfade=0.0).activate()
    shaken(world, 2.2)
    assert world.executor.state[1] == Cause.REVERSALS
    world.executor.deactivate()
    world.activate()
    world.send(np.tile(HOME, (20, 1)))
    world.tick(60)
    assert world.executor.state == (State.EXECUTING, Cause.NONE, "")


def test_on_reversals_warn_says_so_and_goes_on():
    world = World(monitor_window=3.0, reversal_limit=3.0, mode="latest", crossfade=0.0).activate()
    shaken(world, 4.0)
    state, cause, words = world.executor.state
    assert (state, cause) in ((State.EXECUTING, Cause.NONE), (State.APPROACHING, Cause.NONE))
    assert words.startswith("joint turn: its commanded motion reverses ")
    status = world.executor.status(world.now_ns)
    assert status.reversals[0] > 3.0 and not status.reversals[1:].any()
    assert status.limited_share[0] > 0 and status.deviation[0] > 0


@settings(max_examples=40)
@given(
    steps=st.lists(st.tuples(st.floats(-0.3, 0.3), st.integers(1, 30)), min_size=3, max_size=15),
    limit=st.sampled_from([0.1, 0.5, 5.0]),
)
def test_a_warning_never_changes_a_command(steps, limit):
    def commands(**options: object) -> np.ndarray:
        world, found = World(**options).activate(), []
        for side, ticks in steps:
            world.send(np.tile(HOME + [side, side / 3, 0.5 + side], (8, 1)))
            found += [world.tick().position for _ in range(ticks)]
        return np.array(found)

    assert np.array_equal(commands(reversal_limit=limit), commands(reversal_limit=0.0))
