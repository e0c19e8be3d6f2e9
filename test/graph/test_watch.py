"""What the terminal says about states."""

import pytest

pytest.importorskip("vla_ros.msg", reason="the messages are not built: make build")

from vla_ros.graph.watch import CAUSES, EXECUTOR_STATES, POLICY_STATES, milliseconds
from vla_ros.msg import ExecutorStatus, PolicyStatus


def test_every_state_and_cause_has_its_name():
    assert POLICY_STATES[PolicyStatus.WAITING] == "waiting" and sorted(POLICY_STATES) == list(range(6))
    assert EXECUTOR_STATES[ExecutorStatus.APPROACHING] == "approaching" and sorted(EXECUTOR_STATES) == list(range(7))
    assert CAUSES[ExecutorStatus.CAUSE_POLICY_GONE] == "policy gone" and sorted(CAUSES) == list(range(9))


def test_times_that_are_none_are_dashes():
    assert milliseconds(0.0123) == "12.3 ms"
    assert milliseconds(float("nan")) == "–"
