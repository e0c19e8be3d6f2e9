"""The adversary of benchmarks/adversary.py, for a few seconds, and whether its check would see anything."""

import numpy as np
import pytest
from adversary import run_episodes
from adversary_episode import Episode, Result
from command_check import (
    ACCELERATION,
    ACCELERATION_STAMPS,
    POSITION,
    STAMPS,
    STOPPED,
    VELOCITY,
    VELOCITY_STAMPS,
    Bounds,
    CommandCheck,
)
from sabotage import SABOTAGES

ROBOT = {
    "control_rate": 100.0,
    "position_margin": 0.01,
    "joints": [{"name": "turn", "lower": -1.0, "upper": 1.0, "velocity": 2.0, "acceleration": 10.0}],
}


def violations(x, stamps=None, steady=None, stopped=None, start=0.0) -> set[str]:
    """What is wrong with (K,) positions of one joint at these times, s."""
    check = CommandCheck(Bounds.of(ROBOT))
    check.begin(np.array([start]))
    steady = np.arange(len(x)) * 0.01 if steady is None else steady
    stamps = steady if stamps is None else stamps
    stopped = np.zeros(len(x), bool) if stopped is None else stopped
    for row in zip(x, stamps, steady, stopped, strict=True):
        check.add(np.array([row[0]]), round(row[1] * 1e9), round(row[2] * 1e9), bool(row[3]))
    check.end()
    assert check.commands == len(x)
    return set(check.violations)


def test_nothing_that_reaches_the_executor_breaks_a_promise():
    total = run_episodes(1, list(range(16)), 1000, "")
    assert total.first == {} and not total.violations
    assert total.commands > 8000 and total.moving > 2000  # an executor that never moves would have broken nothing too
    assert total.share["acceleration"] == pytest.approx(1.0, abs=1e-4)
    for fault in ("e-stop", "rival", "late tick", "stall", "clock set", "activation", "wild chunk", "malformed chunk"):
        assert total.faults[fault] > 2
    assert total.stops["REVERSALS"] > 2
    assert total.led > 200 and min(total.faults[done] for done in ("takeover", "given back", "source changes")) > 2


@pytest.mark.parametrize("name", SABOTAGES)
def test_an_executor_that_is_broken_on_purpose_is_found(name):
    make, kinds = SABOTAGES[name]
    total = Result()
    for number in range(120):
        total.add(Episode(0, number, make).run(500))
        if any(total.violations[kind] for kind in kinds):
            return
    pytest.fail(f"{name}: none of {kinds} in {total.commands} commands")


def test_a_parabola_of_the_greatest_acceleration_passes_whatever_the_intervals():
    rng = np.random.default_rng(0)
    times = np.concatenate([np.arange(3), 3 + rng.integers(1, 9, 30).cumsum()]) * 0.01
    times = times[times < 0.19]
    assert violations(0.5 * 9.999 * times**2, steady=times) == set()
    assert violations(0.5 * 10.1 * times**2, steady=times) == {ACCELERATION, ACCELERATION_STAMPS}


def test_late_by_one_of_the_two_clocks_alone():
    """A joint at 1.5 rad/s; one command comes a period late by one clock, the other does not know of it."""
    t = np.arange(60) * 0.01
    ramp = np.minimum(t * 8.0, 1.5)
    x = -0.9 + np.cumsum(ramp) * 0.01
    later = t + np.where(np.arange(60) > 40, 0.01, 0.0)
    assert violations(x, start=-0.9) == set()
    assert violations(x, steady=t, stamps=later, start=-0.9) == {ACCELERATION_STAMPS}
    assert violations(x, steady=later, stamps=t, start=-0.9) == {ACCELERATION}
    half = t - np.where(np.arange(60) > 40, 0.005, 0.0)
    assert violations(x, steady=t, stamps=half, start=-0.9) == {ACCELERATION_STAMPS, VELOCITY_STAMPS}
    assert violations(x, steady=half, stamps=t, start=-0.9) == {ACCELERATION, VELOCITY}
    back = t - np.where(np.arange(60) > 40, 0.02, 0.0)
    assert STAMPS in violations(x, steady=t, stamps=back, start=-0.9)
    assert violations(np.zeros(60), steady=t, stamps=back) == set()  # at rest it may follow a clock that was set back


def test_outside_a_joint_may_move_inwards_only():
    path = 1.05 - 0.0005 * np.arange(10).cumsum()
    assert violations(path, start=1.05) == set()
    assert violations(np.concatenate([path, path[-1] + 0.0005 * np.arange(1, 5)]), start=1.05) >= {POSITION}


def test_a_stop_may_not_speed_up():
    x = np.concatenate([0.0005 * np.arange(10).cumsum(), 0.0225 + 0.0045 * np.arange(1, 4)])
    stopped = np.arange(len(x)) > 11
    assert violations(x, stopped=stopped) == set()
    x[-1] += 0.0001
    assert STOPPED in violations(x, stopped=stopped)


def test_a_long_stretch_is_checked_in_pieces_with_the_same_result():
    t = np.arange(11_000) * 0.01
    x = 0.5 * np.sin(t)
    x[[4999, 5001, 10_500]] += 0.01
    check = CommandCheck(Bounds.of(ROBOT))
    for k, value in enumerate(x):
        check.add(np.array([value]), k * 10_000_000, k * 10_000_000)
    check.end()
    acceleration = np.diff(np.concatenate([[0.0, 0.0], x]), 2) * 1e4
    assert check.violations[ACCELERATION] == (np.abs(acceleration) > 10.0).sum()
    assert check.commands == len(x)
