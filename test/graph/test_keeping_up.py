"""A machine that is too slow for real time is named once, with what is slow."""

import pytest

pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from vla_ros.graph.keeping_up import KeepingUp
from vla_ros.msg import ExecutorStatus, PolicyStatus

WELL = {"state": PolicyStatus.RUNNING, "chunks": 50, "rate": 9.8, "inference_time": 0.03}
RATE = {"state": ExecutorStatus.EXECUTING, "control_rate": 99.0}


@pytest.mark.parametrize(
    ("policy", "executor", "words"),
    [
        ({"rate": 2.5, "inference_time": 0.4}, {}, "2.5 chunks a second of 10, an inference takes 0.40 s"),
        ({"state": PolicyStatus.WAITING, "waiting_for": ["front", "wrist"]}, {}, "front, wrist late"),
        ({}, {"control_rate": 41.0}, "control rate 41 Hz of 100"),
    ],
)
def test_what_is_slow_is_said_once(policy, executor, words):
    keeping = KeepingUp(10.0, 100.0)
    well = PolicyStatus(**WELL), ExecutorStatus(**RATE)
    slow = PolicyStatus(**WELL | policy), ExecutorStatus(**RATE | executor)
    assert [keeping.look(*slow, now) for now in (0.0, 1.0, 2.9)] == [""] * 3
    assert keeping.look(*well, 2.95) == ""  # it was a pause
    assert [keeping.look(*slow, now) for now in (3.0, 5.9)] == [""] * 2 and keeping.words == ""
    said = keeping.look(*slow, 6.0)
    assert said.startswith("this machine is too slow: ") and words in said
    assert [keeping.look(*slow, now) for now in (6.1, 60.0)] == [""] * 2 and keeping.words == said


@pytest.mark.parametrize(
    ("policy", "executor"),
    [
        ({}, {}),
        ({"state": PolicyStatus.IDLE, "rate": 0.0}, {}),
        ({"chunks": 2, "rate": 0.0}, {}),  # the first ones say nothing about a rate
        ({"rate": 0.0}, {"state": ExecutorStatus.E_STOPPED}),
        ({}, {"control_rate": 0.0}),  # not measured yet
    ],
)
def test_nothing_else_is(policy, executor):
    keeping = KeepingUp(10.0, 100.0)
    statuses = PolicyStatus(**WELL | policy), ExecutorStatus(**RATE | executor)
    assert [keeping.look(*statuses, now) for now in (0.0, 60.0)] == ["", ""]
    assert keeping.look(None, None, 61.0) == ""
