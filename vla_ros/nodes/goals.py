"""Goals for robots that are commanded through an action: a gripper, or an arm without a topic for trajectories."""

import sys
import threading
import time
from array import array
from collections import deque
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectoryPoint

from vla_ros.core.command_group import ACTIONS, GRIPPERS, CommandGroup
from vla_ros.core.errors import InputError
from vla_ros.messages.stamps import NS

PERIOD = 0.05  # s between two goals at least
DELAY = 0.1  # s by which an arm lags behind its commands: a goal contains those of the last so many seconds
_SPACING = 0.01  # s between the points of a goal at least
_NEAR = 0.01  # fraction of a gripper's range: a target nearer to the last goal needs no new one
_SAME = 1e-4  # unless it has come to rest further from it than this
_AGAIN = 0.5  # s after a rejection until the goal is sent again


def action_class(interface: str) -> type:
    """Raises InputError if the package of the action is not installed."""
    package, _, name = ACTIONS[interface].split("/")
    try:
        return getattr(import_module(f"{package}.action"), name)
    except ImportError:
        raise InputError(
            f"interface {interface}: package {package} is not installed, expected it for {ACTIONS[interface]} "
            f"(apt install ros-$ROS_DISTRO-{package.replace('_', '-')})"
        ) from None


class Goals:
    """Sends the commands of a group as goals. `take` is called by the control loop, everything else by the node's
    thread.

    Attributes:
        trouble: that nobody offers the action, or that it rejected or aborted the newest goal, in words; else "".
    """

    def __init__(self, node: Node, group: CommandGroup) -> None:
        self.trouble = ""
        self._node, self._group = node, group
        self._kind = action_class(group.interface)
        self._client = ActionClient(node, self._kind, group.action)
        self._lock = threading.Lock()
        self._count = self._heard = 0  # numbers of the newest goal that was sent, and that was answered
        self._rejected: float | None = None  # when, time.monotonic()
        self._timer = node.create_timer(PERIOD, self._send_due, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def take(self, positions: np.ndarray, braking: np.ndarray, period: float, reach_in: float) -> None:
        """(G,) positions to reach in `reach_in` s, and (K, G) those of braking after it, `period` s apart."""
        raise NotImplementedError

    def due(self, again: bool) -> Any:
        """The next goal; None if there is nothing new. `again`: repeat the last one."""
        raise NotImplementedError

    def close(self) -> None:
        self._count = self._heard = sys.maxsize  # pending answers are no longer relevant
        self._node.destroy_timer(self._timer)
        self._client.destroy()

    def _send_due(self) -> None:
        if not self._client.server_is_ready():
            self.trouble = f"nobody offers {self._group.action}, expected the controller of {self._group.name}"
            return
        if self.trouble.startswith("nobody"):
            self.trouble = ""
        goal = self.due(self._rejected is not None and time.monotonic() - self._rejected > _AGAIN)
        if goal is None:
            return
        self._count += 1
        self._rejected = None
        self._client.send_goal_async(goal).add_done_callback(lambda f, n=self._count: self._answered(n, f.result()))

    def _answered(self, number: int, handle: Any) -> None:
        """Counts even if a newer goal was sent meanwhile, because answers may take longer than `PERIOD`."""
        if number < self._heard:
            return
        self._heard = number
        if not handle.accepted:
            self.trouble = f"the action {self._group.action} rejected a goal of {self._group.name}"
            if number == self._count:
                self._rejected = time.monotonic()
            return
        self.trouble = ""
        handle.get_result_async().add_done_callback(lambda f: self._ended(number, f.result()))

    def _ended(self, number: int, answer: Any) -> None:
        if number != self._count:  # a newer goal has replaced it; some servers abort it then
            return
        if answer.status == GoalStatus.STATUS_ABORTED and not self._fine(answer.result):
            why = getattr(answer.result, "error_string", "")
            self.trouble = f"the action {self._group.action} aborted a goal of {self._group.name}" + (
                f": {why}" if why else ""
            )

    def _fine(self, result: Any) -> bool:
        """Whether an aborted goal was reached all the same."""
        return False


class GripperGoals(Goals):
    """A goal for each new target of a gripper: control_msgs/GripperCommand or ParallelGripperCommand."""

    def __init__(self, node: Node, group: CommandGroup, span: float) -> None:
        """`span`: rad or m between the joint's limits."""
        self._near, self._same = _NEAR * span, _SAME * span
        self._asked = self._target = self._before = None
        super().__init__(node, group)

    def take(self, positions: np.ndarray, braking: np.ndarray, period: float, reach_in: float) -> None:
        self._target = float(positions[0])
        if self._asked is None:
            self._asked = self._target  # its position at the beginning

    def due(self, again: bool) -> Any:
        target, before = self._target, self._before
        self._before = target
        near = self._same if target == before else self._near
        if target is None or not again and abs(target - self._asked) <= near:
            return None
        self._asked = target
        goal = self._kind.Goal()
        if self._group.interface == "gripper_command":
            goal.command.position, goal.command.max_effort = target, self._group.max_effort
        else:  # a JointState; without an effort the controller takes its own
            goal.command.name, goal.command.position = self._group.driver_joints, [target]
            goal.command.effort = [self._group.max_effort] if self._group.max_effort else []
        return goal

    def _fine(self, result: Any) -> bool:
        return result.stalled or result.reached_goal  # it holds an object


class TrajectoryGoals(Goals):
    """FollowJointTrajectory goals with the commands of the last `DELAY` s and the braking after them, twenty a
    second."""

    def __init__(self, node: Node, group: CommandGroup) -> None:
        self._way: deque[tuple[int, np.ndarray]] = deque()  # steady time, (G,)
        self._after: list[tuple[int, np.ndarray]] = []
        self._end: np.ndarray | None = None  # of the last goal
        super().__init__(node, group)

    def take(self, positions: np.ndarray, braking: np.ndarray, period: float, reach_in: float) -> None:
        now_ns = time.monotonic_ns()
        with self._lock:
            if self._end is None:
                self._end = positions
            if not self._way or now_ns - self._way[-1][0] >= _SPACING * NS * 0.9:
                self._way.append((now_ns, positions))
            else:
                self._way[-1] = (self._way[-1][0], positions)
            while now_ns - self._way[0][0] > DELAY * NS:
                self._way.popleft()
            self._after = [(now_ns + round(k * period * NS), row) for k, row in enumerate(braking, start=1)]
            if reach_in > period:  # it has stayed behind: go there within its limits
                self._way.clear()
                self._way.append((now_ns, positions))
                self._after = [(now_ns + round(reach_in * NS), positions)]

    def due(self, again: bool) -> Any:
        start_ns = time.monotonic_ns() - round(DELAY * NS)
        with self._lock:
            way = [(at_ns, position) for at_ns, position in (*self._way, *self._after) if at_ns > start_ns]
        if not way or not again and all(np.array_equal(position, self._end) for _, position in way):
            return None
        if len(self._way) == 1:  # a single point to go to
            way = way[-1:]
        self._end = way[-1][1]
        goal = self._kind.Goal()
        goal.trajectory.joint_names = self._group.driver_joints
        goal.trajectory.points = list(_points(way, start_ns))
        return goal


def _points(way: list[tuple[int, np.ndarray]], start_ns: int) -> Iterator[JointTrajectoryPoint]:
    """The points after `start_ns`, at least `_SPACING` apart except the last, where it is at rest."""
    last_ns = start_ns
    for k, (at_ns, position) in enumerate(way):
        if at_ns > last_ns and (at_ns - last_ns >= _SPACING * NS * 0.5 or k == len(way) - 1):
            point = JointTrajectoryPoint(positions=array("d", position))
            point.time_from_start.sec, point.time_from_start.nanosec = divmod(at_ns - start_ns, NS)
            last_ns = at_ns
            yield point


def make_goals(node: Node, group: CommandGroup, span: float) -> Goals | None:
    """For a group of `ACTIONS`; None for one of a topic. `span`: of its first joint, rad or m."""
    if group.interface in GRIPPERS:
        return GripperGoals(node, group, span)
    return TrajectoryGoals(node, group) if group.interface in ACTIONS else None
