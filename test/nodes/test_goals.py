"""Goals to an action; a robot's own actions in front of the executor: test/system/test_controllers.py."""

import threading
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.action import ActionServer, GoalResponse
from rclpy.executors import SingleThreadedExecutor
from system.support import free_domain

from vla_ros.action import RunInstruction
from vla_ros.core.robot import CommandGroup
from vla_ros.nodes import goals
from vla_ros.nodes.goals import GripperGoals


@pytest.fixture
def context():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=free_domain())
    yield context
    context.shutdown()


def test_a_server_that_answers_later_than_the_next_goal_is_sent_is_heard(context, monkeypatch):
    """Every goal is answered when two newer ones were sent: first all are rejected, then all are taken."""
    monkeypatch.setattr(goals, "action_class", lambda interface: RunInstruction)  # an action that is here anywhere
    group = CommandGroup("hand", interface="gripper_command", joints=("grip",), action="hand/grip")
    client_node = rclpy.create_node("client", context=context)
    server_node = rclpy.create_node("server", context=context)
    sent, ends, answer = [], threading.Event(), [GoalResponse.REJECT]

    class Busy(GripperGoals):
        def due(self, again):
            sent.append(RunInstruction.Goal(instruction=str(len(sent))))
            return sent[-1]

    def accept(goal):
        while len(sent) < int(goal.instruction) + 3 and not ends.is_set():
            ends.wait(0.005)
        return answer[0]

    def carry_out(handle):
        handle.succeed()
        return RunInstruction.Result()

    server = ActionServer(server_node, RunInstruction, "hand/grip", carry_out, goal_callback=accept)
    busy = Busy(client_node, group, 1.0)
    executors = []
    for node in (client_node, server_node):
        executors.append(SingleThreadedExecutor(context=context))
        executors[-1].add_node(node)
    serving = threading.Thread(target=lambda: executors[1].spin_until_future_complete(over), daemon=True)
    over = rclpy.task.Future()
    serving.start()

    def until(condition):
        for _ in range(2000):
            if condition():
                return
            executors[0].spin_once(timeout_sec=0.05)
        raise AssertionError(busy.trouble)

    try:
        until(lambda: busy.trouble == "the action hand/grip rejected a goal of hand")
        answer[0] = GoalResponse.ACCEPT
        until(lambda: busy.trouble == "")
    finally:
        ends.set()
        busy.close()
        over.set_result(None)
        executors[1].wake()
        serving.join(10.0)
        server.destroy()
        for executor in executors:
            executor.shutdown()


@pytest.mark.parametrize("effort", [0.0, 5.0])
def test_a_goal_of_a_parallel_gripper_names_its_joint(context, monkeypatch, effort):
    class Goal:
        def __init__(self):
            self.command = SimpleNamespace(name=[], position=[], effort=[])

    monkeypatch.setattr(goals, "action_class", lambda interface: SimpleNamespace(Goal=Goal))
    monkeypatch.setattr(goals, "ActionClient", lambda *_: SimpleNamespace(destroy=lambda: None))
    group = CommandGroup(
        "hand", interface="parallel_gripper_command", joints=("grip",), action="hand/grip", max_effort=effort
    )
    node = rclpy.create_node("client", context=context)
    gripper = GripperGoals(node, group, span=0.08)
    gripper.take([0.02], None, 0.01, 0.0)
    assert gripper.due(again=False) is None  # where it stands
    gripper.take([0.05], None, 0.01, 0.0)
    command = gripper.due(again=False).command
    assert (command.name, command.position, command.effort) == (["grip"], [0.05], [5.0] if effort else [])
    gripper.close()
