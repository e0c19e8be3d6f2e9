"""The e-stop's topic and services, served by a thread of their own from the node's construction to its end."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.exceptions import InvalidHandle
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy
from rclpy.subscription_content_filter_options import ContentFilterOptions
from rclpy.type_support import check_for_type_support
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from vla_ros.messages.stamps import NS
from vla_ros.nodes.qos import profile
from vla_ros.nodes.taking import Unserved, Withheld, take

_TRUE = ContentFilterOptions("data = TRUE", [])  # the middleware drops every `false`, however many there are
_DEPTH = 10_000  # messages, which are read after a pause of the whole process
_AT_ONCE = 1000  # messages of one subscription before the others are served
# another subscription receives what this one cannot
_NO_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)
_LARGEST = 64  # bytes of a serialized Bool, and more
_VALUE = 4  # offset of the value in a serialized Bool, after the header
_LOOKS = 10  # checks of the heartbeat within its limit
_LOOK = 1.0  # s between checks for a transient-local publisher, if no publisher was added
_PATIENCE = 0.1  # s within which a new publisher is noticed
_DELIVERY = 0.3  # s for such a message to arrive; on one machine it takes a few milliseconds


class EStop:
    """The latch, the topic `e_stop`, and the services `~/e_stop` and `~/reset_e_stop`.

    Its thread waits on a wait set of its own (an executor of rclpy would serve the node's other entities too) and needs
    no lock to latch: whatever the node's thread does, a `true` that is delivered latches. A publisher may be reliable
    or best effort, volatile or transient local. No single subscription matches all of them, so there are two, and a
    third one as soon as a transient-local publisher exists, to get its earlier message (not before, because every other
    publisher would warn that it is incompatible).

    Attributes:
        latched: what triggered the e-stop, in words; "" while it is not latched.
        heartbeat: s, longest silence of the topic; 0: not checked.
    """

    def __init__(
        self,
        node: Node,
        *,
        on_latch: Callable[[], None],
        on_reset: Callable[[str], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Callbacks run in the thread.

        Args:
            on_latch: the e-stop was latched.
            on_reset: the e-stop was reset; the argument is what had triggered it.
            on_failure: the thread ended although the node did not; nothing may move any more.
        """
        self.latched, self.heartbeat = "", 0.0
        self._node, self._on_latch, self._on_reset, self._on_failure = node, on_latch, on_reset, on_failure
        self._topic = node.resolve_topic_name("e_stop")
        self._heard: float | None = None  # s, steady
        self._known: deque[tuple[int, int]] = deque(maxlen=100)  # of the last `true`s: each arrives more than once
        self._end = False
        check_for_type_support(Bool)
        self._group = group = Unserved()
        self._pulse: Any = None  # a subscription of all messages, which is polled
        self._subscriptions = [self._subscribe(reliable=True), self._subscribe(reliable=False)]
        self._late_since: float | None = None  # s, steady; when the third was made
        # s, steady; next check for a transient-local publisher, and the number of publishers at the last
        self._look_at, self._publishers = 0.0, 0
        self._services = [
            # The reset comes first: if a reset and a `true` wait together, the `true` takes precedence.
            node.create_service(Trigger, "~/reset_e_stop", self._serve_reset, callback_group=group),
            node.create_service(SetBool, "~/e_stop", self._serve_e_stop, callback_group=group),
        ]
        self._wake = node.create_guard_condition(lambda: None, callback_group=group)
        node.context.on_shutdown(self._trigger)
        self._thread = threading.Thread(target=self._run, name="e_stop", daemon=True)

    def _subscribe(self, reliable: bool, latched: bool = False) -> Any:
        """A subscription of the middleware, not of rclpy's node, because the thread may make one at any time."""
        qos = profile(_DEPTH, reliable, latched).get_c_qos_profile()
        with self._node.handle:
            return rclpy_implementation.Subscription(self._node.handle, Bool, "e_stop", qos, _TRUE)

    def start(self) -> None:
        """Start listening; callbacks may run before this returns."""
        self._thread.start()

    def settle(self) -> None:
        """Wait for the earlier messages of publishers that are already discovered."""
        self._look_at = 0.0
        self._trigger()
        while not self._look_at and self._thread.is_alive():
            time.sleep(0.001)
        if self._late_since is not None:
            time.sleep(max(0.0, self._late_since + _DELIVERY - time.monotonic()))

    def latch(self, words: str) -> None:
        """Latch; the first message is kept."""
        if not self.latched:
            self.latched = words
            self._on_latch()

    def watch(self, heartbeat: float) -> None:
        """From now on the topic must not be silent for longer than `heartbeat` s; 0: not checked.

        The caller has to destroy the subscription that this makes, after `watch(0.0)`.
        """
        self.heartbeat = heartbeat
        self._pulse = heartbeat and self._node.create_subscription(
            Bool,
            "e_stop",
            lambda message: None,
            profile(1, reliable=False),
            callback_group=self._group,
            event_callbacks=_NO_EVENTS,
            raw=True,
        )
        self._trigger()

    @property
    def missing(self) -> str:
        """What is wrong with the heartbeat, in words; "" if nothing is."""
        if self.heartbeat and self._heard is None:
            return f"nothing has arrived on {self._topic} yet, expected a message every {self.heartbeat:g} s"
        return self._silence()

    def _silence(self) -> str:
        if not self.heartbeat or self._heard is None:
            return ""
        silent = time.monotonic() - self._heard
        if silent <= self.heartbeat:
            return ""
        return f"{self._topic} has been silent for {silent:.2f} s, expected a message every {self.heartbeat:g} s"

    def close(self) -> None:
        """End the thread, before the node's entities are destroyed."""
        self._end = True
        self._trigger()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        for subscription in self._subscriptions:
            subscription.destroy_when_not_in_use()
        self._subscriptions = []

    def _trigger(self) -> None:
        if self._thread.is_alive():
            self._wake.trigger()

    # The thread

    def _run(self) -> None:
        try:
            context = self._node.context
            with context.handle:
                waiting = rclpy_implementation.WaitSet(3, 1, 0, 0, len(self._services), 0, context.handle)
                while not self._end and context.ok():
                    self._look_for_latched()
                    waiting.clear_entities()
                    for subscription in self._subscriptions:
                        waiting.add_subscription(subscription)
                    for service in self._services:
                        waiting.add_service(service.handle)
                    waiting.add_guard_condition(self._wake.handle)
                    waiting.wait(self._patience_ns())
                    for service in self._services:
                        self._serve(service)
                    for subscription in self._subscriptions:
                        self._read(subscription)
                    self._feel_pulse()
                    silence = self._silence()
                    if silence:
                        self.latch(silence)
        # the end of a thread is not noticed otherwise, and a robot without its e-stop must not move
        except Exception as error:
            if not self._end and self._node.context.ok():
                self._on_failure(error)

    def _patience_ns(self) -> int:
        """How long to wait for something to arrive."""
        return round(min(_PATIENCE, self.heartbeat / _LOOKS or _PATIENCE) * NS)

    def _look_for_latched(self) -> None:
        """A check takes some 0.3 ms, so it is made when the number of publishers changes, and at intervals."""
        publishers = self._subscriptions[0].get_publisher_count()
        if time.monotonic() < self._look_at and publishers == self._publishers:
            return
        self._publishers = publishers
        if self._late_since is None:
            publishers = self._node.get_publishers_info_by_topic("e_stop")
            if any(one.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for one in publishers):
                self._subscriptions.append(self._subscribe(reliable=True, latched=True))
                self._late_since = time.monotonic()
        self._look_at = time.monotonic() + _LOOK

    def _read(self, subscription: Any) -> None:
        for _ in range(_AT_ONCE):
            taken = take(subscription, _LARGEST)
            if taken is None:
                return
            data, identity = taken
            self._heard = time.monotonic()
            if isinstance(data, Withheld) or not any(data[_VALUE : _VALUE + 1]):
                continue  # not a Bool, or a middleware without content filters
            if identity not in self._known:  # otherwise a reset may have come between its arrivals
                self._known.append(identity)
                self.latch(f"topic {self._topic}")

    def _feel_pulse(self) -> None:
        pulse = self._pulse
        if pulse:
            try:
                with pulse.handle:
                    if take(pulse.handle, _LARGEST) is not None:
                        self._heard = time.monotonic()
            except InvalidHandle:
                pass  # destroyed meanwhile: not checked any more

    def _serve(self, service: Any) -> None:
        request, header = service.handle.service_take_request(service.srv_type.Request)
        if header is not None:
            service.send_response(service.callback(request, service.srv_type.Response()), header)

    def _serve_e_stop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data:
            self.latch("service e_stop")
            response.success, response.message = True, "latched"
        else:
            response.message = "only the service reset_e_stop resets a latched e-stop"
        return response

    def _serve_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        was, silence = self.latched, self._silence()
        if silence:
            self.latch(silence)
            response.message = f"stays latched: {silence}"
            return response
        self.latched = ""
        self._on_reset(was)
        response.success, response.message = True, f"was latched by {was}" if was else "was not latched"
        return response
