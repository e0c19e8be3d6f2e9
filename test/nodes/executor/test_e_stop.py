"""The e-stop of a node that nobody spins: whatever keeps the node's thread busy, its own thread hears and answers."""

import threading
import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built")

from rclpy.event_handler import PublisherEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import QoSPolicyKind
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger
from system.support import free_domain

from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, profile

UNCONFIGURED, INACTIVE, E_STOPPED = ExecutorStatus.UNCONFIGURED, ExecutorStatus.INACTIVE, ExecutorStatus.E_STOPPED


class Peer:
    """An operator in a context of its own."""

    def __init__(self, domain: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("operator", context=self.context, namespace="left")
        self.statuses: list[ExecutorStatus] = []
        self.warnings: list[QoSPolicyKind] = []  # of publishers that cannot be heard by a subscription
        self.node.create_subscription(ExecutorStatus, "executor_node/status", self.statuses.append, STATUS_QOS)
        self.reset_client = self.node.create_client(Trigger, "executor_node/reset_e_stop")
        self.stop_client = self.node.create_client(SetBool, "executor_node/e_stop")
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def publisher(self, qos, readers: int = 1):
        callbacks = PublisherEventCallbacks(incompatible_qos=lambda event: self.warnings.append(event.last_policy_kind))
        made = self.node.create_publisher(Bool, "e_stop", qos, event_callbacks=callbacks)
        self.wait_for(lambda: made.get_subscription_count() >= readers)
        return made

    def wait_for(self, accept, patience: float = 30.0):
        end = time.monotonic() + patience
        while not (found := accept()):
            assert time.monotonic() < end, "nothing came"
            self.executor.spin_once(timeout_sec=0.01)
        return found

    def wait_state(self, state: int) -> ExecutorStatus:
        self.wait_for(lambda: self.statuses and self.statuses[-1].state == state)
        return self.statuses[-1]

    def call(self, client, request):
        self.wait_for(client.service_is_ready)
        future = client.call_async(request)
        self.wait_for(future.done)
        return future.result()

    def reset(self) -> Trigger.Response:
        return self.call(self.reset_client, Trigger.Request())

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def peer():
    made = Peer(free_domain())
    yield made
    made.close()


@pytest.fixture
def make_node(peer, unspun):
    """In the peer's domain."""
    with unspun(peer.context.get_domain_id(), namespace="left") as make:
        yield make


KINDS = {
    "reliable": (COMMAND_QOS, 2),
    "best effort": (profile(10, reliable=False), 1),
    "transient local": (STATUS_QOS, 3),
    "best effort, transient local": (profile(1, reliable=False, latched=True), 1),
}


def test_every_kind_of_publisher_latches_and_a_reset_unlatches(peer, make_node):
    make_node()
    assert peer.wait_state(UNCONFIGURED).message == ""
    for kind, (qos, readers) in KINDS.items():
        button = peer.publisher(qos, readers)
        button.publish(Bool(data=False))
        button.publish(Bool(data=True))
        while kind.startswith("best effort") and peer.statuses[-1].state != E_STOPPED:  # may get lost: says it again
            button.publish(Bool(data=True))
            peer.executor.spin_once(timeout_sec=0.1)
        assert peer.wait_state(E_STOPPED).message == "topic /left/e_stop", kind
        button.publish(Bool(data=False))
        assert not peer.call(peer.stop_client, SetBool.Request(data=False)).success
        assert peer.statuses[-1].state == E_STOPPED
        assert peer.reset().message == "was latched by topic /left/e_stop"
        if kind == "reliable":
            assert not peer.warnings
        peer.wait_for(lambda: peer.statuses[-1].state == UNCONFIGURED or not peer.reset())
    assert peer.call(peer.stop_client, SetBool.Request(data=True)).success
    assert peer.wait_state(E_STOPPED).message == "service e_stop"
    assert peer.reset().success and peer.reset().message == "was not latched"


def test_what_was_latched_before_the_node_began_counts_in_every_state(peer, make_node):
    button = peer.publisher(STATUS_QOS, readers=0)
    button.publish(Bool(data=True))
    node = make_node()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    peer.wait_for(lambda: node.count_publishers("/left/e_stop"))
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    assert node._refusal.startswith("e-stop is latched")  # it was not too early to know
    peer.wait_for(lambda: peer.statuses and peer.statuses[-1].names and peer.statuses[-1].state == E_STOPPED)
    assert peer.reset().success
    peer.wait_state(INACTIVE)
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    peer.wait_state(UNCONFIGURED)


def test_latching_waits_for_no_lock(peer, make_node):
    node = make_node()
    button = peer.publisher(COMMAND_QOS, readers=2)
    with node._lock:
        button.publish(Bool(data=True))
        peer.wait_for(lambda: node._e_stop.latched)
    peer.wait_state(E_STOPPED)


def test_one_true_in_a_flood_of_false_and_of_rubbish(peer, make_node):
    node = make_node()
    flood, button = peer.publisher(COMMAND_QOS, readers=2), peer.publisher(COMMAND_QOS, readers=2)
    for number in range(20_000):  # more than any queue of the node holds
        flood.publish(Bool(data=False))
        if number % 100 == 0:
            flood.publish(bytes([0, 1, 0, 0]))  # a header and nothing behind it
        if number == 1000:
            button.publish(Bool(data=True))
    peer.wait_for(lambda: node._e_stop.latched)
    assert all(subscription.is_cft_enabled() for subscription in node._e_stop._subscriptions)


def test_a_button_that_falls_silent_latches_until_it_is_heard_again(peer, make_node):
    node = make_node(e_stop_heartbeat=0.5)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    words = "e_stop_heartbeat: nothing has arrived on /left/e_stop yet, expected a message every 0.5 s"
    peer.wait_for(lambda: any(status.message == words for status in peer.statuses))
    peer.wait_state(INACTIVE)  # not latched: nothing has moved, and nothing will
    button = peer.publisher(COMMAND_QOS, readers=2)
    button.publish(Bool(data=False))
    assert "/left/e_stop has been silent for 0." in peer.wait_state(E_STOPPED).message
    response = peer.reset()
    assert not response.success and response.message.startswith("stays latched: /left/e_stop has been silent for")

    def heard() -> bool:
        button.publish(Bool(data=False))
        return peer.reset().success

    peer.wait_for(heard)
    peer.wait_state(INACTIVE)
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE  # for want of joint states
    peer.wait_for(lambda: "silent" in peer.statuses[-1].message)


def test_nothing_of_it_is_left_when_the_node_is_gone(peer, make_node):
    make_node().destroy_node()
    assert "e_stop" not in [thread.name for thread in threading.enumerate()]
