"""What the console does with presses and tasks, beside a made-up task_node: nothing begins after a stop."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from vla_ros.core.errors import InputError
from vla_ros.nodes.console import hands as module
from vla_ros.nodes.console.hands import Hands


class Future:
    """As rclpy's, done at once where it has a result."""

    def __init__(self, result: Any = None) -> None:
        self._result, self._calls = result, []

    def result(self) -> Any:
        return self._result

    def exception(self) -> None:
        return None

    def add_done_callback(self, call: Any) -> None:
        if self._result is None:
            self._calls.append(call)
        else:
            call(self)

    def end(self, result: Any) -> None:
        self._result = result
        for call in self._calls:
            call(self)


class Task:
    """A goal's handle; `cancels`: what task_node answers, None where it does not."""

    def __init__(self, cancels: Any = None) -> None:
        self.accepted, self.cancelled, self._cancels = True, 0, cancels

    def cancel_goal_async(self) -> Future:
        self.cancelled += 1
        return Future(self._cancels)

    def get_result_async(self) -> Future:
        return Future()


class Node:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def create_publisher(self, kind: Any, topic: str, qos: Any) -> Any:
        return SimpleNamespace(publish=lambda message: self.said.append(message.data))

    def create_client(self, kind: Any, name: str) -> Any:
        return SimpleNamespace(service_is_ready=lambda: False)

    def get_logger(self) -> Any:
        return SimpleNamespace(error=lambda words: None, warning=lambda words: None)


@pytest.fixture
def hands(monkeypatch):
    monkeypatch.setattr(module, "ANSWER", 0.05)
    monkeypatch.setattr(module, "STOP_ANSWER", 0.05)
    monkeypatch.setattr(module, "ActionClient", lambda *given: SimpleNamespace(
        server_is_ready=lambda: True, send_goal_async=lambda goal, feedback_callback: made.sent))
    made = Hands(Node())
    made.sent = Future()
    return made


def run(hands: Hands, scenario: Any) -> None:
    async def inside() -> None:
        hands.loop = asyncio.get_running_loop()
        await scenario()

    asyncio.run(inside())


def test_a_task_that_is_accepted_late_is_called_off(hands):
    task = Task()

    async def scenario() -> None:
        with pytest.raises(InputError, match="did not answer"):
            await hands.start("me", "go", 0.0)

    run(hands, scenario)
    hands.sent.end(task)
    assert task.cancelled == 1 and hands.task is None


def test_so_is_one_that_is_stopped_before_it_is_accepted(hands):
    task = Task()

    async def scenario() -> None:
        starting = asyncio.create_task(hands.start("me", "go", 0.0))
        await asyncio.sleep(0)
        assert "stopped" in await hands.stop(False, "")
        hands.sent.end(task)
        with pytest.raises(InputError, match="before it began"):
            await starting

    run(hands, scenario)
    assert task.cancelled == 1 and hands.task is None and hands._node.said == [""]


@pytest.mark.parametrize("answer", [None, SimpleNamespace(goals_canceling=[])])
def test_a_stop_needs_no_task_node(hands, answer):
    hands.sent = Future(Task(answer))

    async def scenario() -> None:
        await hands.start("me", "go", 0.0)
        await hands.stop(False, "go")

    run(hands, scenario)
    assert hands._node.said == [""] and hands.task is None


def test_a_task_that_is_taken_back_needs_no_message(hands):
    hands.sent = Future(Task(SimpleNamespace(goals_canceling=["it"])))

    async def scenario() -> None:
        await hands.start("me", "go", 0.0)
        assert "resumed" in await hands.stop(True, "go")
        assert hands.paused == "go"
        hands.heard("something else, from another program")
        assert hands.paused == ""

    run(hands, scenario)
    assert hands._node.said == []


def test_a_press_is_repeated_and_told_of_where_nobody_stops(hands, monkeypatch):
    now = 10.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    hands.press()
    assert not hands.look(False) and hands._node.said == [True, True]

    async def scenario() -> None:
        with pytest.raises(InputError, match="e-stop is pressed"):
            await hands.reset("me", "all is clear")

    run(hands, scenario)
    now += module.PRESS_TIME
    assert hands.look(False) and not hands.look(False) and not hands.pressing
    hands.press()
    assert not hands.look(True) and not hands.pressing
