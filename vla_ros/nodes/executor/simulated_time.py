"""One tick for each control period of /clock."""

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from vla_ros.control.timing import SimulatedPeriods
from vla_ros.messages.stamps import stamp_ns
from vla_ros.nodes.qos import sensor_qos


class SimulatedTime:
    """Follows /clock and calls `tick(now_ns, steady_ns)` from its subscription's callback.

    The ticks are those of `SimulatedPeriods`: a clock on the grid of the control rate gets one tick for each message,
    with exactly its time; any other clock gets those of the periods that have ended.

    Attributes:
        now_ns: the newest simulated time, 0 before the first message.
    """

    def __init__(
        self,
        node: Node,
        rate: float,
        jump_limit: float,
        *,
        tick: Callable[[int, int], None],
        repeated: Callable[[], None],
    ) -> None:
        """`rate`: ticks per simulated second, Hz. `repeated` is called when /clock repeats its time."""
        self.now_ns = 0
        self._node, self._tick, self._repeated = node, tick, repeated
        self._periods = SimulatedPeriods(rate, jump_limit)
        self._running = False
        self._subscription = self._subscribe(reliable=True)

    def _subscribe(self, reliable: bool) -> Any:
        # No clock message should be lost, but if the simulator offers only best effort, subscribe with that.
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_best_effort_only) if reliable else None
        qos = sensor_qos(reliable, depth=100)
        return self._node.create_subscription(Clock, "/clock", self._on_clock, qos, event_callbacks=events)

    def _on_best_effort_only(self, event: Any) -> None:
        self._node.destroy_subscription(self._subscription)
        self._subscription = self._subscribe(reliable=False)

    def start(self) -> None:
        """Tick from now on, and at once for the newest time, for which the simulator may be waiting."""
        self._running = True
        if self.now_ns:
            self._tick(*self._periods.start(self.now_ns))

    def stop(self) -> None:
        self._running = False

    def close(self) -> None:
        self.stop()
        self._node.destroy_subscription(self._subscription)

    def _on_clock(self, message: Clock) -> None:
        now_ns = stamp_ns(message.clock)
        if now_ns == self.now_ns:
            if self._running:
                self._repeated()
            return
        self.now_ns = now_ns
        if not self._running:
            return
        for at_ns, steady_ns in self._periods.due(now_ns):
            self._tick(at_ns, steady_ns)
