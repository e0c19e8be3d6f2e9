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
    _take_marks(Node, "ann", Judgements())
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


def test_an_answer_is_of_the_instruction_that_was_asked_for(monkeypatch, capsys):
    """Also where another one, of the same text even, is in force by then."""
    marks, said = [], Judgements()

    class Node:
        mark = staticmethod(lambda *mark: marks.append(mark))

    for now, text in ((100, "wave"), (200, "point"), (300, "wave")):
        said.instructed(text, now)
    said.unasked()
    monkeypatch.setattr(sys, "stdin", io.StringIO("s\nf it fell\na\n"))
    _take_marks(Node, "ann", said)
    assert marks == [(Outcome.SUCCESS, "ann", "", "wave", 150), (Outcome.FAILURE, "ann", "it fell", "point", 250),
                     (Outcome.ABORTED, "ann", "")]  # fmt: skip
    assert capsys.readouterr().out.splitlines()[1] == "noted: failure of 'point': it fell"
    for outcome, _, _, *which in marks:
        said.judged(OUTCOMES[outcome], *which or ("", 350))
    assert [one.outcome for one in said.all] == ["success", "failure", "aborted"]
