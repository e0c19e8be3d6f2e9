"""Every command obeys every limit, and braking is always possible."""

import numpy as np
import pytest
from control.robots import check_path, limits
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.control.limiter import Limiter, stoppable_speed


def run(limiter: Limiter, targets: np.ndarray, velocities: np.ndarray | None = None) -> np.ndarray:
    velocities = np.zeros_like(targets) if velocities is None else velocities
    return np.array([limiter.follow(x, v) for x, v in zip(targets, velocities, strict=True)])


def way_to_stop(speed: float, acceleration: float, intervals: list[float]) -> float:
    """m or rad, of the step with `speed` over the first interval and the fastest stop in the others."""
    way, before = 0.0, intervals[0]
    for dt in intervals:
        if way:
            speed = max(speed - acceleration * (before + dt) / 2, 0.0)
        way, before = way + speed * dt, dt
    return way


@given(
    room=st.floats(0.01, 10.0),
    acceleration=st.floats(0.1, 100.0),
    dt=st.floats(0.001, 0.1),
    later=st.lists(st.floats(1e-4, 1.0), max_size=20),
)
def test_a_stop_fits_whatever_intervals_come(room, acceleration, dt, later):
    speed = float(stoppable_speed(np.array([room]), np.array([acceleration]), dt)[0])
    assert way_to_stop(speed, acceleration, [dt, *later, 1e3]) <= room * (1 + 1e-9)
    at_once = [dt, max(speed / acceleration - dt / 2, 1e-9)]  # the one that takes the parabola to its very end
    assert way_to_stop(speed, acceleration, at_once) == pytest.approx(room, rel=1e-6)


@given(room=st.floats(0.0, 10.0), acceleration=st.floats(0.1, 100.0), dt=st.floats(0.001, 0.1), stretch=st.floats(1, 9))
def test_a_target_is_not_overshot_where_later_intervals_are_no_shorter(room, acceleration, dt, stretch):
    speed = float(stoppable_speed(np.array([room]), np.array([acceleration]), dt, following=dt)[0])
    count = int(speed / acceleration / dt) + 2
    way = way_to_stop(speed, acceleration, [dt] + [dt * stretch] * count)
    assert way <= room * (1 + 1e-9) + 1e-12
    regular = way_to_stop(speed, acceleration, [dt] * (count + 1))
    assert regular >= room - acceleration * dt * dt / 8 - 1e-9  # all of it but the rounding to whole periods


@given(
    jerk=st.sampled_from([np.inf, 60.0]),
    targets=st.lists(st.tuples(st.floats(-2, 2), st.sampled_from([0.01, 0.02])), min_size=1, max_size=40),
    most=st.integers(0, 60),
)
def test_the_braking_that_is_told_ahead_is_the_stop_that_comes(jerk, targets, most):
    bounds = limits(jerk)
    limiter = Limiter(bounds, 0.01)
    limiter.reset(np.array([0.1, 0.3]))
    for target, dt in targets:
        limiter.follow(np.array([target, target]), np.zeros(2), dt)
    ahead, start = limiter.braking(most), limiter.position
    came = np.array([limiter.stop() for _ in ahead]).reshape(ahead.shape)
    assert np.allclose(ahead, came, atol=1e-12)
    assert len(ahead) == most or np.allclose(limiter.stop(), came[-1] if len(came) else start, atol=1e-12)
    assert (ahead >= np.minimum(bounds.lower, start)).all() and (ahead <= np.maximum(bounds.upper, start)).all()


@pytest.mark.parametrize("jerk", [np.inf, 60.0])
@pytest.mark.parametrize("order", [np.inf, 2])
def test_joints_that_brake_together_come_to_rest_at_one_moment_on_a_straight_line(order, jerk):
    limiter = Limiter(limits(jerk), 0.01)
    limiter.together = ((np.array([0, 1]), order),)
    limiter.reset(np.array([-0.8, 0.1]))
    run(limiter, np.tile([0.9, 0.45], (45, 1)))
    start, speeds = limiter.position, limiter.velocity.copy()
    assert (speeds > 0.01).all()
    apart = np.abs(speeds) / limiter.limits.acceleration / 0.01  # periods that each would need by itself
    ahead = limiter.braking(200)
    came = np.array([limiter.stop() for _ in ahead])
    assert np.allclose(ahead, came, atol=1e-12) and np.array_equal(limiter.stop(), came[-1]) and limiter.at_rest
    assert len(came) == pytest.approx(np.linalg.norm(apart, order), abs=1.01)
    way = came - start
    assert np.abs(way[:, 0] * speeds[1] - way[:, 1] * speeds[0]).max() < 1e-12
    slower = np.abs(np.diff(np.concatenate([[start], came]), n=2, axis=0)) / 1e-4 / limiter.limits.acceleration
    assert (np.linalg.norm(slower, order, axis=1) <= 1 + 1e-6).all()


@given(
    jerk=st.sampled_from([np.inf, 60.0]), order=st.sampled_from([np.inf, 2]),
    targets=st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=5, max_size=60), stops=st.booleans(),
)
def test_joints_that_brake_together_keep_every_limit(jerk, order, targets, stops):
    """Wherever they are, near their limits too; what is told ahead keeps them as well."""
    limiter, start = Limiter(limits(jerk), 0.01), np.array([0.1, 0.3])
    limiter.together = ((np.array([0, 1]), order),)
    limiter.reset(start)
    path = run(limiter, np.array(targets))
    before = path[-2] if len(path) > 1 else start
    ahead = np.concatenate([[before, limiter.position], limiter.braking(200)])
    speeds = np.diff(ahead, axis=0) / 0.01
    bounds = limiter.limits
    assert (np.abs(np.diff(speeds, axis=0)) / 0.01 <= bounds.acceleration * (1 + 1e-6) + 1e-6).all()
    assert (ahead >= bounds.lower - 1e-12).all() and (ahead <= bounds.upper + 1e-12).all()
    came = np.array([limiter.stop() if stops else limiter.brake() for _ in range(120)])
    gentle = np.concatenate([np.ones(len(path), dtype=bool), np.full(120, not stops)])
    check_path(bounds, 0.01, start, np.concatenate([path, came]), gentle=gentle)
    assert np.array_equal(came[-1], came[-2])


intervals = st.sampled_from([1e-4, 0.004, 0.02, 0.3])  # s


@given(
    jerk=st.sampled_from([np.inf, 300.0, 60.0]),
    steps=st.lists(st.tuples(st.floats(-2, 2), st.floats(-3, 3), intervals), max_size=60),
)
def test_no_interval_breaks_a_limit(jerk, steps):
    """Position, velocity and acceleration; jerk is bounded at regular intervals."""
    bounds, start = limits(jerk), np.array([0.1, 0.3])
    limiter = Limiter(bounds, 0.01)
    limiter.reset(start)
    times = np.cumsum([round(dt * 1e9) for *_, dt in steps] + [10_000_000] * 160)
    path = [limiter.follow(np.array([x, 0.2 - x]), np.array([v, -v]), dt) for x, v, dt in steps]
    path += [limiter.brake() for _ in range(160)]
    assert limiter.at_rest
    whole = np.array([start, *path])
    check_path(bounds, 0.01, start, whole, np.concatenate([[0], times]), np.zeros(len(whole), bool))


@pytest.mark.parametrize("jerk", [1000.0, 200.0, 20.0])
def test_a_stop_speeds_nothing_up_and_turns_nothing_round(jerk):
    bounds = limits(jerk=jerk)
    for turned in range(1, 120, 7):
        limiter = Limiter(bounds, 0.01)
        limiter.reset(np.array([0.9, 0.4]))
        run(limiter, np.tile([-0.9, 0.1], (60, 1)))
        path = run(limiter, np.tile([0.9, 0.4], (turned, 1)))
        speed = limiter.velocity
        while not limiter.at_rest:
            path = np.concatenate([path, limiter.stop()[None]])
            assert (np.abs(limiter.velocity) <= np.abs(speed) * (1 + 1e-9) + 1e-12).all()
            assert (limiter.velocity * speed >= -1e-12).all()
            speed = limiter.velocity
        assert (np.abs(np.diff(path, 2, axis=0)) <= bounds.acceleration * 1e-4 * (1 + 1e-6)).all()
        assert (path >= bounds.lower).all() and (path <= bounds.upper).all()
        assert np.array_equal(limiter.follow(path[-1], np.zeros(2)), path[-1])


@given(
    rate=st.sampled_from([20.0, 50.0, 100.0, 500.0]),
    jerk=st.sampled_from([np.inf, 2000.0, 150.0]),
    targets=st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(1, 30)), max_size=12),
)
def test_no_target_breaks_a_limit(rate, jerk, targets):
    bounds = limits(jerk=jerk)
    limiter = Limiter(bounds, 1.0 / rate)
    start = np.array([0.1, 0.3])
    limiter.reset(start)
    path = [limiter.follow(np.array([x, -x]), np.array([v, v])) for x, v, count in targets for _ in range(count)]
    longest = int((bounds.velocity / bounds.acceleration).max() * rate) + 300 // (1 if jerk < np.inf else 300)
    while not limiter.at_rest:
        path.append(limiter.brake())
        longest -= 1
        assert longest >= 0
    path += [limiter.brake(), limiter.brake()]
    check_path(limiter.limits, limiter.dt, start, np.array(path))
    assert np.array_equal(path[-1], path[-2])


def test_a_target_within_the_limits_is_met_exactly():
    limiter = Limiter(limits(), 0.01)
    t = np.arange(1, 400)[:, None] * 0.01
    curve, slope = 0.3 * (1 - np.cos(2 * t)) * [1, 0.1] + 0.1, 0.6 * np.sin(2 * t) * [1, 0.1]
    limiter.reset(np.array([0.1, 0.1]))
    assert np.array_equal(run(limiter, curve, slope), curve)
    assert not limiter.limited.any()


def test_a_jump_is_made_up_for_without_overshoot():
    limiter = Limiter(limits(), 0.01)
    limiter.reset(np.zeros(2) + 0.2)
    path = run(limiter, np.tile([0.9, 0.2], (200, 1)))
    assert limiter.position == pytest.approx([0.9, 0.2], abs=0)
    assert path[:, 0].max() <= 0.9
    assert (np.diff(path[:, 0]) >= 0).all()


def test_the_limit_is_approached_and_never_crossed():
    limiter = Limiter(limits(), 0.02)
    start = np.array([0.0, 0.3])
    limiter.reset(start)
    path = run(limiter, np.tile([50.0, -50.0], (500, 1)), np.tile([9.0, -9.0], (500, 1)))
    check_path(limiter.limits, limiter.dt, start, path)
    assert path[-1] == pytest.approx([limiter.limits.upper[0], limiter.limits.lower[1]])
    assert limiter.limited.all()


def test_outside_the_limits_it_moves_inwards_only():
    limiter = Limiter(limits(), 0.01)
    start = limiter.limits.upper + 0.05
    limiter.reset(start)
    assert np.array_equal(limiter.follow(start + 1.0, np.ones(2)), start)
    path = run(limiter, np.tile([0.0, 0.2], (300, 1)))
    check_path(limiter.limits, limiter.dt, start, path)
    assert (np.diff(path, axis=0) <= 1e-12).all()
    assert path[-1] == pytest.approx([0.0, 0.2])


def test_braking_takes_the_shortest_time():
    limiter = Limiter(limits(), 0.01)
    limiter.reset(np.array([-0.5, 0.1]))
    run(limiter, np.tile([1.0, 0.5], (60, 1)))
    speed = np.abs(limiter.velocity)
    steps = 0
    while not limiter.at_rest:
        limiter.brake()
        steps += 1
    assert steps == int(np.ceil((speed / limiter.limits.acceleration / 0.01).max() - 1e-9))


def test_jerk_is_bounded_and_the_target_still_reached():
    limiter = Limiter(limits(jerk=300.0), 0.01)
    start = np.array([-0.8, 0.1])
    limiter.reset(start)
    path = run(limiter, np.tile([0.8, 0.4], (400, 1)))
    check_path(limiter.limits, limiter.dt, start, path)
    assert path[-1] == pytest.approx([0.8, 0.4], abs=1e-9)


def test_it_does_not_start_from_nowhere():
    with pytest.raises(ValueError, match="expected finite"):
        Limiter(limits(), 0.01).reset(np.array([np.nan, 0.0]))
