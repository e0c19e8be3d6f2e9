"""The keys of `vla-ros record`."""

import io
import sys

from vla_ros.bags.index import OUTCOMES
from vla_ros.cli.record import _take_marks
from vla_ros.msg import Outcome


def test_each_key_is_an_outcome_and_is_answered(monkeypatch, capsys):
    class Node:
        marks = []
        mark = marks.append

    monkeypatch.setattr(sys, "stdin", io.StringIO("s\n F \nwhat\n\nABORTED\n"))
    _take_marks(Node)
    assert Node.marks == [Outcome.SUCCESS, Outcome.FAILURE, Outcome.ABORTED]
    success, failure, advice, aborted = capsys.readouterr().out.splitlines()
    assert [success, failure, aborted] == ["noted: success", "noted: failure", "noted: aborted"]
    assert advice.startswith("s, f or a")
    assert OUTCOMES == {Outcome.SUCCESS: "success", Outcome.FAILURE: "failure", Outcome.ABORTED: "aborted"}
