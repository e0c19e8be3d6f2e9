"""Judges whether the simulated robot has done its task."""

from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from std_msgs.msg import Bool

from vla_ros.core.errors import InputError
from vla_ros.messages.stamps import set_stamp
from vla_ros.nodes.qos import STATUS_QOS
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import SuccessTracker
from vla_ros.sim.wordings import TaskKind
from vla_ros.sim.worlds import tracker_of, understand


class TaskWatch:
    """Follows the instruction, judges the world, publishes `~/task` and `~/success`.

    `~/success` (std_msgs/Bool) is for RunInstruction goals. `~/task` (diagnostic_msgs/DiagnosticArray) gives the
    details. One thread owns a watch.

    Attributes:
        override: judge by this instead of the instruction; "": by the instruction.
    """

    def __init__(self, node: Node) -> None:
        self.override = ""
        self._task_publisher = node.create_publisher(DiagnosticArray, "~/task", STATUS_QOS)
        self._success_publisher = node.create_publisher(Bool, "~/success", STATUS_QOS)
        self._tracker: Any = None
        self._instruction = ""
        self._problem = ""
        self._start = 0.0

    @property
    def succeeded(self) -> bool:
        return self._tracker is not None and self._tracker.succeeded

    @property
    def failed(self) -> bool:
        """The task can never succeed any more."""
        return self._tracker is not None and self._tracker.failed

    def follow(self, instruction: str, world: Simulated) -> None:
        """A new instruction: judge by it from now on; empty: by none."""
        self._instruction = instruction
        if not self.override:
            self.restart(world)

    def restart(self, world: Simulated) -> None:
        """Judge from now on, whatever was achieved before."""
        self._tracker, self._problem = None, ""
        self._start = world.time
        text = self.override or self._instruction
        if text:
            try:
                self._tracker = self._judge(text, world)
            except InputError as error:
                self._problem = str(error)
        self._success_publisher.publish(Bool(data=False))

    def _judge(self, text: str, world: Simulated) -> SuccessTracker:
        return tracker_of(world, understand(world, text))

    def update(self) -> bool:
        """Check the world once per control period; True if the task has just succeeded."""
        if self._tracker is None or self._tracker.succeeded or not self._tracker.update():
            return False
        self._success_publisher.publish(Bool(data=True))
        return True

    def publish(self, world: Simulated, stamp: int, error: str = "", **figures: str) -> None:
        """`error` is what the simulation itself stumbled over; `figures` are added to the values."""
        tracker = self._tracker
        values = {"instruction": self._instruction, "success": str(self.succeeded).lower(), **figures}
        if tracker is not None:
            values |= self._figures(world)
            values["elapsed"] = f"{world.time - self._start:.2f}"
            if tracker.success_time is not None:
                values["success_after"] = f"{tracker.success_time - self._start:.2f}"
        if error:
            level, message = DiagnosticStatus.ERROR, error
        elif self._problem:
            level, message = DiagnosticStatus.WARN, self._problem
        else:
            level, message = DiagnosticStatus.OK, "success" if self.succeeded else "not yet" if tracker else "no task"
        status = DiagnosticStatus(
            level=level, name="task", message=message, hardware_id="simulator",
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )  # fmt: skip
        self._task_publisher.publish(set_stamp(DiagnosticArray(status=[status]), stamp))

    def _figures(self, world: Simulated) -> dict[str, str]:
        """What the task is, and how far it is."""
        tracker = self._tracker
        values = {
            "kind": "+".join(tracker.task.kinds),
            "post" if tracker.task.kind is TaskKind.DRIVE else "cube": tracker.task.colour,
            "distance": f"{tracker.distance():.3f}",
            "held": world.held_cube() or "",
        }
        if world.base_pose() is not None:
            values["touched"] = str(tracker.touched).lower()
        return values
