"""What the terminal says about states, and that no message of a stranger ends it."""

import io
from argparse import Namespace

import pytest

pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from core.test_terminal import MARKUP, STEERING
from rich.live import Live

from vla_ros.cli import top
from vla_ros.core.terminal import Terminal
from vla_ros.graph.watch import Display, Watch, milliseconds
from vla_ros.msg import ActionChunk, ExecutorStatus, PolicyStatus
from vla_ros.nodes.names import CAUSES, EXECUTOR_STATES, POLICY_STATES

NAN, INF = float("nan"), float("inf")


def test_every_state_and_cause_has_its_name():
    assert POLICY_STATES[PolicyStatus.WAITING] == "waiting" and sorted(POLICY_STATES) == list(range(6))
    assert EXECUTOR_STATES[ExecutorStatus.APPROACHING] == "approaching" and sorted(EXECUTOR_STATES) == list(range(8))
    assert CAUSES[ExecutorStatus.CAUSE_POLICY_GONE] == "policy gone" and sorted(CAUSES) == list(range(12))


def test_a_value_without_a_name_is_said_as_it_is():
    assert POLICY_STATES[99] == EXECUTOR_STATES[99] == CAUSES[99] == "unknown (99)"


def test_times_that_are_none_are_dashes():
    assert milliseconds(0.0123) == "12.3 ms"
    assert milliseconds(float("nan")) == "–"


def test_who_watches_sees_what_policy_and_executor_do_not_agree_on(monkeypatch):
    strangers, moment = Strangers(), [0.0]
    monkeypatch.setattr("vla_ros.graph.watch.time.monotonic", lambda: moment[0])
    watch = Watch(Namespace(node=strangers))
    strangers.count_publishers = lambda topic: 1
    take = {kind: lambda kind=kind, **fields: strangers.take[kind](kind(**fields)) for kind in strangers.take}
    assert watch.warnings() == []
    take[PolicyStatus](state=PolicyStatus.IDLE, instruction="go", instruction_id=5)
    take[ExecutorStatus](state=ExecutorStatus.HOLDING)
    assert watch.warnings() == []  # on its way
    moment[0] = 3.0
    assert watch.warnings() == ["the policy follows 'go', the executor no instruction: give the instruction again"]
    assert "the policy follows 'go'" in watch.summary()
    take[ExecutorStatus](state=ExecutorStatus.HOLDING, instruction="go", instruction_id=5)
    assert watch.warnings() == []
    take[PolicyStatus](state=PolicyStatus.UNCONFIGURED)  # it follows nothing yet
    moment[0] = 9.0
    assert watch.warnings() == []


def test_a_dry_run_is_seen():
    strangers = Strangers()
    watch = Watch(Namespace(node=strangers))
    strangers.take[ExecutorStatus](ExecutorStatus(state=ExecutorStatus.EXECUTING, dry_run=True))
    assert dict(watch.rows())["executor"].plain == "executing, dry run: commands nothing"
    assert "executor executing, dry run" in watch.summary()


def test_where_the_documentation_says_what_to_do():
    strangers = Strangers()
    watch = Watch(Namespace(node=strangers))
    take, page = strangers.take, "docs/troubleshooting.md#"
    take[PolicyStatus](PolicyStatus(state=PolicyStatus.WAITING))
    take[ExecutorStatus](ExecutorStatus(state=ExecutorStatus.STOPPED, cause=ExecutorStatus.CAUSE_UNCONFIRMED))
    assert watch.sections() == [f"{page}policy-waiting", f"{page}unconfirmed"]
    assert watch.summary().endswith(f"what to do: {page}policy-waiting {page}unconfirmed")
    take[PolicyStatus](PolicyStatus(state=PolicyStatus.RUNNING))
    no_chunk = {"state": ExecutorStatus.HOLDING, "cause": ExecutorStatus.CAUSE_NO_CHUNK}
    take[ExecutorStatus](ExecutorStatus(**no_chunk, last_refusal="jump: joint turn", refused_chunks=3))
    assert dict(watch.rows())["what to do"] == f"{page}no-chunk\n{page}refused-jump"
    for state, anchor in ((ExecutorStatus.E_STOPPED, "e-stopped"), (ExecutorStatus.INACTIVE, "inactive")):
        take[ExecutorStatus](ExecutorStatus(state=state))
        assert watch.sections() == [page + anchor]
    take[ExecutorStatus](ExecutorStatus(state=ExecutorStatus.EXECUTING, last_refusal="jump: once", refused_chunks=1))
    assert watch.sections() == [] and "what to do" not in dict(watch.rows())


def test_an_age_that_grows_is_said_once():
    console = Terminal(file=io.StringIO(), width=200)
    display = Display(console)
    for age in (0.26, 0.37, 12.4):
        display.show([], f"executor stopped, joint turn: {age:.3f} s old, limit 0.25 s")
    display.show([], "executor stopped, joint lift: 0.300 s old, limit 0.25 s")
    assert [line.split()[3] for line in console.file.getvalue().splitlines()] == ["turn:", "lift:"]


def test_a_state_that_comes_and_goes_does_not_fill_the_log(monkeypatch):
    moment = [0.0]
    monkeypatch.setattr("vla_ros.graph.watch.time.monotonic", lambda: moment[0])
    console = Terminal(file=io.StringIO(), width=200)
    display = Display(console)

    def shown(lines: str, period: float) -> str:
        console.file.truncate(console.file.seek(0))
        for line in lines:
            display.show([], line)
            moment[0] += period
        return console.file.getvalue().replace("\n", "")

    assert shown("abababab", 0.5) == "ab"
    assert shown("aaaaaaaaa", 0.5) == "a"  # it stays, and the last one shown was another
    assert shown("cd", 0.5) == "cd"  # what is new comes at once
    moment[0] += 10.0
    assert shown("abab", 0.5) == "ab"


class Strangers:
    """Stands for the graph: hands messages to whoever subscribes to their type."""

    def __init__(self) -> None:
        self.node, self.take = self, {}

    def create_subscription(self, kind, topic, callback, qos) -> None:
        self.take[kind] = callback

    def count_publishers(self, topic) -> int:
        return 2

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None: ...


class Drawn(Live):
    """Draws with every update, and not when its thread comes to it."""

    def __init__(self, **options) -> None:
        super().__init__(**options | {"auto_refresh": False})

    def update(self, renderable, **options) -> None:
        super().update(renderable, refresh=True)


def messages(text: str) -> list:
    numbers = [NAN, INF, -INF, 1e308]
    names = [text, text, "", "a"]
    return [
        PolicyStatus(state=3, message=text, instruction=text, policy=text, waiting_for=names, inference_time=NAN),
        PolicyStatus(state=99, rate=INF),
        ExecutorStatus(state=4, cause=99, message=text, names=names, position=numbers, measured=numbers,
                       velocity=numbers, deviation=numbers, reversals=numbers, limited_share=numbers,
                       limited=[text], refusal_reasons=names, refusal_counts=[1], last_refusal=text,
                       control_rate=NAN, lateness=INF, chunk_latency=-INF),
        ExecutorStatus(state=99, names=[text] * 10_000, position=[1.0] * 10_000, measured=[1.0] * 10_000,
                       velocity=[1.0] * 10_000, deviation=[1.0] * 10_000, reversals=[1.0] * 10_000,
                       limited_share=[1.0] * 10_000, refusal_counts=[1, 2]),
        ActionChunk(step_dt=INF, parts=[]), ActionChunk(step_dt=NAN), ActionChunk(step_dt=-1.0),
        ActionChunk(step_dt=1e300),
    ]  # fmt: skip


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("text", [MARKUP, STEERING, "long " * 100_000], ids=["markup", "steering", "long"])
def test_top_shows_whatever_comes(text, is_terminal, monkeypatch):
    """All of its rows, on a terminal and in a pipe, with each message of a stranger in turn."""
    strangers = Strangers()
    console = Terminal(file=io.StringIO(), force_terminal=is_terminal, width=200, height=500, color_system=None)
    todo, seen = messages(text), []
    moment = iter(range(1000))

    def wait(seconds: float) -> None:
        if not todo:
            raise KeyboardInterrupt
        message = todo.pop(0)
        strangers.take[type(message)](message)
        seen.append(message)

    monkeypatch.setattr("vla_ros.graph.peer.Graph", lambda *args, **options: strangers)
    monkeypatch.setattr("vla_ros.cli.top.Terminal", lambda: console)
    monkeypatch.setattr("vla_ros.graph.watch.Live", Drawn)
    monkeypatch.setattr(top.time, "sleep", wait)
    monkeypatch.setattr(top.time, "monotonic", lambda: float(next(moment)))
    with pytest.raises(KeyboardInterrupt):
        top.main(Namespace(namespace="", duration=0.0))
    assert not todo
    said = console.file.getvalue()
    assert "\x1b]" not in said and "\x1b[2J" not in said and "\x07" not in said
    assert "unknown (99)" in said and "2 nodes publish executor_node/status" in said
    if text == MARKUP:
        assert MARKUP in said
    assert len(said) < 500_000
