"""A raw subscription that follows the quality of service of whoever publishes on its topic."""

from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from vla_ros.nodes.qos import profile


class Followed:
    """Reliable where all publishers are, transient local where all of them are, so that what was published once,
    before, arrives too. No message is handed on twice.

    Args:
        latched: whether to ask for transient local while there is no publisher yet.
        take: called with the serialized message and the source's time, ns (0: not known).
        lost: called with how many messages the middleware lost.
    """

    def __init__(
        self, node: Node, topic: str, kind: type, depth: int, latched: bool, take: Callable[[bytes, int], None],
        lost: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._node, self._topic, self._kind, self._depth = node, topic, kind, depth
        self._take, self._lost = take, lost
        self._seen: deque[tuple[int, int]] = deque(maxlen=depth)  # (time of the source, size) of the last messages
        self._subscription: Any = None
        self._reliable, self.latched = True, latched
        self._subscribe()

    def look(self, offers: list[Any]) -> None:
        """Subscribe anew where the publishers' `offers` ask for it."""
        if not offers:
            return
        reliable = all(offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
        latched = all(offer.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
        # A subscription that asks for more than is offered receives nothing; asking for less reliability is kept.
        if latched != self.latched or (self._reliable and not reliable):
            self._reliable, self.latched = self._reliable and reliable, latched
            self._subscribe()

    def again(self) -> None:
        """Receive what a late subscriber would: the last messages of all latched publishers."""
        self._seen.clear()
        self._subscribe()

    def drain(self) -> None:
        """Take what has arrived and waits for its turn."""
        self._drain(self._subscription)

    def destroy(self) -> None:
        self._node.destroy_subscription(self._subscription)

    def _drain(self, subscription: Any) -> None:
        for _ in range(self._depth):
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is None:
                return
            subscription.callback(*taken)

    def _subscribe(self) -> None:
        old = self._subscription
        options = {"qos_profile": profile(self._depth, self._reliable, self.latched), "raw": True}
        make = self._node.create_subscription
        try:
            events = SubscriptionEventCallbacks(
                message_lost=lambda event: self._lost(event.total_count_change), use_default_callbacks=False
            )
            self._subscription = make(self._kind, self._topic, self._arrived, event_callbacks=events, **options)
        except UnsupportedEventTypeError:  # the middleware does not count what it loses
            events = SubscriptionEventCallbacks(use_default_callbacks=False)
            self._subscription = make(self._kind, self._topic, self._arrived, event_callbacks=events, **options)
        if old is not None:  # nothing is lost between the two
            self._drain(old)
            self._node.destroy_subscription(old)

    def _arrived(self, data: bytes, info: Any) -> None:
        source_ns = int(info["source_timestamp"])
        if source_ns:
            if (source_ns, len(data)) in self._seen:
                return
            self._seen.append((source_ns, len(data)))
        self._take(bytes(data), source_ns)
