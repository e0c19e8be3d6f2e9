"""Nodes that keep running even if invalid times arrive on /clock."""

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage

from vla_ros.messages.stamps import is_time
from vla_ros.nodes.qos_overrides import QosOverrides


class ClockGuard:
    """Base class, before `Node`: invalid times on /clock are ignored, and reported once.

    rclpy's time source subscribes to it as well and raises on a time below zero, which would end the node.
    """

    _ignored = False  # an invalid message arrived

    def create_subscription(self, msg_type: Any, topic: str, callback: Any, *args: Any, **options: Any) -> Any:
        if msg_type is ClockMessage and not options.get("raw"):  # a recorder keeps the bytes, whatever they say
            callback = self._guarded(callback)
        return super().create_subscription(msg_type, topic, callback, *args, **options)

    def _guarded(self, callback: Callable[[ClockMessage], object]) -> Callable[[ClockMessage], None]:
        def take(message: ClockMessage) -> None:
            if is_time(message.clock):
                callback(message)
            elif not self._ignored:
                self._ignored = True
                said = f"{message.clock.sec} s and {message.clock.nanosec} ns"
                self.get_logger().error(
                    f"/clock: {said}, expected at least 0 s and less than 1e9 ns; such a message is ignored"
                )

        return take


class PlainNode(ClockGuard, QosOverrides, Node):
    """A node without a lifecycle that may follow simulated time."""
