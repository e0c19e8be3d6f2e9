"""When a task cannot go on, and which goals make none."""

import math

import pytest

from vla_ros.control.supervisor import State
from vla_ros.control.task import Outcome, goal_problem, problem

RUNNING = 4  # PolicyStatus.RUNNING


@pytest.mark.parametrize("state", [State.APPROACHING, State.EXECUTING, State.HOLDING])
@pytest.mark.parametrize("policy", [2, 3, 4, 5])
def test_a_moving_or_holding_executor_and_an_active_policy_serve(state, policy):
    assert problem(policy, state) is None


@pytest.mark.parametrize(
    ("policy", "executor", "outcome"),
    [
        (RUNNING, None, Outcome.NOT_ACTIVE),
        (None, State.HOLDING, Outcome.NOT_ACTIVE),
        (1, State.HOLDING, Outcome.NOT_ACTIVE),
        (RUNNING, State.INACTIVE, Outcome.NOT_ACTIVE),
        (RUNNING, State.STOPPED, Outcome.STOPPED),
        (None, State.E_STOPPED, Outcome.E_STOPPED),  # the gravest is named
    ],
)
def test_what_keeps_a_task_from_going_on(policy, executor, outcome):
    assert problem(policy, executor)[0] is outcome


def test_the_executors_own_words_are_passed_on():
    assert problem(RUNNING, State.STOPPED, "elbow: 0.4 rad behind") == (Outcome.STOPPED, "elbow: 0.4 rad behind")


@pytest.mark.parametrize(
    ("instruction", "time_limit", "words"),
    [
        ("  ", 0.0, "instruction: empty"),
        ("x" * 10_001, 0.0, "instruction: 10001 bytes, limit 10000"),
        ("go", -1.0, "time_limit: -1.0 s"),
        ("go", math.nan, "time_limit: nan s"),
    ],
)
def test_bad_goals_are_named(instruction, time_limit, words):
    assert words in goal_problem(instruction, time_limit)


def test_a_good_goal_has_no_problem():
    assert goal_problem("go", time_limit=0.0) == ""
