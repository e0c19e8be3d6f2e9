"""The scripted expert in place of a person with a leader arm, who takes over when the policy makes a mistake."""

import numpy as np
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from vla_ros.messages.joints import joint_state_message
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.base import ManagedNode
from vla_ros.nodes.bounded import subscribe_bounded
from vla_ros.nodes.qos import RECORDED_DEPTH, STATUS_QOS, sensor_qos
from vla_ros.sim.progress import Progress
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import Task
from vla_ros.sim.worlds import expert_of


class Leading:
    """Publishes where the robot is, like a leader arm that is moved along, and the expert's targets once it has taken
    over."""

    def __init__(self, node: ManagedNode, world: Simulated, patience: float, lead: float) -> None:
        """`patience`: s without progress before it takes over. `lead`: s before it gives back."""
        self._node, self._world, self._patience, self._lead = node, world, patience, lead
        self._publisher = node.create_publisher(
            JointState, "executor_node/takeover/joint_command", sensor_qos(True, RECORDED_DEPTH)
        )
        self._client = node.create_client(SetBool, "executor_node/take_over")
        subscribe_bounded(node, ExecutorStatus, "executor_node/status", self._take_status, STATUS_QOS)
        self.begin(None)

    def begin(self, task: Task | None) -> None:
        """Start another task, or none."""
        self._task, self._expert, self._progress = task, None, None
        self._leads, self._since_ns = False, 0
        self._asked: Future | None = None

    def _take_status(self, status: ExecutorStatus) -> None:
        leads = status.state == ExecutorStatus.TAKEN_OVER
        if leads != self._leads:
            self._leads, self._expert, self._progress, self._since_ns = leads, None, None, 0

    def steer(self, now_ns: int, repeats: int) -> None:
        """Make the next step, once the state of the world is known; `repeats`: steps of the expert in a control
        period."""
        world = self._world
        position = world.joint_positions()
        self._since_ns = self._since_ns or now_ns
        if self._leads:
            self._expert = self._expert or expert_of(world, self._task)
            for _ in range(repeats):
                position = self._expert.command()
            if (now_ns - self._since_ns) * 1e-9 >= self._lead:
                self._ask(False)
        else:
            self._progress = self._progress or Progress(self._task, world)
            if self._progress.standstill(now_ns) >= self._patience:
                self._ask(True)
        self._publisher.publish(joint_state_message(JointState, world.joint_names, np.asarray(position), now_ns))

    def _ask(self, take: bool) -> None:
        """Send one request at a time; a refused one is repeated. Without a server it is never answered."""
        if (self._asked is None or self._asked.done()) and self._client.service_is_ready():
            self._asked = self._client.call_async(SetBool.Request(data=take))
