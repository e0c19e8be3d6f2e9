"""A private channel between a node and the program that started it.

A service call reaches every node of that name on the network; a request through this channel reaches this process only.
The channel closes when that program ends.
"""

import json
import os
import threading
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import State, Transition
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

CHANNEL = "VLA_ROS_PARENT"  # a file descriptor for requests of the program that started this node, and their answers
GOALS = {
    Transition.TRANSITION_CONFIGURE: (State.PRIMARY_STATE_INACTIVE, "configure"),
    Transition.TRANSITION_ACTIVATE: (State.PRIMARY_STATE_ACTIVE, "activate"),
    Transition.TRANSITION_DEACTIVATE: (State.PRIMARY_STATE_INACTIVE, "deactivate"),
    Transition.TRANSITION_CLEANUP: (State.PRIMARY_STATE_UNCONFIGURED, "cleanup"),
}  # transition -> state, and its name in rclpy


class Parent:
    """The node's end of the channel. `read` is called by the thread that watches it, everything else by the node's
    thread."""

    def __init__(self) -> None:
        self.descriptor = int(os.environ[CHANNEL]) if CHANNEL in os.environ else None
        self._lock, self._rest = threading.Lock(), b""
        self._waiting: list[dict[str, Any]] = []
        self._take: Callable[[dict[str, Any]], object] | None = None

    def read(self) -> bool:
        """Take what has arrived; False if the program has ended."""
        try:
            data = os.read(self.descriptor, 65536)
        except ConnectionResetError:  # it was killed before it read everything
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        with self._lock:
            for request in map(json.loads, lines):
                if self._take is None:
                    self._waiting.append(request)
                else:
                    self._take(request)
        return bool(data)

    def serve(self, take: Callable[[dict[str, Any]], object]) -> None:
        """From now on `take` gets each request, starting with those in the queue."""
        with self._lock:
            self._take = take
            for request in self._waiting:
                take(request)

    def answer(self, node: Any, request: dict[str, Any]) -> None:
        """Handle a request in the node's thread: a transition, parameters, or nothing; answers with the node's
        state."""
        reason = ""
        if "transition" in request:
            reason = _change(node, request["transition"])
        for name, value in request.get("parameters", {}).items():
            result: SetParametersResult = node.set_parameters([Parameter(name, value=value)])[0]
            if not result.successful:
                reason = f"parameter {name}: {result.reason}"
                break
        said = {"id": request["id"], "state": node.state_id, "reason": reason}
        try:
            os.write(self.descriptor, json.dumps(said).encode() + b"\n")
        except OSError:
            pass  # it has ended, which `read` notices as well


def _change(node: Any, transition: int) -> str:
    """Why the node did not change its state; "" if it did, or already has that state."""
    goal, what = GOALS[transition]
    before = node.state_id
    if before == goal:
        return ""
    node.refusal = ""
    if getattr(node, f"trigger_{what}")() == TransitionCallbackReturn.SUCCESS:
        return ""
    return node.refusal or f"it is in state {before} of lifecycle_msgs/State"
