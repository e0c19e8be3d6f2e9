"""A source of a takeover steered by hand: it says where the robot is until it leads, then where it should be."""

import threading
import time
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from vla_ros.control.steering import Steering
from vla_ros.core.errors import InputError
from vla_ros.core.text import plain
from vla_ros.graph.handles import Keys, Pad
from vla_ros.graph.processes import Graph
from vla_ros.messages.joints import joint_state_message
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.qos import STATUS_QOS, sensor_qos

RATE = 50.0  # Hz
_SILENT = 1.0  # s without a status: nobody knows where the robot is
_PATIENCE = 5.0  # s for the next one, before the executor is asked for anything


def _full_name(endpoint: Any) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


class Steered:
    """Publishes on the executor's takeover topic, and asks it to take over and to give back.

    Messages are not stamped: the executor takes their arrival, so a clock that differs does no harm.

    Attributes:
        words: what became of it, since they were taken last.
    """

    def __init__(self, graph: Graph, topic: str, steering: Steering, handle: Keys | Pad) -> None:
        self._graph, self._steering, self._handle = graph, steering, handle
        self._names = steering.names
        self._publisher = graph.node.create_publisher(JointState, topic, sensor_qos(True, 1))
        self._client = graph.node.create_client(SetBool, "executor_node/take_over")
        self._lock = threading.Lock()
        self._status: ExecutorStatus | None = None
        self._came, self._leads, self._said = 0.0, False, ""
        self.words: list[str] = []
        graph.node.create_subscription(ExecutorStatus, "executor_node/status", self._take, STATUS_QOS)

    @property
    def topic(self) -> str:
        return self._publisher.topic_name

    @property
    def read(self) -> bool:
        """The executor subscribes to this topic; otherwise another source would take over."""
        readers = self._graph.node.get_subscriptions_info_by_topic(self.topic)
        return self._graph.full_name("executor_node") in map(_full_name, readers)

    @property
    def rivals(self) -> list[str]:
        """The nodes of the other publishers on this topic."""
        node = self._graph.node
        names = sorted(map(_full_name, node.get_publishers_info_by_topic(self.topic)))
        if (own := node.get_fully_qualified_name()) in names:
            names.remove(own)
        return names

    @property
    def there(self) -> bool:
        """The executor answers, and says where the robot is."""
        return self._client.service_is_ready() and self._position() is not None

    @property
    def silence(self) -> str:
        """Why nobody knows where the robot is; "" while the executor says so."""
        silent = time.monotonic() - self._came > _SILENT
        name = self._graph.full_name("executor_node")
        return f"{name}: no status for more than {_SILENT:g} s, expected it to run" if silent else ""

    @property
    def taken(self) -> bool:
        """This source has taken over, whether it is followed or not."""
        return self._status is not None and self._status.taken_over_by == self.topic

    def _take(self, status: ExecutorStatus) -> None:
        with self._lock:
            self._status, self._came = status, time.monotonic()
            self._leads = self.taken and status.state == ExecutorStatus.TAKEN_OVER
            said = status.message if self.taken and not self._leads else ""
            if said and said != self._said:
                self.words.append(plain(said, 300))
            self._said = said

    def _position(self) -> np.ndarray | None:
        """(J,) of the last command, or where the robot was measured while there is none; None where neither is known.
        """
        status, names = self._status, self._steering.all_names
        if status is None or self.silence or tuple(status.names) != names:
            return None
        found = np.where(np.isfinite(status.position), status.position, status.measured)
        return found if np.isfinite(found[self._steering.columns]).all() else None

    def tick(self, dt: float) -> None:
        """Publish where the robot should be `dt` s after the last time. Says nothing while nobody holds the handle:
        the executor then brakes, and follows neither this source nor the policy."""
        with self._lock:
            steering, position = self._steering, self._position()
            if position is None or not self._handle.alive:
                return
            reason = steering.reason
            if self._leads:
                self._handle.steer(steering, dt)
                if steering.reason and steering.reason != reason:
                    self.words.append(steering.reason)
            else:
                steering.begin(position)
                self._handle.forget()
            values = steering.position[steering.columns]
            self._publisher.publish(joint_state_message(JointState, self._names, values, 0))

    def ask(self, take: bool) -> None:
        """Take over, or give back. Raises InputError with the executor's own words where it refuses."""
        answer = self._graph.call(self._client, SetBool.Request(data=take))
        if not answer.success:
            raise InputError(plain(answer.message, 300))
        self.words.append(plain(answer.message, 300))

    def _wish(self, take: bool) -> None:
        """`ask`, but of an executor that is gone: its service would only be waited for."""
        if not self._graph.wait_until(lambda: not self.silence, _PATIENCE):
            raise InputError(f"{self.silence}; it was not asked to {'take over' if take else 'give back'}")
        self.ask(take)

    def run(self) -> None:
        """Until the handle is put down; whoever leads then gives back."""
        end = threading.Event()
        ticking = threading.Thread(target=self._keep_ticking, args=(end,), name="steered", daemon=True)
        ticking.start()
        told = ""
        try:
            while not self._handle.done:
                self._graph.check()
                if (silence := self.silence) != told:
                    self.words += filter(None, [silence])
                    told = silence
                for take in self._handle.wishes(self.taken):
                    try:
                        self._wish(take)
                    except InputError as error:
                        self.words.append(str(error))
                self._tell()
        finally:
            try:
                if self.taken:
                    self._wish(False)
            finally:
                end.set()
                ticking.join()
                self._tell()

    def _tell(self) -> None:
        words, self.words = self.words, []
        for text in words:
            self._handle.say(text)

    def _keep_ticking(self, end: threading.Event) -> None:
        last = time.monotonic()
        while not end.wait(1.0 / RATE):
            now = time.monotonic()
            self.tick(min(now - last, 5.0 / RATE))
            last = now
