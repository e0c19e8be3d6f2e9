"""Lets a node configure itself once, and activate itself as soon as everything it needs is available."""

from typing import Any

from lifecycle_msgs.msg import State
from rclpy.lifecycle import TransitionCallbackReturn

from vla_ros.control.remedies import with_section
from vla_ros.core.errors import InputError, NotYet
from vla_ros.core.reminder import Reminder

PERIOD = 1.0  # s between two tries


class Ended(Exception):
    """The process ends; the reason is logged."""


class Autostart:
    """Tries until the node is active, because the robot's drivers may start after it.

    What an activation lacks, and what a configuration that raises `NotYet` lacks, is waited for and reported
    (`Reminder`). Any other refusal to configure needs a correction: the process ends with status 2, so that a launch
    file or systemd notices. If another client has changed the state meanwhile, the node is left to that client.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._configured = self._trying = False
        self._lacks: InputError | None = None
        self._reminder = Reminder()
        self._timer = node.create_steady_timer(0.0, self._try)

    def takes(self, error: InputError) -> bool:
        """A transition was refused with `error`: True if it was tried here and will be tried again."""
        if self._trying and (self._configured or isinstance(error, NotYet)):
            self._lacks = error
            return True
        return False

    def _try(self) -> None:
        node = self._node
        node.destroy_timer(self._timer)
        self._lacks, self._trying = None, True
        try:
            done = self._step()
        finally:
            self._trying = False
        if done:
            return
        if self._lacks is None:
            raise Ended
        if self._reminder.due(str(self._lacks)):
            node.get_logger().warning(f"waits before it is activated: {with_section(self._lacks)}")
        self._timer = node.create_steady_timer(PERIOD, self._try)

    def _step(self) -> bool:
        """True when the node is active, or controlled by another client."""
        node = self._node
        if not self._configured:
            if node.state_id != State.PRIMARY_STATE_UNCONFIGURED:
                return True
            if node.trigger_configure() != TransitionCallbackReturn.SUCCESS:
                return False
            self._configured = True
        if node.state_id != State.PRIMARY_STATE_INACTIVE:
            return True
        try:
            node.may_autostart()
        except InputError as error:
            self._lacks = error
            node.refused(str(error))
            return False
        return node.trigger_activate() == TransitionCallbackReturn.SUCCESS
