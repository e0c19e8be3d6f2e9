"""Chunks on one time axis, and the rule that blends them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.control.blending import Blender, ensemble_weights
from vla_ros.control.interpolation import hermite, slopes
from vla_ros.control.timeline import MAX_CHUNKS, Timeline
from vla_ros.core.chunk import ActionChunk, Part, Targets
from vla_ros.messages.stamps import NS

T0 = 1_700_000_000 * NS
NAMES = ("a", "b")
GLIDING, MIXED = np.zeros(2, dtype=bool), np.array([False, True])


def chunk(rows, at: float = 0.0, step_dt: float = 0.1, sequence: int = 0, instruction_id: int = 1) -> ActionChunk:
    rows = np.asarray(rows, dtype=np.float64)
    return timed(T0 + round(at * NS), step_dt, rows, sequence, instruction_id)


def timed(stamp_ns: int, step_dt: float, rows, sequence: int, instruction_id: int = 1, names=NAMES) -> ActionChunk:
    return ActionChunk(stamp_ns, step_dt, Targets((Part(names, rows),)), instruction_id, sequence, session=1)


def when(seconds: float) -> int:
    return T0 + round(seconds * NS)


def act_reference(chunks: np.ndarray, m: float) -> np.ndarray:
    """ACT's rule as published: at every tick a chunk (H, D) is predicted; the rows that earlier chunks have for this
    tick are averaged with exp(-m i), i = 0 the oldest. (T, H, D) -> (T, D)."""
    ticks, horizon, _ = chunks.shape
    result = []
    for t in range(ticks):
        rows = [chunks[c, t - c] for c in range(max(0, t - horizon + 1), t + 1)]
        weights = np.exp(-m * np.arange(len(rows)))
        result.append((np.array(rows) * (weights / weights.sum())[:, None]).sum(axis=0))
    return np.array(result)


@pytest.mark.parametrize("m", [0.01, 0.3, -0.2, 0.0])
@pytest.mark.parametrize("cubic", [False, True])
def test_one_chunk_a_tick_is_acts_rule(m, cubic):
    step_dt = 1 / 30
    predicted = np.random.default_rng(1).normal(size=(40, 8, 2))
    predicted[5, 2] = 0.0  # an exact zero is a prediction like any other
    timeline, blender = Timeline(NAMES, cubic), Blender("ensemble", GLIDING, m)
    blended = []
    for t, rows in enumerate(predicted):
        now = T0 + round(t * step_dt * NS)
        timeline.add(timed(now, step_dt, rows, t))
        timeline.prune(now)
        blended.append(blender.target(now, timeline.predictions(now))[0])
    # stamps are whole nanoseconds: that is how far an instant can be from a row
    assert np.array(blended) == pytest.approx(act_reference(predicted, m), abs=2e-7)


def test_one_chunk_a_tick_is_acts_rule_to_rounding():
    predicted = np.random.default_rng(2).normal(size=(30, 8, 2))
    timeline, blender = Timeline(NAMES), Blender("ensemble", GLIDING, 0.01)
    blended = []
    for t, rows in enumerate(predicted):
        timeline.add(chunk(rows, at=t * 0.02, step_dt=0.02, sequence=t))
        blended.append(blender.target(when(t * 0.02), timeline.predictions(when(t * 0.02)))[0])
    assert np.array(blended) == pytest.approx(act_reference(predicted, 0.01), abs=1e-14)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.floats(-1, 1))
def test_the_streaming_form_is_the_same_rule(values, m):
    weights = np.exp(-m * np.arange(len(values)))
    sums, average = np.cumsum(weights), values[0]
    for c, new in enumerate(values[1:], start=1):
        average = (average * sums[c - 1] + new * weights[c]) / sums[c]
    assert ensemble_weights(len(values), m) @ np.array(values) == pytest.approx(average, abs=1e-9)


def test_weights_do_not_overflow():
    for m in (-10.0, 10.0):
        weights = ensemble_weights(MAX_CHUNKS, m)
        assert np.isfinite(weights).all() and weights.sum() == pytest.approx(1.0)


def test_two_chunks_blend_where_they_overlap():
    timeline, blender = Timeline(NAMES), Blender("ensemble", GLIDING, 0.5)
    timeline.add(chunk([[0, 0], [1, 1], [2, 2]], at=0.0))
    timeline.add(chunk([[9, 9], [9, 9], [9, 9]], at=0.15))
    old, new = np.exp([0.0, -0.5]) / np.exp([0.0, -0.5]).sum()
    assert blender.target(when(0.1), timeline.predictions(when(0.1)))[0] == pytest.approx([1, 1])
    assert blender.target(when(0.15), timeline.predictions(when(0.15)))[0] == pytest.approx(1.5 * old + 9 * new)
    assert blender.target(when(0.2), timeline.predictions(when(0.2)))[0] == pytest.approx(2 * old + 9 * new)
    assert blender.target(when(0.21), timeline.predictions(when(0.29)))[0] == pytest.approx(
        2 * old + 9 * new
    )  # the last row holds
    assert blender.target(when(0.3), timeline.predictions(when(0.3)))[0] == pytest.approx([9, 9])


def test_a_chunk_says_nothing_outside_its_time():
    timeline = Timeline(NAMES, max_age=0.15)
    timeline.add(chunk([[0, 0], [1, 1], [2, 2]], at=1.0))
    assert timeline.predictions(when(0.99)) is None
    assert timeline.predictions(when(1.0)).position[0] == pytest.approx([0, 0])
    assert timeline.predictions(when(1.15)).position[0] == pytest.approx([1.5, 1.5])
    assert timeline.predictions(when(1.16)) is None  # too old, though its rows go on
    timeline.prune(when(1.16))
    assert len(timeline) == 0


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_the_last_row_holds_for_a_step(cubic, horizon):
    rows = np.arange(2.0 * horizon).reshape(horizon, 2)
    timeline = Timeline(NAMES, cubic)
    timeline.add(chunk(rows))
    for k in range(horizon):
        assert np.array_equal(timeline.predictions(when(0.1 * k)).position[0], rows[k])
    for share in (0.1, 0.5, 0.99):
        held = timeline.predictions(when(0.1 * (horizon - 1 + share)))
        assert np.array_equal(held.position[0], rows[-1]) and not held.velocity.any()
        assert np.array_equal(held.nearest, rows[-1])
    assert timeline.predictions(when(0.1 * horizon)) is None
    timeline.prune(when(0.1 * horizon - 1e-6))
    assert len(timeline) == 1
    timeline.prune(when(0.1 * horizon + 1e-5))
    assert len(timeline) == 0


@pytest.mark.parametrize("mode", ["ensemble", "latest"])
@pytest.mark.parametrize("discrete", [GLIDING, ~GLIDING])
def test_each_joint_is_blended_from_the_chunks_that_speak_of_it(mode, discrete):
    """Two joints in chunks of their own, in any number and order: as if each had a timeline to itself."""
    rng = np.random.default_rng(4)
    both, apart = Timeline(NAMES), {name: Timeline((name,)) for name in NAMES}
    blended, alone = Blender(mode, discrete, 0.3), {name: Blender(mode, discrete[:1], 0.3) for name in NAMES}
    for t in range(60):
        names = [NAMES, NAMES, NAMES[:1], NAMES[1:]][rng.integers(4)]
        rows = rng.normal(size=(6, len(names)))
        both.add(timed(when(t * 0.03), 0.1, rows, t, names=names))
        for name in names:
            apart[name].add(timed(when(t * 0.03), 0.1, rows[:, [names.index(name)]], t, names=(name,)))
        position, velocity = blended.target(when(t * 0.03), both.predictions(when(t * 0.03)))
        for j, name in enumerate(NAMES):
            said = apart[name].predictions(when(t * 0.03))
            if name in names or (mode == "ensemble" and said is not None):
                expected = alone[name].target(when(t * 0.03), said)
                assert [position[j], velocity[j]] == pytest.approx([expected[0][0], expected[1][0]], abs=1e-12)
            else:
                assert np.isnan(position[j])


def test_chunks_are_ordered_by_observation_not_by_arrival():
    timeline, blender = Timeline(NAMES), Blender("latest", GLIDING)
    timeline.add(chunk([[5, 5], [5, 5]], at=0.05, sequence=2))
    timeline.add(chunk([[1, 1], [1, 1]], at=0.0, sequence=1))
    assert [c.sequence for c in timeline.chunks] == [1, 2]
    assert blender.target(when(0.06), timeline.predictions(when(0.06)))[0] == pytest.approx([5, 5])


def test_discrete_joints_take_the_newest_nearest_row():
    timeline, blender = Timeline(NAMES), Blender("ensemble", MIXED, 0.0)
    timeline.add(chunk([[0, 0], [1, 0], [2, 0]], at=0.0))
    timeline.add(chunk([[0, 0], [1, 1], [2, 0]], at=0.1, sequence=1))
    for t, expected in ((0.1, 0.0), (0.14, 0.0), (0.16, 1.0), (0.24, 1.0)):
        position, velocity = blender.target(when(t), timeline.predictions(when(t)))
        assert position[1] == expected and velocity[1] == 0.0


@pytest.mark.parametrize("cubic", [False, True])
def test_velocity_is_the_slope_of_the_position(cubic):
    rows = np.cumsum(np.random.default_rng(3).normal(size=(9, 2)), axis=0)
    timeline = Timeline(NAMES, cubic)
    timeline.add(chunk(rows))
    for t in np.linspace(0.013, 0.787, 24):
        before, after = (timeline.predictions(when(t + d)) for d in (-1e-6, 1e-6))
        slope = (after.position[0] - before.position[0]) / 2e-6
        assert timeline.predictions(when(t)).velocity[0] == pytest.approx(slope, abs=1e-2)


@given(st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=2, max_size=10))
def test_cubic_passes_the_rows_and_never_leaves_their_interval(values):
    rows = np.array(values)[:, None]
    m = slopes(rows)
    f = np.linspace(0, 1, 21)[:, None]
    for k in range(len(rows) - 1):
        curve, _ = hermite(rows[k], rows[k + 1], m[k], m[k + 1], f)
        low, high = min(values[k], values[k + 1]), max(values[k], values[k + 1])
        assert curve.min() >= low - 1e-9 and curve.max() <= high + 1e-9
        assert curve[0] == rows[k] and curve[-1] == rows[k + 1]


@pytest.mark.parametrize("mode", ["latest", "rtc"])
def test_the_newest_is_faded_in_continuously(mode):
    timeline, blender = Timeline(NAMES), Blender(mode, GLIDING, crossfade=0.2)
    timeline.add(chunk([[0, 0], [1, 1], [2, 2], [3, 3], [4, 4], [5, 5]], at=0.0))
    path, slope = [], []
    for k in range(450):
        now = when(k * 0.001)
        if k == 200:
            timeline.add(chunk([[3, 0], [3, 0], [3, 0], [3, 0]], at=0.2, sequence=1))
        position, velocity = blender.target(now, timeline.predictions(now))
        path.append(position)
        slope.append(velocity)
    path, slope = np.array(path), np.array(slope)
    assert path[199] == pytest.approx([1.99, 1.99])
    assert path[200] == pytest.approx([2.0, 2.0])  # nothing jumps
    assert np.abs(np.diff(path, axis=0)).max() < 0.05
    assert np.abs(np.diff(slope, axis=0)[:-1]).max() < 2.0  # nor does the velocity: 10/s before, 0/s after the fade
    assert path[401] == pytest.approx([3.0, 0.0])
    assert slope[401] == pytest.approx([0.0, 0.0])
    assert np.diff(path, axis=0)[210:400] / 0.001 == pytest.approx(slope[211:401], abs=0.3)


def test_a_new_instruction_is_faded_in_by_the_ensemble_too():
    timeline, blender = Timeline(NAMES), Blender("ensemble", GLIDING, crossfade=0.1)
    timeline.add(chunk(np.zeros((9, 2))))
    blender.target(when(0.1), timeline.predictions(when(0.1)))
    timeline.keep(2)
    timeline.add(chunk(np.ones((9, 2)), at=0.05, instruction_id=2, sequence=1))
    assert blender.target(when(0.11), timeline.predictions(when(0.11)))[0] == pytest.approx([0, 0])
    assert blender.target(when(0.16), timeline.predictions(when(0.16)))[0] == pytest.approx([0.5, 0.5])
    assert blender.target(when(0.22), timeline.predictions(when(0.22)))[0] == pytest.approx([1, 1])


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="expected one of"):
        Blender("average", GLIDING)


def test_the_number_of_chunks_is_bounded():
    timeline = Timeline(NAMES)
    for k in range(MAX_CHUNKS + 50):
        timeline.add(chunk(np.zeros((2, 2)), at=k * 1e-4, step_dt=1.0, sequence=k))
    assert len(timeline) == MAX_CHUNKS
    assert timeline.chunks[0].sequence == 50
