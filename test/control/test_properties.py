"""Whatever happens in whatever order: commands are finite, inside every limit, and continuous."""

import numpy as np
import pytest
from control.fakes import NS, World
from control.robots import check_path
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.control.admission import AdmissionRules
from vla_ros.control.supervisor import Cause, State

# The limiter must not lean on admission: here nearly every finite chunk is let through.
CARELESS = AdmissionRules(
    jump_limit=1e9, position_excess=1e305, outlier_speed=1e305, max_chunk_age=60.0, session_lease=0.0
)

# How often each event comes up in ten of them: mostly a robot that runs, with everything else in between.
EVENTS = ["tick"] * 12 + ["chunk"] * 10 + ["wild"] * 6 + [
    "poison", "duplicate", "stall", "leap", "say", "joints", "joints", "alive", "rival", "e_stop", "restart", "push",
]  # fmt: skip
events = st.tuples(st.sampled_from(EVENTS), st.integers(0, 2**20))


class Run:
    """Applies events and cuts the commands where the robot has stood still: each piece begins at rest.

    A piece is where it starts and its commands: steady time, stamp, position, whether jerk was bounded.
    """

    pushed = [-0.9, 0.02, 0.0], [0.9, 0.48, 1.0]  # where a push may leave the robot, rad and m

    def __init__(self, **options: object) -> None:
        self.world = self.make(**options).activate()
        self.silent, self.restarted = False, True
        self.pieces: list[tuple[np.ndarray, list[tuple[int, int, np.ndarray, bool]]]] = []
        self.followed = 0  # ticks

    def make(self, **options: object) -> World:
        return World(**options)

    def apply(self, event: str, seed: int) -> None:
        world, executor, rng = self.world, self.world.executor, np.random.default_rng(seed)
        if event == "tick":
            for _ in range(1 + seed % 30):
                self._take(world.tick())
        elif event in ("chunk", "wild", "poison", "duplicate"):
            self._chunk(event, rng)
        elif event == "stall":
            period = world.period_ns / NS
            pause = rng.choice([period, 2 * period, 3 * period, 0.09 - period, 0.5, 3.0])
            command = world.tick(pause=pause)
            if pause > executor.settings.overrun_limit and command is not None and not self.restarted:
                assert command.position == pytest.approx(self._after_stall(pause), rel=1e-12)
                self.restarted = True
            self._take(command)
        elif event == "leap":
            part = rng.choice([-0.9, -0.1, 0.4, 0.9, 1.1, -1.1]) * world.period_ns / NS
            self._take(world.tick(leap=rng.choice([-1000.0, -0.3, part, part, part, 0.2, 0.6, 1000.0])))
        elif event == "say":
            world.instruction = str(rng.choice(["go", "another", ""]))
            executor.set_instruction(world.instruction)
        elif event == "joints":
            world.joints = bool(rng.random() < 0.7)
        elif event == "alive":
            executor.policy_alive(bool(seed % 2), world.now_ns)
        elif event == "rival":
            executor.rivals(["other"], world.now_ns)
            for _ in range(seed % 60):
                self._take(world.tick())
            executor.rivals([], world.now_ns)
            if self.silent and not executor.supervisor.tripped(Cause.RIVAL):
                self.silent, self.restarted = False, True
        elif event == "e_stop":
            executor.e_stop("test")
            for _ in range(seed % 60):
                self._take(world.tick())
            executor.reset_e_stop(world.now_ns)
        elif event == "push":
            world.measured = rng.uniform(*self.pushed)
        elif event == "restart":
            executor.deactivate()
            world.measure(stamp_ns=0)
            world.activate()
            self.restarted = bool(self.silent or executor.at_rest)  # else it goes on from its last command
            self.silent = False

    def _after_stall(self, pause: float) -> np.ndarray:
        """(J,) the first command after a stall of `pause` s."""
        return self.pieces[-1][1][-1][2]

    def _chunk(self, kind: str, rng: np.random.Generator) -> None:
        """A plan from where the robot is; or one that nothing could follow; or nonsense."""
        world = self.world
        horizon = int(rng.integers(1, 30))
        step_dt = float(rng.choice([0.005, 0.02, 0.1, 0.5]))
        if kind == "wild":
            rows = rng.uniform(-1.0, 1.0, (horizon, 3)) * rng.choice([1.0, 1.0, 1e3, 1e300])
        else:
            steps = rng.normal(size=(horizon, 3)) * [1.5, 0.4, 4.0] * step_dt
            rows = world.executor.limiter.position + np.cumsum(steps, axis=0)
        age = float(rng.choice([0.0, 0.0, 0.05, 0.2, 1.0]))
        if kind == "duplicate":
            world.sequence = max(world.sequence - int(rng.integers(1, 4)), 0)
        elif kind == "poison":
            rows[rng.integers(horizon), rng.integers(3)] = rng.choice([np.nan, np.inf, -np.inf])
        joints = [[0, 1, 2], [0, 1, 2], [0, 1, 2], [2, 0, 1], [0], [2, 1]][rng.integers(6)]
        world.send(rows[:, joints], step_dt=step_dt, age=age, names=tuple(world.names[joint] for joint in joints))

    def _take(self, command: object) -> None:
        if command is None:  # because of a rival
            self.silent = True
            return
        assert not self.silent
        self.followed += self.world.executor.state[0] in (State.APPROACHING, State.EXECUTING)
        if self.restarted or command.stamp_ns <= self.pieces[-1][1][-1][1]:  # stamps are set back at rest only
            if not self.restarted:
                assert np.array_equal(command.position, self.pieces[-1][1][-1][2])
            self.pieces.append((command.position, []))
            self.restarted = False
        gentle = not (self.world.executor.supervisor.stopped or self.world.executor.limiter.stopping)
        self.pieces[-1][1].append((self.world.steady_ns, command.stamp_ns, command.position, gentle))

    def check(self) -> None:
        limits, dt = self.world.executor.limits, self.world.executor.limiter.dt
        for start, commands in self.pieces:
            steady, stamps, path, gentle = map(np.array, zip(*commands, strict=True))
            check_path(limits, dt, start, path, steady, gentle)
            check_path(limits, dt, start, path, stamps, np.zeros_like(gentle))


def test_no_order_of_events_breaks_a_limit():
    followed = []  # ticks that followed a chunk: an executor that never moves would have the property too

    @settings(max_examples=100)
    @given(
        script=st.lists(events, min_size=10, max_size=40),
        rate=st.sampled_from([25.0, 50.0, 100.0, 333.0]),
        jerk=st.sampled_from([np.inf, np.inf, 400.0]),
        mode=st.sampled_from(["ensemble", "latest", "rtc"]),
        m=st.sampled_from([0.01, -3.0]),
        interpolation=st.sampled_from(["linear", "cubic"]),
        careless=st.booleans(),
    )
    def scripts(script, rate, jerk, mode, m, interpolation, careless):
        rules = {"admission": CARELESS, "following_limit": 0.0} if careless else {}
        run = Run(rate=rate, jerk=jerk, mode=mode, ensemble_m=m, interpolation=interpolation, **rules)
        for event, seed in script:
            run.apply(event, seed)
        run.apply("tick", 29)
        run.check()
        followed.append(run.followed)

    scripts()
    assert np.mean(followed) > 10


def test_no_clock_breaks_a_limit():
    """Simulated time in steps that are no control periods."""
    followed = []
    kinds = st.sampled_from(["tick"] * 3 + ["chunk"] * 3 + ["wild"] * 2 + ["poison", "say", "e_stop"])

    @settings(max_examples=15)
    @given(
        script=st.lists(st.tuples(kinds, st.integers(0, 2**20)), min_size=10, max_size=30),
        rate=st.sampled_from([50.0, 100.0, 250.0]),
        clock=st.sampled_from([240.0, 1000.0, 60.0, 80.0, 72.0]),
        jerk=st.sampled_from([np.inf, 400.0, 60.0]),
    )
    def scripts(script, rate, clock, jerk):
        run = Run(rate=rate, clock=clock, jerk=jerk, admission=CARELESS, following_limit=0.0)
        for event, seed in script:
            run.apply(event, seed)
        run.apply("tick", 29)
        run.check()
        stamps = [np.array([stamp for _, stamp, *_ in piece]) for _, piece in run.pieces]
        assert all((np.diff(some) % run.world.period_ns == 0).all() for some in stamps)
        followed.append(run.followed)

    scripts()
    assert np.mean(followed) > 10


@settings(max_examples=25)
@given(
    mode=st.sampled_from(["ensemble", "latest", "rtc"]),
    delays=st.lists(st.floats(0.0, 0.5), min_size=8, max_size=8),
    drops=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_late_slow_and_irregular_chunks_of_one_smooth_plan_give_that_plan(mode, delays, drops):
    """The policies' chunks agree about the future, so no delay, loss or blending may be seen in the commands."""

    def plan(t_ns: int) -> np.ndarray:
        t = (t_ns - 1000 * NS) / NS
        return np.array([0.1 + 0.4 * np.sin(0.8 * t), 0.25 + 0.05 * t / 8, 0.5])

    world = World(mode=mode).activate()
    world.send([plan(world.now_ns + k * NS // 20) for k in range(60)], step_dt=0.05)
    due = [
        (round((0.25 * i + delay) / 0.01), 0.25 * i, drop)
        for i, (delay, drop) in enumerate(zip(delays, drops, strict=True))
    ]
    start = world.now_ns
    for k in range(200):
        for tick, observed, drop in due:
            if tick == k and not drop:
                stamp = start + round(observed * NS)
                rows = [plan(stamp + i * NS // 20) for i in range(60)]
                world.send(rows, step_dt=0.05, stamp_ns=stamp)
        command = world.tick()
        if k > 40:  # it has caught up
            assert command.position == pytest.approx(
                plan(world.now_ns), abs=1e-3
            )  # linear interpolation between the rows
