"""A robot behind controllers: they accept, refuse and interpolate as ros2_controllers documents it.

joint_trajectory_controller: userdoc, "Trajectory Representation" and "Trajectory Replacement" of its documentation;
forward_command_controller: the newest value of the right length counts.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rclpy
from rclpy.action import ActionServer, GoalResponse
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from vla_ros.messages.stamps import NS, set_stamp, stamp_ns


class TrajectoryController:
    """joint_trajectory_controller with position interfaces, in explicit time of its own clock.

    Attributes:
        accepted: number of trajectories.
        rejected: the reasons of those that were not.
        desired: (J,) what it commands the joints at present.
    """

    def __init__(
        self, joints: Sequence[str], position: np.ndarray, *, from_desired: bool = True, partial: bool = False
    ) -> None:
        """`from_desired`: interpolate_from_desired_state; `partial`: allow_partial_joints_goal."""
        self.joints, self.from_desired, self.partial = list(joints), from_desired, partial
        self.desired = np.array(position, dtype=np.float64)
        self.accepted, self.rejected = 0, []
        self._new: JointTrajectory | None = None
        self._times: list[int] = []  # of the running trajectory
        self._points: list[np.ndarray] = []

    def fault(self, message: JointTrajectory, now_ns: int) -> str:
        """Why it does not accept a message; "" where it does."""
        names, points = list(message.joint_names), message.points
        unknown = set(names) - set(self.joints)
        if not names or unknown or (not self.partial and len(names) != len(self.joints)):
            return f"joints {names}"
        if not points:
            return "empty trajectory"
        times = [_duration_ns(point) for point in points]
        start = stamp_ns(message)
        if start and start + times[-1] < now_ns:
            return "ends in the past"
        if any(later <= earlier for earlier, later in zip(times, times[1:], strict=False)):
            return "times do not increase"
        for point in points:
            values = (point.positions, *(v for v in (point.velocities, point.accelerations) if len(v)))
            if any(len(v) != len(names) for v in values):
                return "sizes differ"
        if any(points[-1].velocities):
            return "ends in motion"
        return ""

    def take(self, message: JointTrajectory, now_ns: int) -> bool:
        why = self.fault(message, now_ns)
        if why:
            self.rejected.append(why)
            return False
        self._new, self.accepted = message, self.accepted + 1
        return True

    def update(self, now_ns: int, measured: np.ndarray) -> np.ndarray:
        """(J,) what it commands now; `measured`: (J,) where the robot is."""
        if self._new is not None:
            self._replace(self._new, now_ns, measured)
            self._new = None
        if self._times:
            self.desired = np.array([np.interp(now_ns, self._times, column) for column in np.transpose(self._points)])
        return self.desired

    def _replace(self, message: JointTrajectory, now_ns: int, measured: np.ndarray) -> None:
        """From where it is to the first point that is still to come, and along the others."""
        before = self.desired if self.from_desired else measured
        start = stamp_ns(message) or now_ns
        columns = [self.joints.index(name) for name in message.joint_names]
        self._times, self._points = [], []
        for point in message.points:
            target = before.copy()  # joints that it leaves out stay
            target[columns] = point.positions
            self._times.append(start + _duration_ns(point))
            self._points.append(target)
        if self._times[0] > now_ns:  # else it samples the trajectory itself
            self._times.insert(0, now_ns)
            self._points.insert(0, before)


def _duration_ns(point: Any) -> int:
    return point.time_from_start.sec * NS + point.time_from_start.nanosec


class Driver:
    """One computer with its own clock: controllers at 100 Hz, a robot that lags behind them, its joint states.

    Attributes:
        offset_ns: its clock is ahead by.
        active: its controllers are; otherwise they ignore what comes.
        answer: "reject" every goal, or "abort" the gripper's.
        gripped: (position, effort) of the gripper's goals that it carried out.
        measured: joint -> position.
        commanded: every position that the arm's controller gave the joints, (J,) in its order.
    """

    LAG = 0.04  # s, of the joints

    def __init__(self, domain: int, arm: Sequence[str], hand: Sequence[str], home: dict[str, float]) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = node = rclpy.create_node("controller_manager", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(node)
        self.offset_ns, self.active = 0, True
        self.gripped, self.answer, self.servers = [], "", []
        self.measured = dict(home)
        self.controller = TrajectoryController(arm, self._of(arm))
        self.commanded = [self.controller.desired]
        self._hand, self._targets = list(hand), [home[name] for name in hand]
        self._publisher = node.create_publisher(JointState, "joint_states", 10)
        self._subscriptions: list[Any] = []
        self._lock, self._end = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=body, daemon=True) for body in (self._run, self._spin)]
        for thread in self._threads:
            thread.start()

    def listen(self, arm: str = "arm/command", hand: str = "hand/command") -> None:
        """The controllers are there from now on."""
        make = self.node.create_subscription
        self._subscriptions = [
            make(JointTrajectory, arm, self._guarded(lambda m: self.controller.take(m, self.now_ns())), 1),
            make(Float64MultiArray, hand, self._guarded(self._take_hand), 1),
        ]

    def offer(self, gripper: str, arm: str = "arm/follow", hand: str = "hand/grip") -> None:
        """The same controllers, as actions; needs control_msgs. `gripper`: name of its action there."""
        from control_msgs import action
        from control_msgs.action import FollowJointTrajectory

        kind, parallel = getattr(action, gripper), gripper == "ParallelGripperCommand"

        def accept(goal: Any) -> GoalResponse:
            return GoalResponse.REJECT if self.answer == "reject" else GoalResponse.ACCEPT

        def accept_trajectory(goal: Any) -> GoalResponse:
            with self._lock:
                taken = self.answer != "reject" and self.controller.take(goal.trajectory, self.now_ns())
            return GoalResponse.ACCEPT if taken else GoalResponse.REJECT

        def follow(handle: Any) -> Any:
            handle.succeed()
            return FollowJointTrajectory.Result()

        def grip(handle: Any) -> Any:
            command = handle.request.command
            if self.answer == "abort":
                handle.abort()
                return kind.Result()
            if parallel:
                assert list(command.name) == self._hand
                (position,), (effort,) = command.position, command.effort
            else:
                position, effort = command.position, command.max_effort
            self.gripped.append((position, effort))
            self._targets = [position]
            handle.succeed()
            return kind.Result(reached_goal=True)

        self.servers = [
            ActionServer(self.node, FollowJointTrajectory, arm, follow, goal_callback=accept_trajectory),
            ActionServer(self.node, kind, hand, grip, goal_callback=accept),
        ]

    def now_ns(self) -> int:
        return self.node.get_clock().now().nanoseconds + self.offset_ns

    @property
    def at_rest(self) -> bool:
        """The trajectory that it took last is over, and the robot is there."""
        with self._lock:
            over = self.now_ns() > max(self.controller._times, default=0)
            return over and bool(np.allclose(self._of(self.controller.joints), self.controller.desired, atol=1e-3))

    def close(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        for server in self.servers:
            server.destroy()
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.shutdown()

    def _spin(self) -> None:
        while not self._end.is_set():
            self.executor.spin_once(timeout_sec=0.1)

    def _of(self, names: Sequence[str]) -> np.ndarray:
        return np.array([self.measured[name] for name in names])

    def _guarded(self, take: Callable[[Any], Any]) -> Callable[[Any], None]:
        def callback(message: Any) -> None:
            with self._lock:
                if self.active:
                    take(message)

        return callback

    def _take_hand(self, message: Float64MultiArray) -> None:
        if len(message.data) == len(self._hand):
            self._targets = list(message.data)

    def _run(self) -> None:
        last = self.now_ns()
        while not self._end.wait(0.01):
            with self._lock:
                now = self.now_ns()
                share = 1.0 - np.exp(-max(now - last, 0) * 1e-9 / self.LAG)
                last, controller = now, self.controller
                arm = controller.update(now, self._of(controller.joints))
                self.commanded.append(arm)
                targets = dict(zip(controller.joints + self._hand, [*arm, *self._targets], strict=True))
                for name, target in targets.items():
                    self.measured[name] += float(share * (target - self.measured[name]))
                message = set_stamp(JointState(), now)
                message.name, message.position = list(self.measured), list(self.measured.values())
            self._publisher.publish(message)
