"""Levels of /diagnostics, and that the messages fit their type."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built")

from diagnostic_msgs.msg import DiagnosticStatus

from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.diagnostics import ExecutorDiagnostic, faulty, policy_diagnostic


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (PolicyStatus.IDLE, DiagnosticStatus.OK),
        (PolicyStatus.RUNNING, DiagnosticStatus.OK),
        (PolicyStatus.WAITING, DiagnosticStatus.WARN),
        (PolicyStatus.FAILED, DiagnosticStatus.ERROR),
    ],
)
def test_policy_levels(state, level):
    found = policy_diagnostic(PolicyStatus(state=state, message="front: 3 s old", waiting_for=["front"]))
    assert found.level == level and "front: 3 s old" in found.message
    assert {item.key: item.value for item in found.values}["waiting for"] == "front"


@pytest.mark.parametrize(
    ("state", "cause", "level"),
    [
        (ExecutorStatus.INACTIVE, 0, DiagnosticStatus.OK),
        (ExecutorStatus.EXECUTING, 0, DiagnosticStatus.OK),
        (ExecutorStatus.HOLDING, ExecutorStatus.CAUSE_NO_INSTRUCTION, DiagnosticStatus.OK),
        (ExecutorStatus.HOLDING, ExecutorStatus.CAUSE_NO_CHUNK, DiagnosticStatus.WARN),
        (ExecutorStatus.HOLDING, ExecutorStatus.CAUSE_TAKEOVER_PAUSED, DiagnosticStatus.WARN),
        (ExecutorStatus.TAKEN_OVER, ExecutorStatus.CAUSE_NONE, DiagnosticStatus.OK),
        (ExecutorStatus.STOPPED, ExecutorStatus.CAUSE_POLICY_GONE, DiagnosticStatus.ERROR),
        (ExecutorStatus.E_STOPPED, 0, DiagnosticStatus.ERROR),
    ],
)
def test_executor_levels(state, cause, level):
    assert ExecutorDiagnostic()(ExecutorStatus(state=state, cause=cause)).level == level


def test_chunks_that_are_refused_because_somebody_has_taken_over_are_nothing_to_warn_of():
    status = ExecutorStatus(state=ExecutorStatus.TAKEN_OVER, refused_chunks=7, last_refusal="taken_over: by /leader")
    status.refusal_reasons, status.refusal_counts = ["taken_over"], [7]
    diagnostic = ExecutorDiagnostic()
    assert diagnostic(status).level == DiagnosticStatus.OK and faulty(status) == 0
    status.refused_chunks, status.refusal_reasons, status.refusal_counts = 8, ["taken_over", "jump"], [7, 1]
    assert diagnostic(status).level == DiagnosticStatus.WARN


def test_refusals_and_overruns_warn_once_each_time_they_grow():
    diagnostic = ExecutorDiagnostic()
    status = ExecutorStatus(state=ExecutorStatus.EXECUTING, refused_chunks=2, last_refusal="not finite: elbow")
    status.refusal_reasons, status.refusal_counts = ["not finite"], [2]
    found = diagnostic(status)
    assert found.level == DiagnosticStatus.WARN and "2 refused chunks, last: not finite: elbow" in found.message
    assert {item.key: item.value for item in found.values}["refused: not finite"] == "2"
    assert diagnostic(status).level == DiagnosticStatus.OK
    status.overruns = 1
    assert diagnostic(status).level == DiagnosticStatus.WARN
    status.refused_chunks = status.overruns = 0  # activated again
    assert diagnostic(status).level == DiagnosticStatus.OK


def watched(**fields) -> ExecutorStatus:
    status = ExecutorStatus(state=ExecutorStatus.EXECUTING, names=["turn", "lift"])
    status.deviation, status.reversals, status.limited_share = [0.001, 0.25], [4.0, 0.0], [0.1, 0.0]
    status.progress_age = 1.5
    for name, value in fields.items():
        setattr(status, name, value)
    return status


def test_what_the_monitor_sees_is_said_by_joint_the_worst_first():
    found = ExecutorDiagnostic()(watched())
    assert (found.level, found.message) == (DiagnosticStatus.OK, "following chunks")
    values = {item.key: item.value for item in found.values}
    assert values["deviation (rad or m)"] == "lift 0.25, turn 0.001"
    assert values["reversals (1/s)"] == "turn 4"
    assert values["held back by a limit"] == "turn 10%"
    assert values["time without progress (s)"] == "1.5"
    assert {item.key: item.value for item in ExecutorDiagnostic()(ExecutorStatus()).values}["reversals (1/s)"] == ""


@pytest.mark.parametrize(
    ("fields", "level", "words"),
    [
        ({"message": "joint turn: turns round"}, DiagnosticStatus.WARN, "following chunks: joint turn: turns round"),
        ({"progress_age": 12.3}, DiagnosticStatus.OK, "following chunks: no progress for 12 s"),
        (
            {"limited_share": [0.6, 0.9]},
            DiagnosticStatus.OK,
            "following chunks: held back by a limit: lift 90%, turn 60% of the time",
        ),
        ({"state": ExecutorStatus.HOLDING, "progress_age": 12.3}, DiagnosticStatus.OK, "holding"),
    ],
)
def test_why_a_robot_that_follows_chunks_gets_nowhere(fields, level, words):
    found = ExecutorDiagnostic()(watched(**fields))
    assert (found.level, found.message) == (level, words)


def test_a_robot_that_may_not_do_what_it_is_commanded_is_warned_of():
    status = ExecutorStatus(state=ExecutorStatus.HOLDING, cause=ExecutorStatus.CAUSE_NO_INSTRUCTION, message="nobody")
    assert ExecutorDiagnostic()(status, hindered=True).level == DiagnosticStatus.WARN
    assert ExecutorDiagnostic()(status).level == DiagnosticStatus.OK
