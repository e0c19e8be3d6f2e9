"""The keys of `vla-ros record`."""

import io
import sys

from vla_ros.bags.index import OUTCOMES
from vla_ros.bags.judged import Judgements
from vla_ros.cli.record import _take_marks
from vla_ros.msg import Outcome


def test_each_key_is_an_outcome_and_is_answered(monkeypatch, capsys):
    marks = []

    class Node:
        mark = staticmethod(lambda *said: marks.append(said))

    monkeypatch.setattr(sys, "stdin", io.StringIO("s\n F  it slipped \nwhat\n\nABORTED\n"))
    _take_marks(Node, "ann")
    assert marks == [(Outcome.SUCCESS, "ann", ""), (Outcome.FAILURE, "ann", "it slipped"), (Outcome.ABORTED, "ann", "")]
    success, failure, advice, aborted = capsys.readouterr().out.splitlines()
    assert [success, failure, aborted] == ["noted: success", "noted: failure: it slipped", "noted: aborted"]
    assert advice.startswith("s, f or a")
    assert OUTCOMES == {Outcome.SUCCESS: "success", Outcome.FAILURE: "failure", Outcome.ABORTED: "aborted"}


def test_what_ended_without_an_outcome_is_asked_for_once():
    """As datasets have it: an outcome is of the instruction that it names, else of the last one."""
    said = Judgements()
    for text in ("wave", "wave", "", "point", "wave"):
        said.instructed(text)
    assert [one.instruction for one in said.all] == ["wave", "point", "wave"]
    assert [one.instruction for one in said.unasked()] == ["wave", "point"] and not said.unasked()
    said.judged("failure", "point")
    said.judged("success", "")
    said.judged("failure", "something else")
    said.instructed("")
    assert not said.unasked()
    assert str(said) == "1 failure, 1 success, 1 without an outcome"
    assert str(Judgements()) == "no instruction"
