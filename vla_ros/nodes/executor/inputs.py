"""Inputs of the executor: joint states, instructions, chunks, and whether the policy is running."""

import threading
import time
from collections.abc import Callable
from functools import partial

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState

from vla_ros.control.admission import Reason
from vla_ros.control.executor import Executor
from vla_ros.control.posed_tool import PosedTool
from vla_ros.control.status import Seen
from vla_ros.core.chunk import MalformedChunk
from vla_ros.core.errors import InputError
from vla_ros.core.instruction import Agreement
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import BaseState, Stream
from vla_ros.messages.chunks import MAX_PARTS, chunk_size_limit, count_parts, read_chunk
from vla_ros.messages.joints import base_pose, measured
from vla_ros.messages.stamps import stamp_ns
from vla_ros.msg import ActionChunk, PolicyStatus
from vla_ros.nodes.base import ManagedNode
from vla_ros.nodes.bounded import subscribe_bounded, subscribe_instruction, subscribe_raw, subscribe_state
from vla_ros.nodes.executor.parameters import ExecutorParameters
from vla_ros.nodes.executor.policy_watch import PolicyWatch
from vla_ros.nodes.executor.takeover import TakeoverInput
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, sensor_qos
from vla_ros.nodes.taking import Withheld
from vla_ros.nodes.taking import take as take_next

_POLICY_STATUS = "policy_node/status"
_KEPT = 10  # joint states in the queue
_LOOK_PERIOD = 0.1  # s between checks of the policy's publisher


class Inputs:
    """The node's subscriptions; messages are passed to the executor with the lock held.

    Attributes:
        instructions: number of instructions that were accepted.
    """

    def __init__(
        self,
        node: ManagedNode,
        executor: Executor,
        robot: RobotSpec,
        parameters: ExecutorParameters,
        *,
        lock: threading.RLock,
        now_ns: Callable[[], int],
        told: Callable[[], None],
        simulated: bool,
        posed: PosedTool | None = None,
    ) -> None:
        """`lock`: of the executor. `now_ns`: ROS time. `told` is called after messages that the status must show at
        once.

        `simulated`: ROS time comes from /clock. `posed`: computes the tool's pose from joint states, if the tool is
        commanded.
        """
        self._posed = posed
        self._node, self._executor, self._lock, self._now_ns, self._told = node, executor, lock, now_ns, told
        self.instructions = 0
        self._agreement, self._policy = Agreement(), None
        self._largest_chunk = chunk_size_limit(robot, parameters.max_horizon)
        joints_qos = sensor_qos(parameters.reliable_sensors, depth=_KEPT)
        self._joint_states = [
            subscribe_state(node, stream, partial(self._on_state, stream), joints_qos, self._refuse)
            for stream in map(robot.stream, robot.state_streams)
        ]
        if posed is not None and (topic := robot.tool.pose_topic):
            take = partial(self._on_pose, topic)
            self._joint_states.append(subscribe_bounded(node, PoseStamped, topic, take, joints_qos, self._refuse))
        subscribe_instruction(node, self._on_instruction, self._refuse)
        # raw: a message that is too large or cannot be decoded is refused like any other bad chunk
        subscribe_raw(node, ActionChunk, "action_chunk", self._on_chunk, COMMAND_QOS, self._largest_chunk)
        subscribe_bounded(node, PolicyStatus, _POLICY_STATUS, self._on_policy_status, STATUS_QOS, self._refuse)
        TakeoverInput(node, executor, robot, parameters, lock=lock, now_ns=now_ns, told=told)
        self._policy_watch = watch = PolicyWatch(simulated, self._on_policy)
        status = node.resolve_topic_name(_POLICY_STATUS)  # rclpy counts without regard to remappings
        node.create_steady_timer(_LOOK_PERIOD, lambda: watch.look(node.count_publishers(status) > 0))

    def catch_up(self) -> None:
        """Take the joint states that arrived while the node's thread, which calls this, was busy."""
        for subscription in self._joint_states:
            with subscription.handle:
                for _ in range(_KEPT):
                    if (taken := take_next(subscription.handle, subscription.size_limit)) is not None:
                        subscription.callback(taken[0])

    def _on_state(self, stream: Stream, message: JointState | Odometry) -> None:
        stamp, (names, values) = stamp_ns(message), measured(stream, message)
        with self._lock:
            now_ns = self._now_ns() or stamp  # before the first clock message there is no time to compare with
            if isinstance(stream, BaseState):
                self._executor.odometry(stamp, base_pose(message), message.child_frame_id, now_ns)
            if self._posed is not None:
                self._posed.joint_state(stamp, names, values, now_ns, self._executor.joint_state)
            else:
                self._executor.joint_state(stamp, names, values, now_ns)

    def _on_pose(self, topic: str, message: PoseStamped) -> None:
        stamp, place, turned = stamp_ns(message), message.pose.position, message.pose.orientation
        numbers = (place.x, place.y, place.z), (turned.x, turned.y, turned.z, turned.w)
        try:
            with self._lock:
                now_ns = self._now_ns() or stamp
                self._posed.pose(stamp, message.header.frame_id, *numbers, now_ns, self._executor.joint_state)
        except InputError as error:
            self._refuse(Reason.UNDECODABLE, f"{topic}: {error}")

    def _on_instruction(self, text: str) -> None:
        with self._lock:
            self._executor.set_instruction(text)
            self.instructions += 1
            self._told()

    @property
    def disagreement(self) -> str:
        """How the policy's instruction differs, in words; else "". Called at intervals."""
        executor, policy = self._executor, self._policy
        if policy is None or policy.state == PolicyStatus.UNCONFIGURED:
            policy = PolicyStatus(instruction_id=executor.instruction_id)
        alike = policy.instruction_id == executor.instruction_id
        return self._agreement.problem(policy.instruction, executor.instruction, alike, time.monotonic())

    def _refuse(self, reason: Reason, words: str, seen: Seen | None = None) -> None:
        """Refuse a message of any topic that is too large, cannot be decoded, or is inconsistent."""
        with self._lock:
            self._executor.refuse_chunk(reason, words, seen)
            self._told()

    def _on_chunk(self, data: bytes | Withheld) -> None:
        if len(data) > self._largest_chunk:
            self._refuse(Reason.SIZE, f"a chunk of {len(data)} bytes, limit {self._largest_chunk}")
            return
        if (parts := count_parts(data)) > MAX_PARTS:
            self._refuse(Reason.SIZE, f"a chunk of {parts} parts, limit {MAX_PARTS}")
            return
        seen = None
        try:
            message = deserialize_message(data, ActionChunk)
            seen = Seen(message.session, message.sequence, stamp_ns(message), self._now_ns())
            chunk = read_chunk(message)
        except MalformedChunk as error:
            self._refuse(Reason(error.reason), str(error), seen)
            return
        except Exception as error:  # whatever the decoder raises on foreign bytes
            self._refuse(Reason.UNDECODABLE, f"{len(data)} bytes: {error}", seen)
            return
        with self._lock:
            self._executor.add_chunk(chunk, self._now_ns())
            self._told()

    @property
    def policy_active(self) -> bool:
        """By the policy's own status."""
        resting = (PolicyStatus.UNCONFIGURED, PolicyStatus.INACTIVE)
        return self._policy is not None and self._policy.state not in resting

    def _on_policy_status(self, message: PolicyStatus) -> None:
        self._policy_watch.heard()
        self._policy = message
        waits = message.state in (PolicyStatus.WAITING, PolicyStatus.FAILED)
        with self._lock:
            self._executor.policy_waits(f"the policy: {message.message or 'waits'}" if waits else "")
        if not self.policy_active:
            with self._lock:
                self._executor.policy_session_over(message.session)

    def _on_policy(self, there: bool) -> None:
        if not there:
            self._policy = None
        with self._lock:
            self._executor.policy_alive(there, self._now_ns())
