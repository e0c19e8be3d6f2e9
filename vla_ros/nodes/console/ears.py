"""Subscriptions without callbacks: the newest messages are taken at intervals.

A robot sends hundreds of messages a second, some of them images of megabytes. A viewer shows only some of them: the
others are replaced in the middleware's queue without any work in Python.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rclpy.exceptions import InvalidHandle
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message

from vla_ros.nodes.taking import Unserved, Withheld, take


@dataclass
class _Ear:
    subscription: Any
    kind: type
    limit: int  # bytes


class Ears:
    """Subscriptions of a node, polled from one thread until the node destroys them."""

    def __init__(self, node: Any) -> None:
        self._node, self._group = node, Unserved()
        self._ears: dict[str, _Ear] = {}

    def listen(self, name: str, kind: type, topic: str, qos: QoSProfile, limit: int) -> None:
        """Messages larger than `limit` bytes, and those that cannot be decoded, are left out."""
        made = self._node.create_subscription(kind, topic, lambda message: None, qos, callback_group=self._group)
        self._ears[name] = _Ear(made, kind, limit)

    def new(self, name: str, newest: bool = False) -> Iterator[tuple[Any, int]]:
        """(message, its publisher's number) for the messages since the last call, oldest first; with `newest` only the
        last one, and the others are not decoded."""
        ear, found = self._ears[name], []
        for _ in range(1000):
            try:
                with ear.subscription.handle:
                    taken = take(ear.subscription.handle, ear.limit)
            except InvalidHandle:  # the node is being destroyed
                return
            if taken is None:
                break
            data, (_, number) = taken
            if not isinstance(data, Withheld):
                found.append((data, number))
        for data, number in found[-1:] if newest else found:
            try:
                yield deserialize_message(data, ear.kind), number
            except Exception:  # whatever the decoder raises on foreign bytes; who needs the message says so
                continue
