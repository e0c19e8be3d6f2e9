"""A robot that does not go where it is commanded is noticed, and one that does is not."""

import dataclasses

import numpy as np
import pytest
from control.robots import limits

from vla_ros.control.following import Following

NS, DT = 1_000_000_000, 0.01
BOUNDS = limits(gripper=True)  # turn 2 rad/s, lift 0.5 m/s, grip (discrete) 5 rad/s
APART = dataclasses.replace(BOUNDS, groups=np.array([0, 1, 2]))  # a controller for each joint


def feed(following, command, measured, seconds=1.0, until=lambda: False):
    """Runs `command(t)` and `measured(t)`, (J,), for as long; gives the time at which `until` came true."""
    for k in range(round(seconds / DT)):
        following.tick(k * round(DT * NS), np.array(command(k * DT)), np.array(measured(k * DT)))
        if until():
            return k * DT
    return None


def ramp(*speeds, lag=0.0):
    """Positions of joints that move with `speeds` from 0 on, behind by `lag` s (first order)."""

    def at(t):
        behind = lag * (1 - np.exp(-t / lag)) if lag else 0.0
        return [speed * (t - behind) for speed in speeds]

    return at


@pytest.mark.parametrize("speeds", [(2.0, 0.5, 0.0), (0.3, 0.05, 0.0), (-0.1, -0.02, 0.0)])
def test_a_robot_that_stays_is_noticed_within_half_a_second(speeds):
    following = Following(BOUNDS)
    assert feed(following, ramp(*speeds), ramp(0, 0, 0), until=lambda: following.warning) <= 0.5
    assert following.warning.startswith("the controller does not follow: joint ")
    assert feed(following, ramp(*speeds), ramp(0, 0, 0), until=lambda: following.fault) <= 0.9


@pytest.mark.parametrize("speeds", [(2.0, 0.5, 0.0), (1.0, 0.2, 0.0), (0.3, 0.05, 0.0)])
@pytest.mark.parametrize(("late", "rate"), [(0.5, 100), (0.4, 10), (0.3, 5)])
def test_a_robot_that_sets_out_late_is_no_fault(late, rate, speeds):
    """`late`: s after the command. `rate`: of the joint states, Hz."""
    following, way = Following(BOUNDS), ramp(*speeds)
    measured = lambda t: way(max(np.floor(t * rate) / rate - late, 0.0))  # noqa: E731
    assert feed(following, way, measured, seconds=3.0, until=lambda: following.fault) is None


@pytest.mark.parametrize("lag", [0.05, 0.2, 0.4])
def test_a_robot_that_lags_or_sags_or_trembles_follows(lag):
    following = Following(BOUNDS)
    for command, measured in (
        (ramp(1, 0.2, 1), ramp(1, 0.2, 1, lag=lag)),
        (ramp(1, 0.2, 1), lambda t: np.array(ramp(1, 0.2, 1, lag=lag)(t)) - [0.3, 0.05, 0.3]),
        (lambda t: [0.1 * np.sin(2 * np.pi * 15 * t)] * 3, ramp(0, 0, 0)),
        (ramp(0.01, 0.002, 0), ramp(0, 0, 0)),  # hardly any motion is asked for
        (ramp(0, 0, 3), ramp(0, 0, 0)),  # a gripper around an object
    ):
        following.clear()
        assert feed(following, command, measured, seconds=3.0, until=lambda: following.warning) is None


def test_one_joint_that_is_blocked_is_told_and_no_fault_of_the_controller():
    following = Following(BOUNDS)
    feed(following, ramp(1, 0.2, 0), ramp(0, 0.2, 0))
    assert "joint turn commanded" in following.warning and not following.fault
    following.clear()
    feed(following, ramp(1, 0, 0), ramp(0, 0, 0))
    assert following.warning and not following.fault


def test_a_group_that_stays_is_a_fault_whatever_another_one_does():
    arm = dataclasses.replace(BOUNDS, discrete=np.zeros(3, dtype=bool), groups=np.array([0, 0, 1]))
    for bounds, others, fault in ((arm, 1.0, True), (arm, 0.0, True), (APART, 1.0, False), (APART, 0.0, True)):
        following = Following(dataclasses.replace(bounds, discrete=arm.discrete))
        feed(following, ramp(1, 0.2, 1), ramp(0, 0, others))
        assert bool(following.fault) == fault


def test_it_is_over_when_the_robot_has_caught_up():
    following = Following(BOUNDS)
    feed(following, lambda t: [min(t, 0.5), min(0.2 * t, 0.1), 0], ramp(0, 0, 0))
    assert following.fault
    feed(following, lambda t: [0.5, 0.1, 0], lambda t: [min(t, 0.5), min(t, 0.1), 0])
    assert not following.warning and not following.fault


@pytest.mark.parametrize("before", [-0.4, 0.0, 1.5])
def test_it_is_over_when_the_robot_stands_at_its_command_wherever_it_came_from(before):
    """Behind or ahead of the command when it stopped, it comes to rest at it."""
    following = Following(BOUNDS)
    start = np.array([before, before / 5, 0])
    feed(following, lambda t: [2 * t, 0.4 * t, 0], lambda t: start, seconds=2.0)
    assert following.fault
    end = np.array([4.0, 0.8, 0]) if before < 1 else np.array([0.5, 0.1, 0])
    feed(following, lambda t: end, lambda t: end + (start - end) * np.exp(-9 * t))
    assert not following.warning and not following.fault


def test_it_is_over_where_the_robot_stands_lower_than_before():
    following = Following(BOUNDS)
    feed(following, ramp(1, 0.2, 0), ramp(0, 0, 0))
    feed(following, lambda t: [1, 0.2, 0], lambda t: [min(t, 0.4), min(t, 0.08), 0], seconds=2.0)
    assert following.fault
    feed(following, lambda t: [1, 0.2, 0], lambda t: [0.7, 0.14, 0])
    assert not following.warning and not following.fault


def test_how_far_it_went_is_told_in_the_direction_of_the_command():
    following = Following(BOUNDS)
    feed(following, ramp(1, 0.2, 0), ramp(-1, 0, 0), until=lambda: following.warning)
    assert "and went -0." in following.warning
