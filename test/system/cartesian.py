"""A robot behind a controller that takes poses or twists of its tool, in simulated time, a control period at a time."""

from array import array
from pathlib import Path

import numpy as np
import yaml
from control.posed_robots import BENT, JOINTS, posed_file
from control.tool_robots import seven_urdf
from geometry_msgs.msg import PoseStamped, TwistStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from system.support import Probe

from vla_ros.control.limits import Limits
from vla_ros.control.tool_arm import ToolArm
from vla_ros.core.chunk import ActionChunk, Targets
from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.core.rotations import from_matrix, to_matrix
from vla_ros.graph.processes import Graph
from vla_ros.messages.chunks import chunk_message
from vla_ros.messages.stamps import NS, set_stamp, stamp_ns
from vla_ros.msg import ActionChunk as ChunkMessage
from vla_ros.msg import ActionPart, ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS

PERIOD_NS, START_NS = 10_000_000, 1_000_000_000_000
TARGET, STATUS, TEXT = "arm/target", "executor_node/status", "go"
KINDS = {"pose_stamped": PoseStamped, "twist_stamped": TwistStamped}


class CartesianStage:
    """One executor in lockstep with the test, whose controller solves the inverse kinematics for itself.

    Attributes:
        now_ns: simulated time.
        joints: (8,) what the joint states say: where the controller has moved them.
        heard: [(stamp_ns, (7,) or (6,))] the commands of the tool that it took.
        refused: frames of those that it did not take, as a controller ignores all but its own.
    """

    def __init__(self, graph: Graph, probe: Probe, interface: str, pose_topic: str = "") -> None:
        """`pose_topic`: where the driver says the tool's pose; then the executor has no URDF, and no joints of the arm.
        """
        self.graph, self.probe, self.interface = graph, probe, interface
        file, urdf = Path(graph.folder) / "robot.yaml", Path(graph.folder) / "robot.urdf"
        data = posed_file(interface)
        data["tool"]["pose_topic"] = pose_topic
        file.write_text(yaml.safe_dump(data))
        urdf.write_text(seven_urdf())
        robot = RobotSpec.load(file)
        self.tool, self.arm = robot.tool, ToolArm(robot.tool, seven_urdf(), Limits.merge(robot))
        self.now_ns, self.joints = START_NS, np.append(BENT, 0.5)
        self.heard, self.refused, self.sequence = [], [], 0
        probe.record(TARGET, KINDS[interface])
        probe.record("hand/command", Float64MultiArray)
        probe.record(STATUS, ExecutorStatus, STATUS_QOS)
        graph.start("executor_node", parameters={
            "robot": str(file), "urdf": "" if pose_topic else str(urdf), "use_sim_time": True, "mode": "latest",
            "reliable_sensors": True,
        })
        graph.configure("executor_node")
        self.clock = probe.publisher("/clock", Clock, COMMAND_QOS, readers=2)
        self.states = probe.publisher("joint_states", JointState)
        self.poses = probe.publisher(pose_topic, PoseStamped) if pose_topic else None
        self.told = True  # the driver says where the tool is
        self.chunks = probe.publisher("action_chunk", ChunkMessage, COMMAND_QOS)
        self.e_stop = probe.publisher("e_stop", Bool)
        probe.publisher("instruction", String).publish(String(data=TEXT))
        self.wait(lambda s: s.instruction == TEXT, "the instruction")

    @property
    def status(self) -> ExecutorStatus:
        return self.probe.last(STATUS) or ExecutorStatus()

    def wait(self, accept, what: str) -> ExecutorStatus:
        self.probe.wait_for(lambda: accept(self.status), what)
        return self.status

    def place(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the tool is."""
        return self.arm.pose(self.joints)

    def activate(self) -> None:
        def known() -> bool:
            self.publish()
            return stamp_ns(self.status) == self.now_ns and np.isfinite(self.status.measured).all()

        self.probe.wait_for(known, "time and joint states in the status")
        self.graph.activate("executor_node")
        self._take()

    def publish(self) -> None:
        message = set_stamp(JointState(), self.now_ns)
        first = 7 if self.poses else 0
        message.name, message.position = [*JOINTS, "gripper"][first:], array("d", self.joints[first:])
        self.states.publish(message)
        if self.poses and self.told:
            self.poses.publish(self._pose())
        clock = Clock()
        set_stamp(clock.clock, self.now_ns)
        self.clock.publish(clock)

    def _pose(self) -> PoseStamped:
        message, (place, rotation) = set_stamp(PoseStamped(), self.now_ns), self.place()
        message.header.frame_id = self.tool.frame
        at, turned = message.pose.position, message.pose.orientation
        at.x, at.y, at.z = place.tolist()
        turned.x, turned.y, turned.z, turned.w = from_matrix(rotation, "quaternion_xyzw").tolist()
        return message

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.now_ns += PERIOD_NS
            self.publish()
            self._take()

    def send(self, targets: Targets, dt: float = 0.1) -> ExecutorStatus:
        """A chunk observed now; the status that answers it."""
        self.sequence += 1
        chunk = ActionChunk(self.now_ns, dt, targets, instruction_id(TEXT), self.sequence, 1)
        self.chunks.publish(chunk_message(ChunkMessage, ActionPart, chunk))
        return self.wait(lambda s: s.chunk_sequence == self.sequence, "the answer to a chunk")

    def _take(self) -> None:
        message = self.probe.wait_message(TARGET, lambda m: stamp_ns(m) == self.now_ns, f"a command for {self.now_ns}")
        count = len(self.probe.messages(TARGET))
        hand = self.probe.wait_for(lambda: self.probe.messages("hand/command")[count - 1 :], "the gripper's command")
        self.joints[7] = hand[-1].data[0]
        if message.header.frame_id != self.tool.frame:
            self.refused.append(message.header.frame_id)
            return
        values = self._values(message)
        self.heard.append((stamp_ns(message), values))
        for _ in range(8 if self.interface == "pose_stamped" else 1):
            self.joints[:7] += self._step(values)

    def _values(self, message) -> np.ndarray:
        if self.interface == "pose_stamped":
            place, turned = message.pose.position, message.pose.orientation
            return np.array([place.x, place.y, place.z, turned.x, turned.y, turned.z, turned.w])
        place, turned = message.twist.linear, message.twist.angular
        return np.array([place.x, place.y, place.z, turned.x, turned.y, turned.z])

    def _step(self, values: np.ndarray) -> np.ndarray:
        """(7,) by the plain pseudoinverse, so its null space drifts as it likes."""
        place, rotation, jacobian = self.arm.placed(self.joints)
        if self.interface == "twist_stamped":
            return np.linalg.pinv(jacobian) @ values * PERIOD_NS / NS
        turned = to_matrix(values[3:], "quaternion_xyzw")
        return np.linalg.pinv(jacobian) @ np.concatenate([values[:3] - place, self.arm.turn(rotation, turned)])


def lengths(rows: np.ndarray) -> np.ndarray:
    """(K, 2) of the halves of (K, 6)."""
    return np.linalg.norm(np.reshape(rows, (-1, 2, 3)), axis=2)


def velocities(heard: list[tuple[int, np.ndarray]], arm: ToolArm) -> np.ndarray:
    """(K - 1, 6) m/s and rad/s between poses, by their stamps."""
    rows = []
    for (before, a), (after, b) in zip(heard, heard[1:], strict=False):
        turn = arm.turn(*(to_matrix(values[3:], "quaternion_xyzw") for values in (a, b)))
        rows.append(np.concatenate([b[:3] - a[:3], turn]) / ((after - before) / NS))
    return np.array(rows)
