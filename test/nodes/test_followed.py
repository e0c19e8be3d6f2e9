"""A recorder asks for what publishers offer, so that none of them warns of it."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from vla_ros.nodes.followed import Followed
from vla_ros.nodes.qos import STATUS_QOS, profile

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


class Handle(list):
    """Messages that wait to be taken."""

    def __enter__(self):
        return self

    def __exit__(self, *error): ...

    def take_message(self, kind, raw):
        return self.pop(0) if self else None


class Node:
    """Subscribes to what the test hands out."""

    def __init__(self):
        self.alive = []

    def create_subscription(self, kind, topic, callback, *, qos_profile, raw, event_callbacks=None):
        made = SimpleNamespace(callback=callback, qos=qos_profile, raw=raw, msg_type=kind, handle=Handle())
        self.alive.append(made)
        return made

    def destroy_subscription(self, subscription):
        self.alive.remove(subscription)


def follow(reliable, latched=False):
    node, taken = Node(), []
    made = Followed(node, "/joint_states", object, 10, latched, lambda data, ns: taken.append(data), print, reliable)
    return node, made, taken


def offered(*profiles):
    return [SimpleNamespace(qos_profile=one) for one in profiles]


def test_a_driver_of_best_effort_is_never_asked_for_more():
    node, followed, _ = follow(reliable=False)
    unsure = profile(5, reliable=False)
    for offers in ([], offered(unsure), offered(unsure, profile(5, reliable=True))):
        followed.look(offers)
        assert [one.qos.reliability for one in node.alive] == [BEST_EFFORT]
    followed.look(offered(profile(5, reliable=True)))  # the one of best effort may come again
    assert [one.qos.reliability for one in node.alive] == [BEST_EFFORT]


def test_reliable_drivers_are_heard_reliably_and_nothing_is_lost_or_taken_twice_on_the_way():
    node, followed, taken = follow(reliable=False)
    followed.look(offered(profile(5, reliable=True)))
    before, now = node.alive
    assert (before.qos.reliability, now.qos.reliability) == (BEST_EFFORT, RELIABLE)
    before.callback(b"one", {"source_timestamp": 1})  # the new one is not discovered yet
    before.callback(b"two", {"source_timestamp": 2})
    now.callback(b"two", {"source_timestamp": 2})
    before.handle.append((b"three", {"source_timestamp": 3}))
    followed.look(offered(profile(5, reliable=True)))
    assert node.alive == [now] and taken == [b"one", b"two", b"three"]
    followed.look(offered(profile(5, reliable=True), profile(5, reliable=False)))
    followed.destroy()
    assert node.alive == []


def test_what_is_latched_is_asked_for_where_all_of_them_keep_it():
    node, followed, _ = follow(reliable=True)
    followed.look(offered(STATUS_QOS))
    followed.look(offered(STATUS_QOS))
    assert [one.qos.durability for one in node.alive] == [DurabilityPolicy.TRANSIENT_LOCAL] and followed.latched
