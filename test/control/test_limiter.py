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


@given(room=st.floats(0.0, 10.0), acceleration=st.floats(0.1, 100.0), dt=st.floats(0.001, 0.1))
def test_stoppable_speed_stops_exactly_at_the_limit(room, acceleration, dt):
    speed = float(stoppable_speed(np.array([room]), np.array([acceleration]), dt)[0])
    travelled, v = 0.0, speed
    while v > 0:
        travelled += v * dt
        v -= acceleration * dt
    assert travelled == pytest.approx(room, abs=1e-9, rel=1e-9)


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
