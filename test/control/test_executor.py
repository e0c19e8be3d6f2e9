"""States, causes and the way back of each watchdog, in explicit time."""

import numpy as np
import pytest
from control.fakes import HOME, NS, World

from vla_ros.control.admission import Reason
from vla_ros.control.executor import Executor
from vla_ros.control.supervisor import Cause, State
from vla_ros.core.chunk import ActionChunk
from vla_ros.core.errors import InputError

AWAY = np.array([0.4, 0.30, 0.9])


def moving(**settings: object) -> World:
    """A robot in the middle of a motion."""
    world = World(**settings).activate()
    world.send(HOME + np.arange(20)[:, None] * 0.1 * [0.5, 0.1, 0.0])
    world.tick(30)
    assert world.executor.state == (State.EXECUTING, Cause.NONE, "")
    return world


def state(world: World) -> tuple[State, Cause]:
    return world.executor.state[:2]


def rest(world: World) -> None:
    """Brakes within the limits, then repeats its last command."""
    before = world.executor.limiter.velocity.copy()
    step = world.executor.limits.acceleration * world.executor.limiter.dt
    while not world.executor.at_rest:
        world.tick()
        now = world.executor.limiter.velocity
        assert (np.abs(now - before) <= step * (1 + 1e-6)).all() and (np.abs(now) <= np.abs(before) + 1e-12).all()
        before = now.copy()
    at = world.tick().position
    assert np.array_equal(world.tick(10).position, at)


def resumes(world: World) -> None:
    assert isinstance(world.send(np.tile(world.measured, (20, 1)) + [0.05, 0, 0]), ActionChunk)
    world.tick()
    assert state(world)[0] == State.APPROACHING
    world.tick(40)
    assert state(world) == (State.EXECUTING, Cause.NONE)


def test_from_rest_to_rest():
    world = World()
    assert state(world) == (State.INACTIVE, Cause.NONE)
    assert world.tick(5) is None
    world.activate()
    assert np.array_equal(world.tick(3).position, HOME)
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    world.send(np.tile(AWAY, (10, 1)))
    world.tick()
    assert state(world) == (State.APPROACHING, Cause.NONE)
    world.tick(70)
    assert state(world) == (State.EXECUTING, Cause.NONE)
    assert np.array_equal(world.measured, AWAY)
    world.tick(30)
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    world.executor.set_instruction("")
    assert state(world) == (State.HOLDING, Cause.NO_INSTRUCTION)
    world.executor.begin_stop()
    rest(world)
    world.executor.deactivate()
    assert world.tick(2) is None and state(world) == (State.INACTIVE, Cause.NONE)


@pytest.mark.parametrize("back", [0.004, 0.06, 0.3])
def test_a_clock_that_is_set_back_before_the_activation_hides_no_measurement(back):
    """Nobody ticks then. The robot is pushed at the same time, and begins where it was measured last."""
    world = World()
    world.now_ns -= round(back * NS)
    world.measured = HOME + [0.05, 0.0, 0.0]
    world.measure()
    world.now_ns += 10_000_000
    world.measure()
    world.joints = False
    world.activate()
    assert np.array_equal(world.tick().position, world.measured) and world.measured[0] > HOME[0]


def test_nothing_moves_before_commands_are_heard():
    """Whoever carries them out would otherwise begin in mid-motion; what was sent meanwhile is followed then."""
    world = World().activate()
    world.executor.heard = False
    assert isinstance(world.send(np.tile(AWAY, (10, 1))), ActionChunk)
    assert np.array_equal(world.tick(5).position, HOME)
    assert world.executor.state == (State.HOLDING, Cause.NO_CHUNK, "first commands are on their way")
    world.executor.heard = True
    world.tick(70)
    assert state(world) == (State.EXECUTING, Cause.NONE) and np.array_equal(world.measured, AWAY)


def test_an_empty_instruction_brakes_and_a_new_one_waits_for_its_chunk():
    world = moving()
    world.executor.set_instruction("")
    rest(world)
    assert state(world) == (State.HOLDING, Cause.NO_INSTRUCTION)
    world.instruction = "another"
    world.executor.set_instruction("another")
    world.tick()
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    resumes(world)


def test_a_changed_instruction_is_followed_from_its_first_chunk_on():
    world = moving()
    world.instruction = "another"
    world.executor.set_instruction("another")
    world.tick(10)
    assert state(world) == (State.EXECUTING, Cause.NONE)  # no gap while the policy thinks
    world.send(np.tile(world.measured, (20, 1)))
    assert [chunk.instruction_id for chunk in world.executor.timeline.chunks] == [world.executor.instruction_id]


def test_stale_joint_states():
    world = moving()
    world.joints = False
    world.tick(26)
    assert state(world) == (State.STOPPED, Cause.STALE_JOINT_STATES)
    message = world.executor.state[2]
    assert message == "joints turn, lift, grip: 0.260 s old, limit 0.25 s"
    rest(world)
    assert world.send().reason == Reason.STOPPED
    old = world.chunk(age=0.05)
    world.joints = True
    world.tick()
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    assert world.executor.add_chunk(old, world.now_ns).reason == Reason.BEFORE_STOP
    resumes(world)


@pytest.mark.parametrize(
    "change",
    [
        {"names": ["turn", "lift"], "position": [0.1, 0.2]},
        {"position": [0.1, 0.2, float("nan")]},
        {"position": [0.1, 0.2]},
        {"stamp_ns": 990 * NS},
        {"stamp_ns": 4000 * NS},
    ],
)
def test_joint_states_that_cannot_be_believed_go_stale(change):
    world = moving()
    world.joints = False
    for _ in range(40):
        world.tick()
        world.measure(**change)
    assert state(world) == (State.STOPPED, Cause.STALE_JOINT_STATES)
    assert "grip" in world.executor.state[2]


def test_reordered_and_scattered_joint_states_do_no_harm():
    world = moving()
    world.joints = False
    for _ in range(50):
        world.tick()
        before = world.measured - 0.05
        world.measure(names=["grip", "other", "turn"], position=[world.measured[2], 9.0, world.measured[0]])
        world.measure(names=["lift"], position=[world.measured[1]])
        world.measure(stamp_ns=world.now_ns - NS // 50, position=list(before))
    assert state(world)[0] == State.EXECUTING
    assert np.array_equal(world.executor.joint_states.position, world.measured)


def test_unstamped_joint_states_count_from_their_arrival():
    world = World()
    world.joints = False
    world.activate()
    for _ in range(50):
        world.measure(stamp_ns=0)
        world.tick()
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)


def test_following_error():
    world = moving(mode="latest")
    world.stuck = True
    target = np.tile(world.measured + [0.7, 0, 0], (20, 1))
    world.send(target)
    world.tick(80)
    assert state(world) == (State.STOPPED, Cause.FOLLOWING_ERROR)
    assert "joint turn: commanded" in world.executor.state[2] and "limit 0.6 apart" in world.executor.state[2]
    rest(world)
    world.tick(100)
    assert state(world) == (State.STOPPED, Cause.FOLLOWING_ERROR)
    world.measured = world.executor.limiter.position - [0.4, 0, 0]  # within the limit, not below half of it
    world.tick(100)
    assert state(world) == (State.STOPPED, Cause.FOLLOWING_ERROR)
    world.stuck, world.measured = False, world.executor.limiter.position
    world.tick(40)
    assert state(world) == (State.STOPPED, Cause.FOLLOWING_ERROR)
    world.tick(20)
    resumes(world)


def test_a_gripper_around_an_object_is_no_following_error():
    world = World().activate()
    for _ in range(30):
        world.send(np.tile([0.1, 0.25, 0.0], (20, 1)))
        world.tick(10)
        world.measured[2] = 0.9
    assert state(world) == (State.EXECUTING, Cause.NONE)


def test_policy_gone_and_back():
    world = moving()
    late = world.chunk()
    world.tick()
    world.executor.policy_alive(False, world.now_ns)
    world.tick()
    assert state(world) == (State.STOPPED, Cause.POLICY_GONE)
    assert world.executor.add_chunk(late, world.now_ns).reason == Reason.BEFORE_STOP
    rest(world)
    world.session, world.sequence = 2, 0
    resumes(world)  # the chunk of a new session is a sign of life
    world.executor.policy_alive(False, world.now_ns)
    world.executor.policy_alive(True, world.now_ns)
    world.tick()
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    resumes(world)


def test_overrun():
    world = moving()
    at = world.measured.copy()
    world.measured = at - 0.02  # lags behind
    command = world.tick(pause=2.0)
    assert state(world) == (State.STOPPED, Cause.OVERRUN)
    assert "stalled for 2.000 s, limit 0.1 s" in world.executor.state[2]
    assert np.array_equal(command.position, at)  # it has stood there: no jump, not even a braking distance
    assert world.executor.at_rest
    world.tick(49)
    assert state(world)[1] == Cause.OVERRUN
    world.tick(2)
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    resumes(world)


def test_small_delays_are_counted_and_borne():
    world = moving()
    for _ in range(10):
        world.steady_ns += world.period_ns
        world.now_ns += world.period_ns
        world.tick()
        world.executor.tick(world.now_ns + 1, world.steady_ns + 1, lateness=0.02)
        world.now_ns += 1
        world.steady_ns += 1
    assert state(world) == (State.EXECUTING, Cause.NONE)
    status = world.executor.status(world.now_ns)
    assert status.overruns == 10 and status.lateness == 0.02


@pytest.mark.parametrize("leap", [3600.0, 0.6, -0.02, -900.0])
def test_clock_jump(leap):
    world = moving()
    world.tick(leap=leap)
    assert state(world) == (State.STOPPED, Cause.CLOCK_JUMP)
    assert f"{leap + 0.01:+.3f} s in 0.010 s" in world.executor.state[2]
    rest(world)
    world.tick(70)
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)
    resumes(world)


def test_time_set_back_while_inactive():
    world = World()
    world.now_ns -= 500 * NS
    with pytest.raises(InputError, match="joints turn, lift, grip: 500.000 s ahead"):
        world.activate()
    world.measure()
    world.activate()
    assert np.array_equal(world.tick().position, HOME)


def test_a_rival_is_left_alone_and_the_way_back_starts_at_the_measured_position():
    world = moving()
    world.executor.rivals(["/teleop on /arm"], world.now_ns)
    world.tick()
    assert state(world) == (State.STOPPED, Cause.RIVAL)
    assert "/teleop on /arm" in world.executor.state[2]
    while world.tick() is not None:
        pass
    assert world.executor.at_rest
    world.measured = HOME + [-0.5, 0, 0]  # the other has moved the robot
    world.tick(20)
    world.executor.rivals([], world.now_ns)
    assert np.array_equal(world.tick().position, world.measured)
    world.tick(60)  # far from its last command: the following error settles too
    resumes(world)


def outside_and_back(world: World, cause: Cause) -> None:
    """Stopped for `cause`, whose way back is due, at a place where nothing could be activated."""
    world.stuck = True
    world.tick(100)
    assert state(world) == (State.STOPPED, cause)
    assert "turn: measured 3 rad, expected -0.99 to" in world.executor.state[2]
    world.stuck, world.measured = False, HOME.copy()
    world.measure(stamp_ns=world.now_ns + 1)
    world.executor.rivals([], world.now_ns)
    world.tick(100)
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK)


@pytest.mark.parametrize("way", ["rival", "overrun", "clock", "joints", "policy", "e_stop", "e_stop_at_once"])
def test_no_way_back_begins_where_nothing_could_be_activated(way):
    world = moving(following_limit=0.0)  # the following error would see it as well
    executor, outside, cause = world.executor, HOME + [2.9, 0, 0], Cause.FOLLOWING_ERROR
    if way == "rival":
        cause = Cause.RIVAL
        executor.rivals(["other"], world.now_ns)
        while world.tick() is not None:
            pass
        world.measured = outside
        world.tick()
        executor.rivals([], world.now_ns)
    elif way == "overrun":
        world.tick(pause=1.0)
    elif way == "clock":
        world.tick(leap=2.0)
    elif way == "joints":
        world.joints = False
        world.tick(30)
        world.joints = True
    elif way == "policy":
        executor.policy_alive(False, world.now_ns)
        world.measured, world.stuck = outside, True
        world.tick()
        executor.policy_alive(True, world.now_ns)
    else:
        executor.e_stop("button")
        world.tick(30)
        world.measured = outside
        world.stuck = True
        if way == "e_stop":
            world.tick(30)
        world.measure()
        executor.reset_e_stop(world.now_ns)
    world.measured = outside
    world.measure()
    outside_and_back(world, cause)


def test_an_activation_in_motion_goes_on_from_the_last_command():
    world = moving()
    executor, last = world.executor, world.executor.limiter.position.copy()
    speed = executor.limiter.velocity[0]
    world.measured = last - [0.2, 0, 0]  # an old measurement, or one of a robot that lags
    world.measure()
    executor.deactivate()
    world.activate()
    world.joints = False
    step = (world.tick(pause=0.05).position - last)[0] / 0.06
    assert speed - 10.0 * 0.035 - 1e-9 <= step < speed and state(world) == (State.HOLDING, Cause.NO_CHUNK)
    rest(world)


@pytest.mark.parametrize("clock", [0.0, 100.0])
def test_where_an_activation_at_rest_begins(clock):
    world = World(clock=clock).activate()
    executor, last = world.executor, world.tick(5).position.copy()
    aside, far = last - [0.1, 0, 0.2], last - [0.7, 0, 0]

    def begin(measured: np.ndarray, pause: float, age: float = 0.0) -> np.ndarray:
        """(J,) the first command after a silence of `pause` s, where this was measured `age` s before it."""
        executor.deactivate()
        world.stuck, world.joints, world.measured = True, False, measured
        world.now_ns += round(pause * NS)
        world.steady_ns += round(pause * NS)
        world.measure(stamp_ns=world.now_ns - round(age * NS))
        world.activate()
        if clock:
            return executor.tick(*world.periods.start(world.now_ns)).position
        return world.tick().position

    # measured before the last command: nobody knows where that has led
    assert np.array_equal(begin(aside, 0.05, age=0.06), last)
    assert np.array_equal(begin(aside, 0.2, age=0.22), last)
    executor.deactivate()
    world.measure(stamp_ns=world.now_ns + NS // 100)  # no later, for all that its clock says
    assert np.array_equal(begin(aside, 0.05, age=0.06), last)
    # measured since. In a moment only a hand, or a simulator that puts the robot elsewhere, takes it far from there
    assert np.array_equal(begin(aside, 0.05), aside if clock else last)
    assert np.array_equal(begin(far, 0.05), far)
    assert np.array_equal(begin(aside, 0.2), aside)


def test_a_clock_that_was_set_back_makes_no_measurement_younger():
    world = World().activate()
    executor = world.executor
    world.measured, world.stuck = HOME - [0.1, 0, 0], True
    last = world.tick(5).position
    executor.deactivate()
    world.now_ns -= NS // 20
    world.steady_ns += NS // 5
    world.activate()
    world.joints = False
    assert np.array_equal(world.tick().position, last) and np.array_equal(last, HOME)
    executor.deactivate()
    world.now_ns -= NS // 5
    world.steady_ns += NS // 5
    world.measure()
    world.activate()
    assert np.array_equal(world.tick().position, world.measured)


@pytest.mark.parametrize("missed", [1, 2, 4, 9])
def test_missed_periods_change_neither_speed_nor_place(missed):
    world = moving()
    places = {}
    for k in range(10):
        command = world.tick(pause=missed * 0.01 if k in (3, 4, 7) else 0.0)
        places[command.stamp_ns] = command.position[0]
    assert state(world) == (State.EXECUTING, Cause.NONE)
    speeds = np.diff(list(places.values())) / np.diff(list(places)) * NS
    assert speeds == pytest.approx(0.5)


def test_a_clock_set_by_less_than_a_period_moves_no_stamp_of_a_motion():
    world = moving()
    before = world.tick()
    for leap in (-0.004, 0.003, -0.008, 0.009, 0.003):
        command = world.tick(leap=leap)
        assert command.stamp_ns - before.stamp_ns == world.period_ns
        assert state(world) == (State.EXECUTING, Cause.NONE)
        before = command
    command = world.tick(leap=0.008)  # together more than a period
    assert state(world) == (State.STOPPED, Cause.CLOCK_JUMP)
    assert command.stamp_ns - before.stamp_ns == world.period_ns
    rest(world)
    assert world.tick().stamp_ns == world.now_ns
    before = world.tick(60)
    world.send(np.tile(world.measured + [0.05, 0, 0], (20, 1)))
    command = world.tick(leap=-0.009)  # a robot at rest takes the new time, and waits for it to pass
    assert before.stamp_ns < command.stamp_ns == world.now_ns
    assert np.array_equal(command.position, before.position)
    resumes(world)


def test_simulated_time_is_the_stamp_whatever_it_does():
    world = moving()
    world.executor = Executor(world.executor.limits, 100.0, simulated=True)
    world.executor.set_instruction("go")
    world.measure()
    world.activate()
    for leap in (0.0, -0.004, 0.003, 0.9, -3.0, -1.0):
        assert world.tick(leap=leap).stamp_ns == world.now_ns
    world.executor.deactivate()
    world.steady_ns = 0
    world.measure()
    world.activate()
    assert world.tick().stamp_ns == world.now_ns


def test_what_is_no_number_is_never_published():
    world = moving()
    last = world.executor.limiter.position.copy()
    world.executor.limiter.position[1] = np.nan
    assert np.array_equal(world.tick().position, last)
    assert state(world)[0] == State.E_STOPPED and "joint lift: the next command is nan" in world.executor.state[2]
    world.tick(60)
    world.executor.reset_e_stop(world.now_ns)
    resumes(world)


def test_the_e_stop_is_latched_in_every_state():
    world = World()
    world.executor.e_stop("button")
    assert world.executor.state == (State.E_STOPPED, Cause.NONE, "button")
    with pytest.raises(InputError, match="e-stop is latched"):
        world.activate()
    world.executor.reset_e_stop(world.now_ns)
    assert state(world) == (State.INACTIVE, Cause.NONE)

    world = moving()
    world.executor.e_stop("button")
    world.executor.e_stop("another")
    assert world.executor.state == (State.E_STOPPED, Cause.NONE, "button")
    rest(world)
    world.executor.policy_alive(False, world.now_ns)
    world.executor.policy_alive(True, world.now_ns)
    world.executor.set_instruction("")
    world.executor.set_instruction("go")
    assert world.send().reason == Reason.E_STOPPED
    world.executor.deactivate()
    assert state(world)[0] == State.E_STOPPED
    world.executor.reset_e_stop(world.now_ns)
    world.measure()
    world.activate()
    resumes(world)


def test_the_gravest_cause_is_shown_and_each_needs_its_own_way_back():
    world = moving()
    world.joints = False
    world.tick(30)
    world.tick(pause=1.0)
    assert state(world)[1] == Cause.OVERRUN
    world.tick(60)
    assert state(world)[1] == Cause.STALE_JOINT_STATES
    world.joints = True
    world.tick()
    resumes(world)


def test_activation_names_what_is_in_the_way():
    world = World()
    world.executor.joint_states.clear()
    with pytest.raises(InputError, match="joints turn, lift, grip: never seen"):
        world.activate()
    world.measure(position=[0.0, 0.75, 0.5])
    with pytest.raises(InputError, match=r"joint lift: measured 0.75 m, expected 0 to 0.5"):
        world.activate()
    world.measure(position=[0.0, 0.52, 0.5])  # a little outside: accepted, moves inwards only
    world.activate()
    world.measured[1] = 0.52
    world.send(np.tile([0.0, 0.55, 0.5], (10, 1)))
    assert world.tick(20).position[1] == 0.52


def test_status_counts_and_names():
    world = moving()
    world.send(np.tile(world.measured + [0.5, 0, 0], (10, 1)), age=0.2)
    world.tick(5)
    status = world.executor.status(world.now_ns)
    assert "turn" in status.limited and "grip" not in status.limited
    assert status.seen.sequence == 2 and status.seen.latency == pytest.approx(0.2)
    assert status.chunk_age == pytest.approx(0.25)
    assert (status.live_chunks, status.accepted_chunks, status.ticks) == (2, 2, 35)
    assert world.executor.status(world.now_ns) is not status
    assert world.executor.status(world.now_ns).limited == status.limited  # asking changes nothing
    world.executor.begin_interval()
    assert world.executor.status(world.now_ns).limited == ()


@pytest.mark.parametrize("mode", ["ensemble", "latest", "rtc"])
@pytest.mark.parametrize("jerk", [np.inf, 400.0])
def test_a_joint_that_no_part_speaks_of_keeps_its_last_command(mode, jerk):
    world = World(mode=mode, jerk=jerk).activate()
    world.send(np.tile(AWAY, (4, 1)))
    world.tick(100)
    at = world.executor.limiter.position.copy()
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK) and at == pytest.approx(AWAY)
    for k in range(20):
        assert isinstance(world.send(np.tile([[0.5 + 0.01 * k]], (6, 1)), names=("turn",)), ActionChunk)
        for _ in range(10):
            command = world.tick().position
            world.measured = command - [0.0, 0.02, 0.1]  # the lifting joint sags, something opens the gripper
            assert np.array_equal(command[1:], at[1:])
    assert command[0] == pytest.approx(0.69, abs=0.1) and state(world) == (State.EXECUTING, Cause.NONE)
    world.send(np.tile([[0.7, 0.4]], (9, 1)), names=("grip", "lift"))
    world.tick(80)
    assert world.executor.limiter.position[1:] == pytest.approx([0.4, 0.7])


@pytest.mark.parametrize("mode", ["latest", "rtc"])
def test_a_joint_that_is_no_longer_spoken_of_brakes_and_stays(mode):
    world = moving(mode=mode)
    speed = world.executor.limiter.velocity[0]
    begin = world.executor.limiter.position[0]
    world.send(np.tile([[0.3]], (20, 1)), names=("lift",))
    path = [world.tick().position[0] for _ in range(60)]
    assert speed > 0 and np.diff(path).min() >= 0 and len(set(path[20:])) == 1
    assert path[-1] - begin <= speed**2 / (2 * world.executor.limits.acceleration[0]) + speed * 0.01


def test_a_new_activation_and_a_leap_of_time_forget_whose_chunks_came_before():
    def restarted(world: World) -> None:
        world.executor.deactivate()
        world.activate()

    def leapt(world: World) -> None:
        world.tick(leap=-20.0)
        world.tick(60)

    for begin_anew in (restarted, leapt):
        world = moving()
        begin_anew(world)
        status = world.executor.status(world.now_ns)
        assert (status.seen, status.live_chunks) == (None, 0)
        world.session, world.sequence = 2, 0  # no lease to wait for
        resumes(world)


def test_a_robot_that_does_not_follow_stops_before_it_is_a_jump():
    world = World().activate()
    world.stuck = True
    world.send(HOME + np.arange(20)[:, None] * 0.1 * [0.3, 0.06, 0.0])
    seconds, told = 0.0, None
    while state(world)[0] != State.STOPPED:
        world.tick()
        seconds += world.period_ns / NS
        told = told or (seconds if world.executor.hindrance else None)
    assert told <= 0.5 and seconds <= 0.9 and state(world) == (State.STOPPED, Cause.FOLLOWING_ERROR)
    message = world.executor.state[2]
    assert message.startswith("the controller does not follow: joint turn commanded 0.") and "measured 0.1" in message
    rest(world)
    command, limits = world.tick(), world.executor.limits
    away = np.abs(command.position - HOME)
    assert 0.05 < away[0] < 0.3
    assert (away <= limits.velocity * command.reach_in + 1e-12).all()  # a controller that listens again takes its time
    assert command.reach_in > world.period_ns / NS
    world.tick(200)
    assert state(world) == (State.STOPPED, Cause.FOLLOWING_ERROR)  # time alone changes nothing
    world.stuck = False  # it listens again
    world.tick(60)
    assert state(world) == (State.HOLDING, Cause.NO_CHUNK) and not world.executor.hindrance
    assert world.tick().reach_in == world.period_ns / NS
    resumes(world)


def test_the_way_on_which_it_brakes_is_part_of_each_command():
    world = moving(command_horizon=0.02)
    first = world.executor.limiter.velocity.copy()
    assert first.any() and len(world.tick().braking) == 1  # the horizon, less the period of the command itself
    world = moving()
    told = world.tick().braking
    world.executor.e_stop("button")
    assert len(told) > 3 and np.allclose([world.tick().position for _ in told], told, atol=1e-12)


def test_a_following_error_that_is_off_is_told_all_the_same():
    world = World(following_limit=0.0).activate()
    world.stuck = True
    world.send(HOME + np.arange(20)[:, None] * 0.1 * [0.3, 0.06, 0.0])
    world.tick(60)
    assert state(world)[0] in (State.APPROACHING, State.EXECUTING)
    assert world.executor.hindrance.startswith("the controller does not follow: joint ")
