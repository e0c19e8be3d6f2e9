"""Whatever end-effector chunks arrive, with whatever else: commands keep every limit, and the tool about its own."""

from dataclasses import replace

import numpy as np
from command_check import Bounds, CommandCheck
from control.test_properties import CARELESS, Run, events
from control.tool_robots import HOME, SO101, so101, tool_targets
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.core.chunk import Space, Targets
from vla_ros.core.rotations import SIZES, from_matrix, to_matrix

LIMITS, ARM = so101()


class ToolRun(Run):
    """The SO-101 in the same events; most chunks are a tool's, and `joints` of them are not."""

    joints = 0.2
    pushed = LIMITS.lower, LIMITS.upper

    def _chunk(self, kind: str, rng: np.random.Generator) -> None:
        world, horizon, form = self.world, int(rng.integers(1, 30)), str(rng.choice(list(SIZES)))
        step_dt, space = float(rng.choice([0.005, 0.02, 0.1, 0.5])), Space(rng.integers(1, 3))
        place, rotation = ARM.pose(world.executor.limiter.position)
        wild = kind == "wild"
        steps = rng.normal(size=(horizon, 3)) * (0.5 if wild else 0.2) * step_dt
        turns = to_matrix(rng.normal(size=(horizon, 3)) * (3.0 if wild else 0.5) * step_dt, "vector")
        if space == Space.END_EFFECTOR_POSE:
            steps = place + np.cumsum(steps, axis=0)
            if wild:
                steps = rng.uniform(-1.0, 1.0, (horizon, 3)) * rng.choice([0.5, 0.5, 1.0, 1e300])
            for k in range(horizon):
                turns[k] = rotation = turns[k] @ rotation
        rows = np.concatenate([steps, from_matrix(turns, form)], axis=1)
        if kind == "duplicate":
            world.sequence = max(world.sequence - int(rng.integers(1, 4)), 0)
        elif kind == "poison":
            rows[rng.integers(horizon), rng.integers(rows.shape[1])] = rng.choice([np.nan, np.inf, 0.0])
        frame = str(rng.choice(["base", "tip"])) if space == Space.END_EFFECTOR_DELTA else "base"
        change = {"step_dt": step_dt, "age": float(rng.choice([0.0, 0.0, 0.05, 0.2]))}
        if rng.random() < self.joints:
            rows = world.executor.limiter.position + np.cumsum(rng.normal(size=(horizon, 6)) * step_dt, axis=0)
            world.send(rows, **change)
        elif np.isfinite(rows).all():
            world.send(targets=tool_targets(rows, space, frame, form, gripper=rng.choice([None, 0.5])), **change)
        else:
            world.send(targets=Targets(()), **change)  # a message that is no chunk


def test_no_order_of_events_with_tool_chunks_breaks_a_limit():
    followed, ways = [], []

    @settings(max_examples=12)
    @given(
        script=st.lists(events, min_size=10, max_size=30),
        rate=st.sampled_from([25.0, 100.0]),
        jerk=st.sampled_from([np.inf, np.inf, 800.0]),
        mode=st.sampled_from(["ensemble", "latest", "rtc"]),
        interpolation=st.sampled_from(["linear", "cubic"]),
        careless=st.booleans(),
    )
    def scripts(script, rate, jerk, mode, interpolation, careless):
        rules = {"admission": CARELESS, "following_limit": 0.0} if careless else {}
        limits = replace(LIMITS, jerk=np.full(6, jerk))
        run = ToolRun(rate=rate, arm=ARM, limits=limits, home=HOME, mode=mode, interpolation=interpolation, **rules)
        for event, seed in script:
            run.apply(event, seed)
        run.apply("tick", 29)
        run.check()
        followed.append(run.followed)
        ways.extend(np.array([command[2] for command in piece[1]]) for piece in run.pieces)

    scripts()
    assert np.mean(followed) > 10
    assert max(np.ptp(way, axis=0).max() for way in ways) > 0.3


def test_commands_of_tool_chunks_pass_the_check_that_knows_nothing_of_the_limiter():
    """Chunks that jump about, for ten seconds: the joints' limits hold, and the tool is no faster than it may be, also
    where the shoulder comes to its limit on the way, as it does here."""
    robot = {"control_rate": 100.0, "position_margin": SO101.position_margin, "joints": [vars(j) for j in SO101.joints]}
    check = CommandCheck(Bounds.of(robot))
    run = ToolRun(arm=ARM, limits=LIMITS, home=HOME, mode="latest", crossfade=0.0, admission=CARELESS)
    run.joints = 0.0
    rng, places = np.random.default_rng(5), []
    check.begin(HOME)
    for _ in range(40):
        run._chunk(str(rng.choice(["chunk", "wild"])), rng)
        for _ in range(25):
            command = run.world.tick()
            check.add(command.position, command.stamp_ns, run.world.steady_ns)
            places.append(ARM.pose(command.position)[0])
    check.end()
    assert check.commands == 1000 and check.moving > 500 and not check.violations, check.first
    speed = np.linalg.norm(np.diff(places, axis=0), axis=1) * 100
    assert 0.9 * ARM.tool.velocity < speed.max() < 1.02 * ARM.tool.velocity
