"""A task's instruction is one that an executor waits for which stood for a while."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import String

from vla_ros.action import RunInstruction
from vla_ros.control.task import Outcome
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes import task_node
from vla_ros.nodes.task_node import TaskNode


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = TaskNode(context=context)
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    node.said = []
    node._instructions = SimpleNamespace(publish=lambda message: node.said.append(message))
    yield node
    node._run = None
    node.end()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def executor_says(node: TaskNode, state: int, cause: int = 0) -> None:
    now = time.monotonic()
    node._newest = {"policy_node": (PolicyStatus(state=PolicyStatus.RUNNING), now),
                    "executor_node": (ExecutorStatus(state=state, cause=cause, message="stood"), now)}
    node._look()


def accepted(node: TaskNode) -> Any:
    """The run that a goal makes."""
    handle = SimpleNamespace(request=RunInstruction.Goal(instruction="go"), execute=lambda: None,
                             is_cancel_requested=False, publish_feedback=lambda feedback: None)
    node._accept(handle)
    return node._waiting[-1]


STOPPED, UNCONFIRMED = ExecutorStatus.STOPPED, ExecutorStatus.CAUSE_UNCONFIRMED


def test_a_task_confirms_and_ends_with_the_next_stop(node):
    executor_says(node, STOPPED, UNCONFIRMED)
    run = accepted(node)
    assert node.said == [String(data="go")]
    executor_says(node, STOPPED, UNCONFIRMED)  # it has not heard it yet
    executor_says(node, ExecutorStatus.HOLDING, ExecutorStatus.CAUSE_NO_CHUNK)
    assert not run.done.done()
    executor_says(node, STOPPED, ExecutorStatus.CAUSE_STALE_JOINT_STATES)
    assert run.done.result()[0] is Outcome.STOPPED


def test_one_that_confirms_nothing_ends(node, monkeypatch):
    monkeypatch.setattr(task_node, "CONFIRMED_WITHIN", 0.0)
    executor_says(node, STOPPED, UNCONFIRMED)
    run = accepted(node)
    executor_says(node, STOPPED, UNCONFIRMED)
    assert run.done.result()[0] is Outcome.STOPPED


def test_another_stop_and_one_that_comes_on_the_way_end_it(node):
    executor_says(node, STOPPED, ExecutorStatus.CAUSE_STALE_JOINT_STATES)
    assert accepted(node).done.result()[0] is Outcome.STOPPED and node.said == []
    executor_says(node, ExecutorStatus.EXECUTING)
    run = accepted(node)
    executor_says(node, STOPPED, UNCONFIRMED)
    assert run.done.result()[0] is Outcome.STOPPED
