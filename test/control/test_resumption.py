"""After a long stop the robot waits until the instruction is given again, in explicit time."""

import numpy as np
import pytest
from control.fakes import HOME, World
from control.test_executor import moving as moving_at
from control.test_executor import state

from vla_ros.control.admission import Reason
from vla_ros.control.supervisor import Cause, State
from vla_ros.core.chunk import ActionChunk

UNCONFIRMED = State.STOPPED, Cause.UNCONFIRMED
RATE = 50


def moving(**settings: object) -> World:
    return moving_at(rate=RATE, **settings)


def resumes(world: World) -> None:
    assert isinstance(world.send(np.tile(world.measured, (20, 1)) - [0.05, 0, 0]), ActionChunk)
    world.tick(20)
    assert state(world) == (State.EXECUTING, Cause.NONE)


def blind(world: World, seconds: float) -> None:
    """Its driver is gone for so long."""
    world.joints = False
    world.tick(round((seconds + 0.25) * RATE))  # a measurement counts for 0.25 s
    world.joints = True
    world.tick()


def rivalled(world: World, seconds: float) -> None:
    world.executor.rivals(["other"], world.now_ns)
    world.tick(round(seconds * RATE))
    world.executor.rivals([], world.now_ns)
    world.tick()


def deserted(world: World, seconds: float) -> None:
    world.executor.policy_alive(False, world.now_ns)
    world.tick(round(seconds * RATE))
    world.executor.policy_alive(True, world.now_ns)
    world.tick()


def stalled(world: World, seconds: float) -> None:
    world.tick(pause=seconds)
    world.tick(30)


def waited(world: World, seconds: float) -> None:
    """The policy has no image; what it said before is followed to its end."""
    world.executor.policy_waits("the policy: front: 0.6 s old")
    while world.executor.status(world.now_ns).live_chunks:
        world.tick()
    world.tick(round(seconds * RATE))
    world.executor.policy_waits("")
    world.tick()


STOPS = [blind, rivalled, deserted, stalled, waited]


@pytest.mark.parametrize("stop", STOPS)
def test_a_long_stop_is_confirmed_by_the_same_instruction(stop):
    world = moving(resume="confirm")
    stop(world, 2.3)
    assert state(world) == UNCONFIRMED
    words = world.executor.state[2]
    assert words.startswith("stopped for more than 2 s (")
    assert words.endswith("): moves when the instruction is given again")
    place = world.tick(10).position
    refusal = world.send(HOME + np.arange(20)[:, None] * 0.1 * [0.5, 0.1, 0.0])
    assert refusal.reason == Reason.STOPPED and "UNCONFIRMED: stopped for more than 2 s" in refusal.text
    old = world.chunk()
    assert np.array_equal(world.tick(150).position, place) and world.executor.state[2] == words
    world.executor.set_instruction(world.instruction)
    world.tick()
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    assert world.executor.add_chunk(old, world.now_ns).reason in (Reason.BEFORE_STOP, Reason.TOO_OLD)
    resumes(world)


@pytest.mark.parametrize("stop", STOPS)
def test_a_short_stop_is_not(stop):
    world = moving(resume="confirm")
    stop(world, 1.2)
    world.tick(30)
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    resumes(world)


BY_ITSELF = [(stop, "automatic", 0.0) for stop in STOPS] + [(stop, "", 50.0) for stop in (rivalled, deserted, waited)]


@pytest.mark.parametrize(("stop", "resume", "clock"), BY_ITSELF)
def test_nor_is_a_long_one_where_it_resumes_by_itself(stop, resume, clock):
    world = moving(resume=resume, clock=clock)
    stop(world, 5.0)
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    resumes(world)


def test_by_default_it_is_confirmed():
    world = moving(resume="")
    blind(world, 2.3)
    assert state(world) == UNCONFIRMED


def test_an_instruction_during_the_stop_does_not_count():
    """Nobody knows when that ends."""
    world = moving(resume="confirm")
    world.joints = False
    world.tick(50)
    world.executor.set_instruction("go")
    world.tick(100)
    world.executor.set_instruction("go")
    assert state(world) == (State.STOPPED, Cause.STALE_JOINT_STATES)
    world.joints = True
    world.tick()
    assert state(world) == UNCONFIRMED
    world.joints = False
    world.tick(30)
    assert state(world) == (State.STOPPED, Cause.STALE_JOINT_STATES)  # graver
    world.joints = True
    world.tick()
    assert state(world) == UNCONFIRMED
    world.executor.set_instruction("go")
    world.tick()
    resumes(world)


def test_nor_does_one_while_the_policy_still_waits():
    """Else the robot would move as soon as somebody has plugged the camera in."""
    world = moving(resume="confirm")
    world.executor.policy_waits("the policy: front: 0.6 s old")
    world.tick(8 * RATE)
    assert state(world) == UNCONFIRMED
    world.executor.set_instruction("go")
    world.tick(5)
    assert state(world) == UNCONFIRMED
    world.executor.policy_waits("")
    world.tick(5)
    assert state(world) == UNCONFIRMED
    world.executor.set_instruction("go")
    world.tick()
    resumes(world)


def test_nor_does_one_while_the_e_stop_is_latched():
    world = moving(resume="confirm")
    blind(world, 5.0)
    world.executor.e_stop("button")
    world.executor.set_instruction("go")
    world.tick()
    world.executor.reset_e_stop(world.now_ns)
    world.tick()
    assert state(world) == UNCONFIRMED
    world.executor.set_instruction("go")
    world.tick()
    resumes(world)


def test_nothing_is_confirmed_that_had_not_begun():
    """No instruction, or one that the policy has not answered yet, because its cameras come later."""
    world = World(RATE, resume="confirm").activate()
    world.executor.set_instruction("")
    blind(world, 5.0)
    assert state(world) == (State.HOLDING, Cause.NO_INSTRUCTION)
    world.executor.policy_waits("the policy: front: never seen")
    world.executor.set_instruction("go")
    world.tick(5 * RATE)
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    world.executor.policy_waits("")
    resumes(world)


@pytest.mark.parametrize("act", ["e-stop", "empty", "activation"])
def test_what_a_person_does_is_no_such_stop(act):
    world = moving(resume="confirm")
    if act == "e-stop":
        world.executor.e_stop("button")
        world.tick(5 * RATE)
        world.executor.reset_e_stop(world.now_ns)
    elif act == "empty":
        world.executor.set_instruction("")
        world.tick(5 * RATE)
        world.executor.set_instruction("go")
    else:
        blind(world, 5.0)
        assert state(world) == UNCONFIRMED
        world.executor.deactivate()
        world.activate()
    world.tick()
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    resumes(world)


def test_an_empty_instruction_ends_the_waiting():
    world = moving(resume="confirm")
    blind(world, 5.0)
    world.executor.set_instruction("")
    world.tick()
    assert state(world) == (State.HOLDING, Cause.NO_INSTRUCTION)
    world.executor.set_instruction("go")
    world.tick()
    assert isinstance(world.send(), ActionChunk)
