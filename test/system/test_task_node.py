"""What a client of run_instruction sees; the test plays policy and executor, so nothing depends on speed."""

import pytest
from rclpy.action import ActionClient
from std_msgs.msg import Bool, String

from vla_ros.action import RunInstruction
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.qos import STATUS_QOS

STILL_UNWELL = (RunInstruction.Result.NOT_ACTIVE, RunInstruction.Result.STOPPED, RunInstruction.Result.E_STOPPED)


class Client:
    """A client of the action, with the statuses of the other two nodes in its hands."""

    def __init__(self, graph, probe):
        self.graph, self.probe = graph, probe
        probe.record("instruction", String)
        graph.start("task_node", parameters={"silence_limit": 60.0})
        graph.bring_up("task_node")
        self.policy = probe.publisher("policy_node/status", PolicyStatus, STATUS_QOS)
        self.executor = probe.publisher("executor_node/status", ExecutorStatus, STATUS_QOS)
        self.instructions = probe.publisher("instruction", String, readers=2)  # task_node and the probe
        self.client = ActionClient(graph.node, RunInstruction, "run_instruction")
        probe.wait_for(self.client.server_is_ready, "the action server")
        self.feedback = []

    def say(self, executor=ExecutorStatus.HOLDING, policy=PolicyStatus.IDLE, words=""):
        self.policy.publish(PolicyStatus(state=policy))
        self.executor.publish(ExecutorStatus(state=executor, message=words))

    def send(self, text, **fields):
        future = self.client.send_goal_async(
            RunInstruction.Goal(instruction=text, **fields),
            feedback_callback=lambda message: self.feedback.append(message.feedback),
        )
        self.probe.wait_for(future.done, "the answer to the goal")
        assert future.result().accepted
        return future.result()

    def result(self, handle):
        future = handle.get_result_async()
        self.probe.wait_for(future.done, "the result")
        return future.result().result

    def begun(self, text, **fields):
        """Sends until the statuses have reached task_node: a goal before that ends at once, which is right."""
        for _ in range(600):
            self.say()
            before = len(self.probe.messages("instruction"))
            handle = self.send(text, **fields)
            future = handle.get_result_async()

            def answered(future=future, before=before):
                return future.done() or any(m.data == text for m in self.probe.messages("instruction")[before:])

            self.probe.wait_for(answered, "the instruction or a refusal")
            if not future.done():
                return handle
            assert future.result().result.error_code in STILL_UNWELL
        pytest.fail("task_node never heard the statuses")

    def last_instruction(self, text):
        self.probe.wait_for(lambda: self.probe.last("instruction").data == text, f"instruction {text!r}")


def test_tasks_end_with_a_code_and_take_their_instruction_back(graph, probe):
    client = Client(graph, probe)
    codes = RunInstruction.Result

    # Goals that cannot begin get a result with the reason.
    result = client.result(client.send("   "))
    assert result.error_code == codes.INVALID_GOAL and "instruction: empty" in result.message
    for topic in ("not a topic", "{unknown}", "instruction"):  # the last one is known to carry another type
        result = client.result(client.send("go", success_topic=topic))
        assert result.error_code == codes.INVALID_GOAL and f"success_topic {topic!r}: " in result.message

    # Success by a topic; feedback on the way.
    handle = client.begun("touch the red cube", success_topic="done")
    probe.wait_for(lambda: client.feedback, "feedback")
    assert client.feedback[-1].executor_state == ExecutorStatus.HOLDING
    done = probe.publisher("done", Bool)
    done.publish(Bool(data=False))
    done.publish(Bool(data=True))
    result = client.result(handle)
    assert result.error_code == codes.SUCCESS and "done said true" in result.message and result.elapsed >= 0
    client.last_instruction("")

    # Canceled by the client.
    handle = client.begun("touch the blue cube")
    handle.cancel_goal_async()
    assert client.result(handle).error_code == codes.CANCELED
    client.last_instruction("")

    # Out of time.
    assert client.result(client.begun("wave", time_limit=0.2)).error_code == codes.TIME_LIMIT
    client.last_instruction("")

    # A newer goal takes over; then a plain message does, and keeps its instruction.
    first = client.begun("touch the green cube")
    second = client.begun("pick up the green cube")
    result = client.result(first)
    assert result.error_code == codes.PREEMPTED and "pick up the green cube" in result.message
    client.instructions.publish(String(data="rest"))
    assert client.result(second).error_code == codes.PREEMPTED
    client.last_instruction("rest")

    # The executor stops, or is stopped.
    for state, code in (
        (ExecutorStatus.STOPPED, codes.STOPPED),
        (ExecutorStatus.E_STOPPED, codes.E_STOPPED),
        (ExecutorStatus.INACTIVE, codes.NOT_ACTIVE),
    ):
        handle = client.begun(f"push the red cube, {code}")
        client.say(executor=state, words="elbow is 0.4 rad behind")
        result = client.result(handle)
        assert result.error_code == code
        if code != codes.NOT_ACTIVE:
            assert result.message == "elbow is 0.4 rad behind"
        client.last_instruction("")

    # The task node goes away: its task ends first.
    handle = client.begun("touch the red cube")
    graph.deactivate("task_node")
    assert client.result(handle).error_code == codes.NOT_ACTIVE
    client.last_instruction("")
