"""Publishes a bag: every message as it was recorded and, if requested, the time of its recording on /clock."""

import time
from collections.abc import Iterable
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock

from vla_ros.bags.player import PlayOptions, schedule, selected_topics
from vla_ros.bags.reader import Bag, TopicInfo
from vla_ros.bags.streams import CLOCK
from vla_ros.core.discovery import discovery_time
from vla_ros.core.errors import InputError
from vla_ros.messages.stamps import set_stamp
from vla_ros.nodes.commands import node_name
from vla_ros.nodes.qos import profile
from vla_ros.nodes.streams import message_class

LOOK = 1.0  # s between checks for other publishers
CLOCK_PERIOD = 0.01  # s between two /clock messages if the bag has none
DEPTH = 100
ACKNOWLEDGE_SECONDS = 10.0  # s at the end for reliable subscribers to confirm the last messages


class ReplayNode(Node):
    """Plays when `play` is called. It only publishes, so it needs no spinning.

    Attributes:
        left_out: topic -> why it is not published.
    """

    def __init__(self, bag: Bag, options: PlayOptions) -> None:
        super().__init__("replay_node")
        self.bag, self.options = bag, options
        self._publishers_by_topic: dict[str, Any] = {}
        topics, self.left_out = selected_topics(bag, options)
        kinds = {}
        for topic in sorted(topics):
            if not bag.topics[topic].plays:
                self.left_out[topic] = bag.topics[topic].problem
                continue
            try:
                kinds[topic] = message_class(bag.topics[topic].type)
            except InputError as error:
                self.left_out[topic] = str(error)
        self._makes_clock = options.clock and CLOCK not in bag.topics
        time.sleep(discovery_time())
        self._look_at = 0.0
        self._refuse_others([*kinds, *([CLOCK] if self._makes_clock else [])])
        for topic, kind in kinds.items():
            self._publishers_by_topic[topic] = self.create_publisher(kind, topic, _qos(bag.topics[topic]))
        if self._makes_clock:
            self._publishers_by_topic[CLOCK] = self.create_publisher(Clock, CLOCK, DEPTH)

    def _refuse_others(self, topics: Iterable[str]) -> None:
        """Raises InputError if another node publishes a topic: a live robot must not be mixed with a recorded one."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK
        me = self.get_fully_qualified_name()
        for topic in topics:
            names = [node_name(info) for info in self.get_publishers_info_by_topic(topic)]
            mine = topic in self._publishers_by_topic  # another node may have the same name
            if others := [name for name in names if name != me] or names[mine:]:
                raise InputError(
                    f"{topic}: {', '.join(sorted(others))} publishes it, expected no other node; end that node, or "
                    "" "choose the topics with --topics"
                )

    def wait_for_subscribers(self) -> None:
        """Wait until every published topic has a subscriber, including /clock."""
        while not all(publisher.get_subscription_count() for publisher in self._publishers_by_topic.values()):
            time.sleep(0.02)

    def play(self) -> int:
        """Publish everything at its time. Returns the number of messages published. Raises InputError.

        Ends early with a KeyboardInterrupt only.
        """
        rate = self.options.rate
        begin = time.monotonic()
        count, tick = 0, 0.0
        for due, record in schedule(self.bag, self.options):
            origin_ns = record.log_ns - round(due * 1e9 * rate)  # time in the bag at `begin`, of this round of a loop
            while self._makes_clock and tick < due:
                _wait(begin + tick)
                self._publish_clock(origin_ns + round(tick * 1e9 * rate))
                tick += CLOCK_PERIOD
            _wait(begin + due)
            self._refuse_others(self._publishers_by_topic)
            publisher = self._publishers_by_topic.get(record.topic)
            if publisher is None:
                continue
            if self._makes_clock:
                self._publish_clock(record.log_ns)
            publisher.publish(bytes(record.data))
            count += 1
        for publisher in self._publishers_by_topic.values():
            publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_SECONDS))
        return count

    def _publish_clock(self, ns: int) -> None:
        self._publishers_by_topic[CLOCK].publish(Clock(clock=set_stamp(Time(), ns)))


def _wait(until: float) -> None:
    left = until - time.monotonic()
    if left > 0:
        time.sleep(left)


def _qos(info: TopicInfo) -> QoSProfile:
    """QoS of the recorded publishers, as far as they agree."""
    latched = bool(info.qos) and all(row["durability"] == "transient_local" for row in info.qos)
    reliable = not info.qos or all(row["reliability"] != "best_effort" for row in info.qos)
    return profile(DEPTH, reliable, latched)
