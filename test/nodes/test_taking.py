"""Serialized messages are taken without the interpreter's lock, and too large ones are not handed over."""

import sys
import threading
import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built")

from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.serialization import serialize_message
from std_msgs.msg import String
from system.support import free_domain

from vla_ros.nodes import base
from vla_ros.nodes.bounded import subscribe_bounded, subscribe_raw
from vla_ros.nodes.qos import COMMAND_QOS
from vla_ros.nodes.taking import NodeExecutor, Withheld, take

LIMIT = 100
LARGE = serialize_message(String(data="x" * 20_000_000))
SMALL = serialize_message(String(data="go"))


@pytest.fixture
def nodes():
    """Of a publisher and of a subscriber, each in a context of its own."""
    domain, made = free_domain(), []
    for name in ("says", "hears"):
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        made.append(rclpy.create_node(name, context=context))
    yield made
    for node in made:
        node.destroy_node()
        rclpy.try_shutdown(context=node.context)


def until(done, step=lambda: time.sleep(0.01)):
    end = time.monotonic() + 30.0
    while not done():
        assert time.monotonic() < end, "nothing came"
        step()


def test_the_executor_of_every_node_withholds_what_is_too_large(nodes):
    says, hears = nodes
    got, refused, texts = [], [], []
    subscribe_raw(hears, String, "texts", got.append, COMMAND_QOS, LIMIT)
    subscribe_bounded(hears, String, "texts", lambda m: texts.append(m.data), COMMAND_QOS,
                      lambda reason, words: refused.append((reason, words)), LIMIT)  # fmt: skip
    publisher = says.create_publisher(String, "texts", COMMAND_QOS)
    executor = NodeExecutor(context=hears.context)
    executor.add_node(hears)
    until(lambda: publisher.get_subscription_count() == 2)
    publisher.publish(LARGE)
    publisher.publish(SMALL)
    until(lambda: len(got) == 2 and texts, lambda: executor.spin_once(timeout_sec=0.1))
    assert got == [Withheld(len(LARGE)), SMALL] and texts == ["go"]
    assert refused == [("size", f"texts: a message of {len(LARGE)} bytes, limit {LIMIT}")]
    executor.shutdown()
    assert base.NodeExecutor is NodeExecutor and not hasattr(base, "SingleThreadedExecutor")
    assert hasattr(SingleThreadedExecutor, "_take_subscription")  # which ours replaces


def test_other_threads_go_on_while_a_message_is_taken(nodes):
    """With a switch interval of minutes a thread gets the lock only where its holder gives it away."""
    says, hears = nodes
    subscription = hears.create_subscription(String, "texts", lambda m: None, COMMAND_QOS, raw=True)
    publisher = says.create_publisher(String, "texts", COMMAND_QOS)
    until(lambda: publisher.get_subscription_count() == 1)

    def ran_meanwhile() -> bool:
        ran, begin = [], threading.Event()
        thread = threading.Thread(target=lambda: begin.wait() and ran.append(1))
        thread.start()
        publisher.publish(LARGE)
        waiting.clear_entities()
        waiting.add_subscription(subscription.handle)
        waiting.wait(30_000_000_000)
        begin.set()
        taken, meanwhile = take(subscription.handle, LIMIT), bool(ran)
        thread.join()
        assert taken[0] == Withheld(len(LARGE))
        return meanwhile

    waiting = rclpy_implementation.WaitSet(1, 0, 0, 0, 0, 0, hears.context.handle)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(600.0)
    try:
        assert any(ran_meanwhile() for _ in range(20))
    finally:
        sys.setswitchinterval(interval)
