"""A base that stands although it is told to drive is stopped; one that brakes, lags, creeps or turns is not."""

from dataclasses import replace

import numpy as np
import pytest
from control.fakes import World
from control.robots import driving

from vla_ros.control.admission import Refusal
from vla_ros.control.limits import Limits
from vla_ros.control.stall import Stall
from vla_ros.control.supervisor import Cause, State
from vla_ros.core.robot import RobotSpec

NS = 1_000_000_000
LEKIWI = Limits.merge(RobotSpec.load("lekiwi"))


def feed(stall: Stall, command, measured, seconds: float, begin: float = 0.0) -> float | None:
    """When the fault came, s after the beginning; velocities x, y and yaw."""
    for k in range(round(seconds / 0.01)):
        at = k * 0.01
        rows = [np.append(np.zeros(6), value(at) if callable(value) else value) for value in (command, measured)]
        stall.tick(round((begin + at) * NS), *rows)
        if stall.fault:
            return at
    return None


@pytest.mark.parametrize(("command", "measured"), [
    ((0.2, 0.0, 0.0), (0.0, 0.0, 0.0)),
    ((-0.05, 0.0, 0.0), (0.01, 0.0, 0.02)),  # pushed back a little
    ((0.0, 0.0, 1.0), (0.2, 0.0, 0.0)),  # moved, but not as it is told
    ((0.2, 0.1, 0.3), (0.01, 0.01, 0.0)),
])  # fmt: skip
def test_a_base_that_stands_is_a_fault_after_two_seconds(command, measured):
    stall = Stall(LEKIWI)
    assert feed(stall, command, measured, 3.0) == pytest.approx(2.0)
    assert "x.vel" in stall.fault and stall.fault.startswith("the controller does not follow: for 2 s the base")
    assert feed(stall, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 2.0, begin=2.0) == 0.0  # it is stopped for longer than 2 s
    stall.tick(round(4.6 * NS), np.zeros(9), np.zeros(9))
    assert not stall.fault


@pytest.mark.parametrize(("command", "measured"), [
    ((0.2, 0.0, 0.0), lambda t: (0.2 * (t > 1.5), 0.0, 0.0)),  # sets out late
    ((0.2, 0.0, 0.0), (0.05, 0.0, 0.0)),  # uphill
    ((0.02, 0.0, 0.1), (0.0, 0.0, 0.0)),  # creeps
    ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    (lambda t: (0.2 * np.sign(np.sin(2 * t)), 0.0, 0.0), lambda t: (0.2 * np.sign(np.sin(2 * (t - 0.4))), 0.0, 0.0)),
])  # fmt: skip
def test_a_base_that_follows_somehow_is_none(command, measured):
    assert feed(Stall(LEKIWI), command, measured, 6.0) is None


def test_an_arm_alone_and_a_pause_are_none():
    arm = Limits.merge(RobotSpec.load("so101"))
    stall = Stall(arm)
    for k in range(400):
        stall.tick(k * 10_000_000, np.full(6, 0.5), np.zeros(6))
    assert not stall.fault
    stall = Stall(LEKIWI)
    assert feed(stall, (0.2, 0.0, 0.0), (0.0, 0.0, 0.0), 1.5) is None
    assert feed(stall, (0.2, 0.0, 0.0), (0.0, 0.0, 0.0), 1.9, begin=4.0) is None


@pytest.mark.parametrize("resume", ["automatic", "confirm"])
def test_the_executor_stops_a_base_at_a_wall(resume):
    """One like LeKiwi's, which is never further from its command than `following_limit` allows."""
    joints = [replace(one, velocity=0.26, lower=-0.26, upper=0.26) if one.unit == "m/s" else one
              for one in driving().joints]  # fmt: skip
    slow = replace(driving(), joints=tuple(joints))
    it = World(limits=Limits.merge(slow), home=np.array([0.1, 0.0, 0.0]), resume=resume).activate()

    def push(seconds: float) -> list[State]:
        states = []
        for k in range(round(seconds * 100)):
            if k % 20 == 0:
                sent = it.send(np.tile([0.1, 0.2, 0.0], (10, 1)), step_dt=0.1)
                assert not isinstance(sent, Refusal) or it.executor.state[0] is State.STOPPED
            it.measured[1] = min(it.measured[1], 0.0)  # the wall
            it.tick()
            states.append(it.executor.state[0])
        return states

    states = push(4.0)
    first = states.index(State.STOPPED)
    assert 2.0 <= first * 0.01 < 3.0
    assert it.executor.state[1] in (Cause.FOLLOWING_ERROR, Cause.UNCONFIRMED)
    assert "the controller does not follow: for 2 s the base has stood" in it.executor.state[2]
    it.tick(40)
    assert it.executor.limiter.position[1:] == pytest.approx([0.0, 0.0])
    later = push(4.0)
    if resume == "confirm":  # stays until the instruction is given again
        assert set(later) == {State.STOPPED}
        it.executor.set_instruction("go")
        assert State.EXECUTING in push(2.0)
    else:
        assert State.EXECUTING in later
