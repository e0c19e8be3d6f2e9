"""Inputs of a takeover: the source's joint positions and velocities of a base, and the service that takes over and
gives back."""

import threading
from collections.abc import Callable

from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from vla_ros.control.executor import Executor
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import JOINT_STATE, Stream
from vla_ros.messages.stamps import stamp_ns
from vla_ros.nodes.base import ManagedNode
from vla_ros.nodes.bounded import subscribe_state
from vla_ros.nodes.executor.parameters import ExecutorParameters
from vla_ros.nodes.qos import sensor_qos

_KEPT = 10  # messages in the queue


class TakeoverInput:
    """The topic `takeover_topic`, and the service `~/take_over`: true takes over, false gives back."""

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
    ) -> None:
        """`lock`: of the executor. `now_ns`: ROS time. `told` is called after changes that the status must show at
        once.

        Raises InputError for a topic of the robot's own joint states or commands.
        """
        self._node, self._executor, self._lock, self._now_ns, self._told = node, executor, lock, now_ns, told
        self._topic = node.resolve_topic_name(parameters.takeover_topic)
        own = (*(stream.topic for stream in robot.measured_streams), *(group.topic for group in robot.groups))
        if self._topic in map(node.resolve_topic_name, filter(None, own)):
            raise InputError(f"takeover_topic: {self._topic} is the robot's own, which would follow itself, expected "
                             "the topic of a leader arm or of another source")
        qos = sensor_qos(parameters.reliable_sensors, depth=_KEPT)
        subscribe_state(node, Stream("takeover", parameters.takeover_topic, JOINT_STATE), self._take, qos)
        node.create_service(SetBool, "~/take_over", self._serve)

    def _take(self, message: JointState) -> None:
        with self._lock:
            names, stamp = list(message.name), stamp_ns(message)
            self._executor.takeover.heard(stamp, names, message.position, self._now_ns() or stamp)

    def _serve(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        executor = self._executor
        with self._lock:
            by, now_ns = executor.takeover.by, self._now_ns()
            try:
                if request.data:
                    executor.take_over(self._topic, now_ns)
                    response.message = f"{self._topic} has taken over"
                else:
                    executor.give_back(now_ns)
                    response.message = f"{by} has given back" if by else "nobody had taken over"
                response.success = True
            except InputError as error:
                response.message = f"not taken over: {error}"
            self._told()
        self._node.get_logger().info(response.message)
        return response
