"""One tick for each control period of /clock."""

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from vla_ros.messages.stamps import NS, stamp_ns
from vla_ros.nodes.qos import sensor_qos

_TOLERANCE = 0.01  # periods: a simulator's rounding must not put a tick off to its next message


class SimulatedTime:
    """Follows /clock and calls `tick(now_ns, steady_ns)` from its subscription's callback.

    The last tick of a clock message stands for exactly that message's time. A message that skips control periods
    makes the ticks in between too, with the times they were due at; one that jumps further than `jump_limit`, or
    goes back, makes a single tick, for which `steady_ns` has moved on by one period: the executor sees the jump.

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
        """`rate`: ticks per simulated second, Hz. `repeated` is called when /clock says the same time again."""
        self.now_ns = 0
        self._node, self._tick, self._repeated = node, tick, repeated
        self._period = NS / rate
        self._jump = jump_limit * NS / self._period  # in periods
        self._running = False
        self._steady = 0  # ticks since `start`
        self._subscription = self._subscribe(reliable=True)

    def _subscribe(self, reliable: bool) -> Any:
        # No clock message should be lost, but a simulator may offer best effort only: then that is what we ask for.
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_best_effort_only) if reliable else None
        qos = sensor_qos(reliable, depth=100)
        return self._node.create_subscription(Clock, "/clock", self._on_clock, qos, event_callbacks=events)

    def _on_best_effort_only(self, event: Any) -> None:
        self._node.destroy_subscription(self._subscription)
        self._subscription = self._subscribe(reliable=False)

    def start(self) -> None:
        """Tick from now on; for the newest time at once, which the simulator may be waiting for."""
        self._running, self._steady = True, 0
        self._anchor_ns = self._ticks = 0
        if self.now_ns:
            self._begin_grid()

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
        backwards = now_ns < self.now_ns
        self.now_ns = now_ns
        if self._running:
            due = int((now_ns - self._anchor_ns) / self._period + _TOLERANCE) - self._ticks
            if backwards or due > self._jump or not self._anchor_ns:
                self._begin_grid()
                return
            for left in range(due - 1, -1, -1):
                self._ticks += 1
                at_ns = now_ns if not left else self._anchor_ns + round(self._ticks * self._period)
                self._steady += 1
                self._tick(at_ns, round(self._steady * self._period))

    def _begin_grid(self) -> None:
        self._anchor_ns, self._ticks = self.now_ns, 0
        self._steady += 1
        self._tick(self.now_ns, round(self._steady * self._period))
