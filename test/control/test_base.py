"""A robot with an arm and a base: what holds of positions holds of velocities, and to hold is to brake to zero."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from control.fakes import NS, World
from control.robots import driving
from control.test_properties import CARELESS, Run, events
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.control.admission import Reason, Refusal
from vla_ros.control.limits import Limits
from vla_ros.control.supervisor import Cause, State
from vla_ros.core.errors import InputError
from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec

HOME = np.array([0.1, 0.0, 0.0])
ROBOT = driving()
FULL = [0.0, 0.5, -1.5]  # of one row


def world(**options: object) -> World:
    jerk = options.pop("jerk", np.inf)
    limits = Limits.merge(replace(driving(jerk), control_rate=options.get("rate", 100.0)))
    return World(limits=limits, home=HOME.copy(), **options)


class DrivingRun(Run):
    """Also sees to it that the base brakes whenever nothing is followed, and stands when commands cease."""

    pushed = [-0.9, -0.3, -1.0], [0.9, 0.5, 1.0]

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.since: tuple[int, np.ndarray] | None = None  # when following ended, and (2,) the velocities then
        self.before: tuple[int, np.ndarray] | None = None
        self.braked = 0  # times that it came to a stand

    def make(self, **options: object) -> World:
        return world(**options)

    def _after_stall(self, pause: float) -> np.ndarray:
        last = super()._after_stall(pause)
        passed = pause + self.world.period_ns / NS
        slower = np.sign(last) * np.maximum(np.abs(last) - [0.0, 1.0 * passed, 6.0 * passed], 0.0)
        return np.array([last[0], *slower[1:]])

    def _take(self, command: object) -> None:
        if command is None:
            assert self.before is None or not self.before[1].any()
            self.before = self.since = None
        else:
            self._see(command.position[1:])
        super()._take(command)

    def _see(self, now: np.ndarray) -> None:
        executor, at = self.world.executor, self.world.steady_ns
        if executor.state[0] in (State.APPROACHING, State.EXECUTING):
            self.since = None
        elif self.restarted or self.before is None:
            self.since = at, now  # begins with what was measured
        else:
            self.since = self.since or self.before
            passed = (at - self.since[0]) / NS - 1.0 / 50  # a period of the slowest
            most = np.maximum(np.abs(self.since[1]) - np.array([1.0, 6.0]) * passed, 0.0)
            assert (np.abs(now) <= most + 1e-9).all() and not now[most == 0].any()
            assert (np.abs(now) <= np.abs(self.before[1])).all() and (now * self.before[1] >= 0).all()
            self.braked += bool(self.before[1].any() and not now.any())
        self.before = at, now


def test_no_order_of_events_breaks_a_limit_or_leaves_the_base_in_motion():
    followed, braked = [], []

    @settings(max_examples=30)
    @given(
        script=st.lists(events, min_size=10, max_size=40),
        rate=st.sampled_from([50.0, 100.0, 333.0]),
        jerk=st.sampled_from([np.inf, np.inf, 400.0]),
        mode=st.sampled_from(["ensemble", "latest", "rtc"]),
        interpolation=st.sampled_from(["linear", "cubic"]),
        careless=st.booleans(),
    )
    def scripts(script, rate, jerk, mode, interpolation, careless):
        rules = {"admission": CARELESS, "following_limit": 0.0} if careless else {}
        run = DrivingRun(rate=rate, jerk=jerk, mode=mode, interpolation=interpolation, **rules)
        for event, seed in script:
            run.apply(event, seed)
        run.apply("tick", 29)
        run.check()
        followed.append(run.followed)
        braked.append(run.braked)

    scripts()
    assert np.mean(followed) > 10 and np.mean(braked) > 0.2


def driving_world(**options: object) -> World:
    """At full speed for a while, arm and base."""
    made = world(**options).activate()
    assert not isinstance(made.send(np.tile(FULL, (20, 1)), step_dt=0.1), Refusal)
    assert made.tick(80).position[1:] == pytest.approx([0.5, -1.5])
    return made


STOPS = {
    "e-stop": lambda it: it.executor.e_stop("button"),
    "deactivation": lambda it: it.executor.begin_stop(),
    "no instruction": lambda it: it.executor.set_instruction(""),
    "policy gone": lambda it: it.executor.policy_alive(False, it.now_ns),
    "rival": lambda it: it.executor.rivals(["other"], it.now_ns),
    "end of the chunk": lambda it: it.tick(120),
    "odometry gone": lambda it: (setattr(it, "joints", False), it.tick(26)),
}


@pytest.mark.parametrize("jerk", [np.inf, 400.0])
@pytest.mark.parametrize("name", STOPS)
def test_every_stop_brakes_the_base_to_zero_and_there_it_stays(name, jerk):
    it = driving_world(jerk=jerk)
    STOPS[name](it)
    said = [command.position[1:] for command in (it.tick() for _ in range(60)) if command is not None]
    still = next(k for k, row in enumerate(said) if not row.any())
    assert still <= round(0.5 / 1.0 * 100) + 1  # v / a and a period, of the slower of the two
    assert not np.array(said[still:]).any() and it.executor.at_rest
    assert (np.abs(np.diff(said, axis=0)) <= np.array([1.0, 6.0]) * 0.01 + 1e-12).all()


def test_a_base_is_told_to_stand_before_silence_even_after_a_stall():
    it = driving_world()
    it.executor.rivals(["other"], it.now_ns)
    assert it.tick(pause=3.0).position[1:].tolist() == [0.0, 0.0]
    assert it.tick() is None


def test_a_chunk_without_the_base_brakes_it():
    it = driving_world(mode="latest")
    it.send(np.full((20, 1), 0.2), step_dt=0.1, names=("turn",))
    assert it.tick(60).position[1:].tolist() == [0.0, 0.0]
    assert it.executor.state[0] == State.EXECUTING and it.executor.limiter.position[0] > 0.1


def test_a_velocity_is_interpolated_and_limited_not_refused_for_a_step():
    it = world(mode="latest").activate()
    it.send(np.outer(np.arange(20), [0.0, 0.02, 0.0]), step_dt=0.1)
    assert it.tick(95).position[1] == pytest.approx(0.19)  # half way between two rows, at once
    it.send([[0.0, -0.3, 0.0]] * 10, step_dt=0.1)  # its crossfade ends after 0.2 s
    rows = np.array([it.tick().position[1] for _ in range(70)])
    assert np.diff(rows).min() >= -0.01 - 1e-12 and rows[-1] == -0.3


@pytest.mark.parametrize(("row", "said"), [
    ([0.0, 0.71, 0.0], "joint x.vel, row 0: 0.71 m/s, limits -0.3 to 0.5 with a tolerance of 0.2"),
    ([0.0, -0.51, 0.0], "joint x.vel, row 0: -0.51 m/s, limits -0.3 to 0.5 with a tolerance of 0.2"),
    ([0.0, 0.0, 1e300], "joint theta.vel, row 0: 1e+300 rad/s, limits -1.5 to 1.5 with a tolerance of 0.75"),
])  # fmt: skip
def test_a_velocity_far_outside_is_refused_a_little_is_cut_off(row, said):
    it = world().activate()
    refusal = it.send([row] * 10)
    assert (refusal.reason, refusal.text) == (Reason.VELOCITY, said)
    assert not isinstance(it.send([np.multiply(row, [0, 0.95, 1e-300])] * 10), Refusal)
    assert (it.tick(60).position <= [1.0, 0.5, 1.5]).all() and (it.tick().position >= [-1.0, -0.3, -1.5]).all()


def test_a_base_in_motion_at_the_activation_is_braked_from_there():
    it = world()
    it.measured = np.array([0.1, 0.2, 0.0])
    it.measure()
    it.activate()
    assert it.tick().position.tolist() == [0.1, 0.2, 0.0]
    assert it.tick(10).position[1] == pytest.approx(0.1) and it.tick(15).position[1] == 0.0


def test_after_a_silence_nobody_knows_of_the_base_stands():
    it = driving_world()
    it.executor.deactivate()
    it.now_ns, it.steady_ns = it.now_ns + 3 * NS, it.steady_ns + 3 * NS
    it.measure(stamp_ns=it.now_ns - NS // 5 - 3 * NS + 3 * NS, position=[0.0, np.nan, np.nan])
    it.joints = False
    it.executor.joint_states.stamps_ns[:] = it.now_ns  # fresh, and from before the last command as far as it knows
    it.activate()
    assert it.tick().position[1:].tolist() == [0.0, 0.0]


def test_a_base_that_does_not_drive_as_it_is_told_stops_the_robot():
    it = world()
    it.activate()
    it.stuck = True
    it.send(np.tile([0.1, 0.5, 0.0], (20, 1)), step_dt=0.1)
    it.tick(30)
    assert "x.vel" in it.executor.hindrance
    it = driving_world()
    it.stuck, it.measured = True, np.array([0.0, 0.15, -1.5])  # by more than it gains in 0.3 s
    it.tick(5)
    assert it.executor.state[:2] == (State.STOPPED, Cause.FOLLOWING_ERROR)


def test_a_base_beside_itself_changes_nothing_of_the_time_that_an_arm_is_given():
    it = driving_world()
    it.stuck, it.measured = True, np.array([it.measured[0], 1e30, 0.0])
    command = it.tick(5)
    assert it.executor.state[:2] == (State.STOPPED, Cause.FOLLOWING_ERROR)
    assert command.reach_in == pytest.approx(0.01, abs=0.02)
    it.measured = np.array([1e30, 0.0, 0.0])
    assert it.tick(5).reach_in == 3600.0


def test_reversals_are_those_of_the_way_and_not_of_a_velocity_that_trembles():
    it = world(following_limit=0.0, reversal_limit=2.0).activate()
    for k in range(200):
        it.send([[0.1, 0.3 + 0.02 * (-1) ** k, 0.0]] * 5, step_dt=0.1)
        it.tick(2)
    assert not it.executor.monitor.reversals[1] and it.executor.monitor.progress_age < 0.5
    for k in range(20):
        it.send([[0.1, 0.25 * (-1) ** k, 0.0]] * 5, step_dt=0.1)
        it.tick(30)
    assert it.executor.monitor.reversals[1] > 1.0


class Taken:
    """A driving world that a source leads; `said`: what it says for each of `names`."""

    def __init__(self, names: tuple[str, ...], said: list[float], **options: object) -> None:
        self.world, self.names, self.said = driving_world(**options), names, said
        self.say()
        self.world.executor.take_over("person", self.world.now_ns)

    def say(self) -> None:
        self.world.executor.takeover.heard(self.world.now_ns, list(self.names), self.said, self.world.now_ns)

    def run(self, count: int, silent: bool = False) -> np.ndarray:
        """(count, 3) of the commands."""
        path = []
        for k in range(count):
            if k % 3 == 0 and not silent:
                self.say()
            path.append(self.world.tick().position)
        return np.array(path)


def test_a_leader_arm_takes_over_the_arm_and_the_base_stands():
    led = Taken(("turn",), [0.2])
    last = led.run(300)[-1]
    assert last == pytest.approx([0.2, 0.0, 0.0]) and not last[1:].any()


@pytest.mark.parametrize("jerk", [np.inf, 400.0])
def test_a_person_drives_a_base_within_its_limits_beside_the_arm(jerk):
    led, start = Taken(("theta.vel", "turn", "x.vel"), [0.0, 0.2, 0.0], jerk=jerk), np.array(FULL)
    assert led.world.executor.state[0] == State.TAKEN_OVER
    path = [start[None], led.run(60)]  # the base brakes at once, however long the arm's way takes
    assert not path[-1][51:, 1:].any() and path[-1][50, 0] < 0.2
    for said in ([1.4, 0.2, -0.25], [-1.4, 0.2, 0.5], [0.0, 0.2, 0.6]):  # steps, and a little beyond the limit
        led.said = said
        path.append(led.run(180))
        assert path[-1][-1] == pytest.approx([0.2, min(said[2], 0.5), said[0]])
        assert led.world.executor.state[0] == State.TAKEN_OVER  # velocities do not jump
    path = np.concatenate(path)
    assert (np.abs(np.diff(path, axis=0))[:, 1:] <= np.array([1.0, 6.0]) * 0.01 + 1e-9).all()
    led.world.executor.give_back(led.world.now_ns)
    assert not led.run(60)[-1, 1:].any() and led.world.executor.state[0] == State.HOLDING


def test_a_base_brakes_when_its_driver_falls_silent_and_stays_until_it_is_taken_over_again():
    led = Taken(("x.vel",), [0.4])
    led.run(60)
    path = led.run(80, silent=True)
    assert led.world.executor.state[:2] == (State.HOLDING, Cause.TAKEOVER_PAUSED)
    assert path[20, 1] == pytest.approx(0.4) and not path[25 + 42 :, 1:].any()  # 0.25 s, and 0.4 m/s at 1 m/s²
    assert not led.run(60)[:, 1:].any()
    led.world.executor.take_over("person", led.world.now_ns)
    assert led.run(60)[-1, 1] == pytest.approx(0.4)


def test_an_arm_and_a_base_may_be_led_by_two_sources_of_which_either_silence_stops_both():
    arm, base = (("turn",), [0.2]), (("theta.vel", "x.vel"), [0.5, 0.3])
    led = Taken(*arm)
    led.names, led.said = base  # it begins later: what is followed then is asked for again
    led.run(1)
    led.names, led.said = arm
    led.say()
    led.world.executor.take_over("person", led.world.now_ns)
    for k in range(160):
        led.names, led.said = (arm, base)[k % 2 if k < 100 else 0]
        last = led.run(1)[-1]
        if k == 99:
            assert last[1:] == pytest.approx([0.3, 0.5]) and led.world.executor.state[0] == State.TAKEN_OVER
    assert led.world.executor.state[:2] == (State.HOLDING, Cause.TAKEOVER_PAUSED)
    assert "x.vel" in led.world.executor.state[2] and not last[1:].any()


@pytest.mark.parametrize(("value", "words"), [
    (2.0, "x.vel: measured 2 m/s, expected -0.3 to 0.5"), (np.nan, "x.vel: never seen")
])  # fmt: skip
def test_a_velocity_that_no_base_has_is_not_followed(value, words):
    with pytest.raises(InputError, match=words):
        Taken(("x.vel",), [value])


@pytest.mark.parametrize("name", ["libero", "metaworld_deltas"])
def test_differences_of_a_benchmark_are_commanded_as_they_were_given(name):
    robot = RobotSpec.load(name)
    columns, rate = np.flatnonzero(robot.velocities), robot.control_rate
    said = yaml.safe_load(config_file("executor_benchmark.yaml").read_text())["/**/executor_node"]["ros__parameters"]
    settings = {key: said[key] for key in ("mode", "crossfade", "reversal_limit")}
    home = np.where(robot.velocities, 0.0, 0.02)
    w = World(limits=Limits.merge(robot), rate=rate, home=home, **settings).activate()
    w.stuck = True  # as a hand against a table
    w.tick(round(0.5 * rate))
    steps, ahead = 60, 10
    rows = np.tile(home, (steps + 3, 1))
    rows[:, columns] = np.random.default_rng(0).choice([-1.5, -1.0, 0.0, 0.3, 1.0], (steps + 3, len(columns))) * 10.0
    held = [joint for joint in robot.joint_names if joint in ("x", "y", "z", "rx", "ry", "rz", "right_finger")]
    told = [i for i, joint in enumerate(robot.joint_names) if joint not in held]
    for step in range(steps):
        if step % ahead == 0:
            part = rows[step : step + ahead + 2][:, told]
            sent = w.send(part, 1.0 / rate, names=tuple(robot.joint_names[i] for i in told))
            assert not isinstance(sent, Refusal), sent
        np.testing.assert_allclose(w.tick().position, rows[step + 1], rtol=0, atol=1e-14)
    w.tick(3)  # the last chunk ends
    np.testing.assert_array_equal(w.tick().position[columns], 0.0)
