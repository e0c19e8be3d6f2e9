"""Which of several instructions counts, and when one is said again, in explicit time."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rclpy.serialization import serialize_message
from std_msgs.msg import String

from vla_ros.core.instruction import instruction_id
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.bounded import subscribe_instruction
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, profile
from vla_ros.nodes.task_node import Repeat


class Node:
    """Subscribes to what the test hands out."""

    def __init__(self):
        self.made, self.publishers, self.heard, self.destroyed = [], [], [], []
        subscribe_instruction(self, self.heard.append)

    def create_subscription(self, kind, topic, callback, qos, **options):
        self.made.append(SimpleNamespace(callback=callback, qos=qos, topic_name=f"/{topic}"))
        return self.made[-1]

    def destroy_subscription(self, subscription):
        self.destroyed.append(subscription)

    def create_steady_timer(self, period, callback):
        self.look = callback

    def get_publishers_info_by_topic(self, topic):
        assert topic == "/instruction"
        return self.publishers

    def deliver(self, which, text, sent_ns):
        self.made[which].sent_ns = sent_ns
        self.made[which].callback(serialize_message(String(data=text)))


def test_what_a_publisher_keeps_counts_unless_it_is_older():
    node = Node()
    node.publishers.append(SimpleNamespace(qos_profile=COMMAND_QOS))
    node.look()
    assert len(node.made) == 1  # another one would only be warned of by every publisher
    node.deliver(0, "", sent_ns=20)
    node.publishers.append(SimpleNamespace(qos_profile=STATUS_QOS))
    node.look()
    node.look()
    assert [made.qos.durability for made in node.made] == [DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL]
    assert node.made[0].completed_by == (node.made[1],)  # goes when the first one does
    node.deliver(1, "before the stop", sent_ns=10)
    assert node.heard == [""]
    node.deliver(0, "go", sent_ns=30)
    node.deliver(1, "go", sent_ns=30)
    assert node.heard == ["", "go"]
    node.deliver(1, "kept", sent_ns=40)  # sent before the first subscription was matched
    assert node.heard == ["", "go", "kept"]


def test_a_publisher_of_best_effort_is_heard_and_nothing_is_heard_twice():
    node = Node()
    node.publishers.append(SimpleNamespace(qos_profile=profile(1, reliable=False)))
    node.look()
    node.look()
    assert [made.qos.reliability for made in node.made] == [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT]
    node.deliver(1, "go", sent_ns=10)
    node.deliver(1, "of a reliable one", sent_ns=20)
    node.deliver(0, "of a reliable one", sent_ns=20)
    node.deliver(0, "", sent_ns=30)
    node.deliver(1, "", sent_ns=30)
    assert node.heard == ["go", "of a reliable one", ""]
    node.publishers.append(SimpleNamespace(qos_profile=STATUS_QOS))
    node.look()
    assert node.made[0].completed_by == (node.made[1], node.made[2])
    node.publishers = []
    node.look()
    assert node.destroyed == [node.made[1]]  # it would be counted as a listener of its own
    assert node.made[0].completed_by == (node.made[2],)


@pytest.fixture
def clock(monkeypatch):
    moment = [100.0]
    monkeypatch.setattr("vla_ros.nodes.task_node.time.monotonic", lambda: moment[0])
    return moment


def policy(text, taken, state=PolicyStatus.IDLE):
    return PolicyStatus(state=state, instruction_id=instruction_id(text), instructions=taken)


def executor(text, taken, state=ExecutorStatus.HOLDING):
    return ExecutorStatus(state=state, instruction_id=instruction_id(text), instructions=taken)


BEFORE = {"policy_node": policy("", 3), "executor_node": executor("", 4)}


@pytest.mark.parametrize(
    ("afterwards", "missed", "over"),
    [
        ((policy("go", 4), executor("go", 5)), [], True),
        ((policy("go", 4), executor("", 4)), ["executor_node"], False),
        ((policy("", 3), executor("go", 5)), ["policy_node"], False),
        ((policy("", 3), executor("", 4)), ["policy_node", "executor_node"], False),
        # Told to stop, or something else, since: that is newer, whoever missed it.
        ((policy("", 3), executor("", 5)), [], True),
        ((policy("", 3), executor("", 6)), [], True),
        ((policy("", 3), executor("push", 6)), [], True),
        ((policy("go", 4), executor("", 0, ExecutorStatus.UNCONFIGURED)), [], True),  # it was configured anew
    ],
)
def test_who_missed_an_instruction_is_told_again(clock, afterwards, missed, over):
    repeat = Repeat("go", BEFORE)
    now = {name: (status, 100.9) for name, status in zip(BEFORE, afterwards, strict=True)}
    clock[0] = 100.9
    assert repeat.missed(now) == [] and not repeat.over  # it may be on its way
    clock[0] = 101.1
    assert (repeat.missed(now), repeat.over) == (missed, over)
    clock[0] = 101.2
    assert repeat.missed(now) == []


def test_who_says_nothing_is_not_told_and_nobody_is_after_a_while(clock):
    repeat = Repeat("go", BEFORE)
    clock[0] = 105.0
    silent = {name: (status, 99.0) for name, status in BEFORE.items()}
    assert repeat.missed(silent) == [] and not repeat.over
    clock[0] = 109.0
    assert repeat.missed(silent | {"policy_node": (policy("", 3), 108.9)}) == ["policy_node"]
    clock[0] = 111.0
    assert repeat.missed(silent | {"policy_node": (policy("", 3), 110.9)}) == [] and repeat.over
