"""A source commands in place of the policy: smoothly, inside the limits, and only as long as it says something."""

import numpy as np
import pytest
from control.fakes import HOME, NS, World
from control.posed_robots import posed_world
from control.robots import check_path
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vla_ros.control.admission import Reason, Refusal
from vla_ros.control.supervisor import Cause, State
from vla_ros.core.chunk import ActionChunk
from vla_ros.core.errors import InputError

SOURCE = "leader"


class Led(World):
    """A world with a source.

    Attributes:
        place: (J,) where the source is; None: it is silent.
        path: every command.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.place: np.ndarray | None = self.measured.copy()
        self.names_said, self.every, self.ticks = self.names, 3, 0
        self.path: list[np.ndarray] = []

    def say(self) -> None:
        values = [self.place[self.names.index(name)] for name in self.names_said]
        self.executor.takeover.heard(self.now_ns, list(self.names_said), values, self.now_ns)

    def run(self, count: int) -> None:
        for _ in range(count):
            self.ticks += 1
            if self.place is not None and self.ticks % self.every == 0:
                self.say()
            self.path.append(self.tick().position)

    def take(self) -> None:
        self.say()
        self.executor.take_over(SOURCE, self.now_ns)

    @property
    def state(self) -> tuple[State, Cause]:
        return self.executor.state[:2]


def led(**options: object) -> Led:
    world = Led(**options).activate()
    world.run(50)
    return world


def test_it_goes_to_the_source_and_the_policy_goes_on_from_what_it_sees_afterwards():
    world = led()
    assert isinstance(world.send(), ActionChunk)
    world.run(5)
    seen_before = world.chunk(step_dt=1.0)
    world.place = HOME + [-0.6, 0.2, 0.4]
    world.take()
    assert world.state == (State.TAKEN_OVER, Cause.NONE) and world.executor.status(world.now_ns).taken_over_by == SOURCE
    refused = world.send()
    assert isinstance(refused, Refusal) and refused.reason == Reason.TAKEN_OVER and SOURCE in refused.text
    world.run(200)
    assert np.allclose(world.path[-1], world.place)
    world.executor.give_back(world.now_ns)
    assert world.executor.add_chunk(seen_before, world.now_ns).reason == Reason.BEFORE_STOP
    assert world.state == (State.HOLDING, Cause.NO_CHUNK)
    world.run(2)
    assert isinstance(world.send(), ActionChunk)
    world.run(2)
    assert world.state[0] in (State.APPROACHING, State.EXECUTING)
    check_path(world.executor.limits, 0.01, HOME, np.array(world.path))


def test_a_far_source_is_approached_at_half_speed_and_a_moving_one_is_followed_a_message_behind():
    world = led(rate=100.0)
    world.place = np.array([-0.9, 0.25, 0.5])  # 1 rad at 2 rad/s
    world.take()
    world.run(1)
    world.path.clear()
    world.run(149)
    speeds = np.abs(np.diff(np.array(world.path)[:, 0])) / 0.01
    assert 0.9 < speeds.max() < 1.01
    assert np.allclose(world.path[-1], world.place, atol=1e-3)
    for k in range(300):  # 0.3 rad/s, well within the limits
        world.place = np.array([-0.9 + 0.003 * k, 0.25, 0.5])
        world.run(1)
    lag = (world.place - world.path[-1])[0] / 0.3
    assert 0.0 < lag <= 0.07
    assert np.ptp(np.diff(np.array(world.path)[-100:, 0])) < 1e-4  # no steps of 30 ms


def test_a_motion_away_from_the_source_is_braked_at_once_however_long_the_way_back_takes():
    world = led(rate=100.0)
    world.send(HOME + np.arange(20)[:, None] * 0.05 * [0.5, 0.0, 0.0], step_dt=0.05)
    world.run(20)
    begin = world.path[-1]
    assert begin[0] - world.path[-2][0] > 0.0049  # 0.5 rad/s: it can stop within 12.5 mrad
    world.place = np.array([begin[0], 0.0, 0.5])  # the other joint needs 1.5 s
    world.take()
    world.run(200)
    assert max(command[0] for command in world.path) - begin[0] < 0.02
    assert np.allclose(world.path[-1], world.place)


def test_a_source_that_jumps_is_followed_no_more_until_it_takes_over_again():
    world = led(rate=100.0)
    world.take()
    world.run(50)
    for _ in range(30):  # 8 rad/s to and fro: faster than the robot, and a motion all the same
        world.place = world.place + [0.24 if world.place[0] < 0.4 else -0.7 / 3, 0.0, 0.0]
        world.run(3)
    assert world.state[0] == State.TAKEN_OVER
    world.place = np.array([*world.place[:2], 0.99])  # a discrete joint is where it is told to be
    world.run(3)
    assert world.state[0] == State.TAKEN_OVER
    here = world.place.copy()
    world.place = here - [1.0, 0.0, 0.0]
    world.run(60)
    assert world.state == (State.HOLDING, Cause.TAKEOVER_PAUSED)
    assert "joint turn jumped by -1 rad from one message to the next, limit 0.3333" in world.executor.state[2]
    assert abs(world.path[-1][0] - here[0]) < 0.3  # it braked
    world.take()
    world.path.clear()
    world.run(200)
    assert np.abs(np.diff(np.array(world.path)[:, 0])).max() < 0.0101  # as to any source that is elsewhere
    assert np.allclose(world.path[-1], world.place)


def test_a_source_that_was_started_again_with_fewer_joints_is_followed_after_an_activation():
    world = led()
    world.say()
    world.names_said = ("turn",)
    world.run(40)
    with pytest.raises(InputError, match="joints lift, grip: .* old"):
        world.take()
    world.executor.deactivate()
    world.measure()
    world.activate()
    world.run(50)
    world.take()
    assert world.state[0] == State.TAKEN_OVER


def test_joints_that_the_source_lacks_keep_their_command():
    world = led()
    world.executor.takeover.clear()
    world.names_said = ("lift",)
    world.place = np.array([0.9, 0.4, 0.9])
    world.take()
    world.run(200)
    assert np.allclose(world.path[-1], [HOME[0], 0.4, HOME[2]])


def test_sources_that_cannot_be_followed_are_named_and_change_nothing():
    world = led()
    executor = world.executor
    executor.takeover.clear()
    with pytest.raises(InputError, match="leader: nothing received yet"):
        executor.take_over(SOURCE, world.now_ns)
    for names, position, words in (
        (["turn", "wrist"], [0.0, 0.0], "'wrist' is not one of the robot's, expected some of"),
        (["turn"], [57.0], "joint turn: .*57.*rad and m"),
        (["turn"], [np.nan], "joint turn: never seen"),
    ):
        executor.takeover.clear()
        executor.takeover.heard(world.now_ns, names, position, world.now_ns)
        with pytest.raises(InputError, match=words):
            executor.take_over(SOURCE, world.now_ns)
    executor.takeover.heard(world.now_ns - NS, ["turn"], [0.0], world.now_ns)
    with pytest.raises(InputError, match="turn: 1.000 s old, limit 0.25 s"):
        executor.take_over(SOURCE, world.now_ns)
    assert not executor.takeover.by
    executor.give_back(world.now_ns)  # nothing was taken: chunks of before still count
    assert isinstance(world.send(age=0.05), ActionChunk)


def test_a_robot_whose_tool_is_commanded_cannot_be_led_by_joints():
    world = posed_world().activate()
    world.tick(50)
    with pytest.raises(InputError, match="tool is commanded; expected"):
        world.executor.take_over(SOURCE, world.now_ns)


def pause(world: Led, how: str) -> None:
    executor = world.executor
    if how == "silence":
        world.place = None
        world.run(40)
        world.place = HOME + [-0.6, 0.2, 0.4]
    elif how == "instruction":
        executor.set_instruction("")
        executor.set_instruction("go")
    elif how == "e_stop":
        executor.e_stop("test")
        executor.reset_e_stop(world.now_ns)
    elif how == "e_stop_held":
        executor.e_stop("test")
        world.run(50)
        assert world.state[0] == State.E_STOPPED
        with pytest.raises(InputError, match="E_STOPPED"):
            world.take()
        executor.reset_e_stop(world.now_ns)
    elif how == "joint_states":
        world.joints = False
        world.run(40)
        assert world.state == (State.STOPPED, Cause.STALE_JOINT_STATES)
        with pytest.raises(InputError, match="STOPPED, STALE_JOINT_STATES"):
            world.take()
        world.joints = True
    elif how == "clock":
        world.tick(leap=3.0)


@pytest.mark.parametrize("how", ["silence", "instruction", "e_stop", "e_stop_held", "joint_states", "clock"])
def test_after_a_stop_or_a_silence_nobody_moves_the_robot_until_it_is_taken_over_again(how):
    world = led()
    world.place = HOME + [-0.6, 0.2, 0.4]
    world.take()
    world.run(40)
    pause(world, how)
    world.run(100)
    assert world.state == (State.HOLDING, Cause.TAKEOVER_PAUSED), world.executor.state
    assert SOURCE in world.executor.state[2] and world.executor.takeover.paused
    assert isinstance(world.send(), Refusal)
    stood = world.path[-1]
    world.run(60)
    assert np.array_equal(world.path[-1], stood)
    world.take()
    world.run(200)
    assert world.state[0] == State.TAKEN_OVER and np.allclose(world.path[-1], world.place)


def test_it_ends_with_the_activation():
    world = led()
    world.take()
    world.run(5)
    world.executor.begin_stop()
    world.executor.deactivate()
    world.measure()
    world.activate()
    world.run(50)
    assert world.state == (State.HOLDING, Cause.NO_CHUNK)
    with pytest.raises(InputError, match="INACTIVE"):
        world.executor.deactivate()
        world.take()


EVENTS = ["run"] * 8 + ["move"] * 6 + ["take"] * 4 + ["chunk"] * 3 + ["give", "silent", "names", "say", "e_stop"]


def test_no_order_of_takeovers_breaks_a_limit():
    led_ticks = []

    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(
        script=st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 2**20)), min_size=10, max_size=40),
        rate=st.sampled_from([50.0, 100.0]),
        jerk=st.sampled_from([np.inf, 400.0]),
        blend=st.sampled_from([0.01, 1.0]),
    )
    def scripts(script, rate, jerk, blend):
        world = Led(rate=rate, jerk=jerk, takeover_blend=blend, takeover_timeout=0.1).activate()
        executor, followed, gentle = world.executor, 0, []
        for event, seed in script:
            rng = np.random.default_rng(seed)
            if event == "run":
                for _ in range(1 + seed % 40):
                    world.run(1)
                    followed += executor.state[0] == State.TAKEN_OVER
                    gentle.append(not (executor.supervisor.stopped or executor.limiter.stopping))
            elif event == "move":
                world.place, world.every = rng.uniform([-1.2, -0.1, -0.2], [1.2, 0.6, 1.2]), 1 + seed % 5
            elif event == "take":
                try:
                    executor.take_over(SOURCE, world.now_ns)
                except InputError:
                    pass
            elif event == "chunk":
                world.send(executor.limiter.position + np.cumsum(rng.normal(size=(10, 3)) * [0.1, 0.03, 0.2], axis=0))
            elif event == "give":
                executor.give_back(world.now_ns)
            elif event == "silent":
                world.place = None
            elif event == "names":
                world.names_said = [world.names, ("turn",), ("grip", "lift")][seed % 3]
            elif event == "say":
                executor.set_instruction(str(rng.choice(["go", ""])))
            elif event == "e_stop":
                executor.e_stop("test")
                executor.reset_e_stop(world.now_ns)
        if world.path:
            check_path(executor.limits, 1 / rate, HOME, np.array(world.path), gentle=np.array(gentle))
        led_ticks.append(followed)

    scripts()
    assert np.mean(led_ticks) > 10
