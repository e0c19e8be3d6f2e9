"""A recorder that keeps the last seconds in memory and writes them when something has failed."""

import threading
import time
from typing import Any

from rclpy.serialization import deserialize_message
from std_srvs.srv import Trigger

from vla_ros.bags.recording import KEPT, Item, Recording
from vla_ros.bags.ring import Ring
from vla_ros.bags.streams import EXECUTOR_STATUS, OUTCOME
from vla_ros.core.errors import InputError
from vla_ros.core.text import plain
from vla_ros.msg import ExecutorStatus, Outcome
from vla_ros.nodes.names import EXECUTOR_STATES, constants

AFTER = 1.0  # s after a failure that are also kept; further failures in that time belong to it
_STOPS = (ExecutorStatus.STOPPED, ExecutorStatus.E_STOPPED)
_FAILURES = (Outcome.FAILURE, Outcome.ABORTED)
_OUTCOMES = constants(Outcome)


class Keeper:
    """Active between `start` and `stop` of its recorder; the service `~/keep` writes what is in memory.

    A failure is an outcome of failure or aborted, or an executor that stops.
    """

    def __init__(self, node: Any, seconds: float, most_bytes: int) -> None:
        """`node`: a `RecorderNode`. `seconds`, `most_bytes`: as of `Ring`."""
        self._node, self._seconds, self._most = node, seconds, most_bytes
        self._ring: Ring | None = None
        self._threads: list[threading.Thread] = []
        node.create_service(Trigger, "~/keep", self._serve)

    @property
    def active(self) -> bool:
        return self._ring is not None

    def start(self) -> None:
        self._ring = Ring(self._seconds, self._most)
        self._why: list[str] = []
        # an executor that is stopped at the start does not count
        self._due, self._stopped, self._warned = 0.0, True, False
        self._node.get_logger().info(f"keeping the last {self._seconds:g} s")

    def stop(self) -> None:
        """A pending failure is written now."""
        try:
            if self._why:
                self._save("; ".join(self._why))
        finally:
            for thread in self._threads:
                thread.join()
            self._ring, self._threads = None, []

    def put(self, item: Item, lasting: bool) -> None:
        self._ring.put(item, lasting)
        if self._ring.full and not self._warned:
            self._warned = True
            said = f"keep_last: {self._most / 1e6:g} MB held {self._ring.full:.1f} s of {self._seconds:g}"
            self._node.get_logger().warning(f"{said}; raise buffer_size, or publish compressed images")

    def heard(self, name: str, data: bytes) -> None:
        """A message of the stream `name`."""
        kind = {OUTCOME: Outcome, EXECUTOR_STATUS: ExecutorStatus}.get(name)
        try:
            said = deserialize_message(data, kind) if kind else None
        except Exception:  # whatever the decoder raises on foreign bytes, which are kept as they are
            return
        if isinstance(said, Outcome):
            if said.outcome in _FAILURES:
                why = f"{_OUTCOMES[said.outcome]}, by {plain(said.by, 80) or 'nobody'}"
                self._failed(": ".join(filter(None, (why, plain(said.message, 200)))))
        elif said is not None:
            stopped, before = said.state in _STOPS, self._stopped
            self._stopped = stopped
            if stopped and not before:
                self._failed(f"{EXECUTOR_STATES[said.state]}: {plain(said.message, 200)}")

    def _failed(self, why: str) -> None:
        if not self._why:
            self._due = time.monotonic() + AFTER
        self._why.append(why)

    def look(self) -> None:
        """Called at intervals."""
        if self._why and time.monotonic() >= self._due:
            self._save("; ".join(self._why))

    def _serve(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if not self.active:
                raise InputError(f"{self._node.get_fully_qualified_name()} is not active, so nothing is kept")
            response.message, response.success = self._save("service keep"), True
        except InputError as error:
            response.message = str(error)
        return response

    def _save(self, why: str) -> str:
        """Write what is kept to a bag, in the background; returns its path. Raises InputError, and keeps it then."""
        self._why = []
        if not self._ring:
            raise InputError("nothing has been heard yet")
        node = self._node
        folder = node.folder()
        others = (folder.with_name(f"{folder.name}_{number}") for number in range(2, 1000))
        folder = folder if not folder.exists() else next((one for one in others if not one.exists()), folder)
        recording = node.open_bag(folder, self._most)
        for item in self._ring.take():
            node.record(recording, item)
        node.get_logger().warning(f"{why}: the last seconds go to {folder}")
        thread = threading.Thread(target=self._finish, args=(recording, why), name="keeping")
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()
        return str(folder)

    def _finish(self, recording: Recording, why: str) -> None:
        try:
            recording.close({"vla_ros.robot": self._node.robot_name, KEPT: why})
            self._node.get_logger().info(f"kept {recording.report()}")
        except InputError as error:
            self._node.get_logger().error(str(error))
