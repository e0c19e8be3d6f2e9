"""A raw subscription whose quality of service matches that of the publishers on its topic."""

from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from vla_ros.nodes.qos import profile


class Followed:
    """Reliable if all publishers are, transient local if all of them are, so that messages published once before arrive
    too. No message is passed on twice. A publisher that offers less than a subscription asks for prints a warning, so
    the first request is what `reliable` and `latched` say.

    Args:
        reliable: ask for reliable while there is no publisher yet.
        latched: ask for transient local while there is no publisher yet.
        take: called with the serialized message and the source's time, ns (0: not known).
        lost: called with the number of messages that the middleware lost.
    """

    def __init__(
        self, node: Node, topic: str, kind: type, depth: int, latched: bool, take: Callable[[bytes, int], None],
        lost: Callable[[int], None], reliable: bool = True,
    ) -> None:  # fmt: skip
        self._node, self._topic, self._kind, self._depth = node, topic, kind, depth
        self._take, self._lost = take, lost
        self._seen: deque[tuple[int, int]] = deque(maxlen=depth)  # (time of the source, size) of the last messages
        self._subscription: Any = None
        self._before: Any = None  # the older subscription, until the publishers have discovered the newer one
        self._reliable, self.latched, self._met = reliable, latched, False
        self._subscribe()

    def look(self, offers: list[Any]) -> None:
        """Subscribe again if the publishers' `offers` require it. Called a few times a second."""
        self._leave()
        if not offers:
            return
        reliable = all(offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
        latched = all(offer.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
        # A subscription that asks for more than is offered receives nothing. Lower reliability is kept, but not what
        # was asked for before there was a publisher.
        reliable &= self._reliable or not self._met
        self._met = True
        if (reliable, latched) != (self._reliable, self.latched):
            self._reliable, self.latched = reliable, latched
            self._subscribe()

    def again(self) -> None:
        """Receive what a late subscriber would: the last messages of all latched publishers."""
        self._seen.clear()
        self._subscribe()

    def drain(self) -> None:
        """Take the messages that wait in the queue."""
        for subscription in filter(None, (self._before, self._subscription)):
            self._drain(subscription)

    def destroy(self) -> None:
        self._leave()
        self._node.destroy_subscription(self._subscription)

    def _drain(self, subscription: Any) -> None:
        for _ in range(self._depth):
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is None:
                return
            subscription.callback(*taken)

    def _leave(self) -> None:
        """Drop the older subscription; messages that both have received count once."""
        if self._before is not None:
            self._drain(self._before)
            self._node.destroy_subscription(self._before)
            self._before = None

    def _subscribe(self) -> None:
        self._leave()
        self._before = self._subscription
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

    def _arrived(self, data: bytes, info: Any) -> None:
        source_ns = int(info["source_timestamp"])
        if source_ns:
            if (source_ns, len(data)) in self._seen:
                return
            self._seen.append((source_ns, len(data)))
        self._take(bytes(data), source_ns)
