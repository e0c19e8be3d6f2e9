"""Poses published over DDS move the tool of the simulated SO-101."""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from control.tool_robots import SO101, pose_row, so101, tool_targets
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from system.support import Lasting, Probe, free_domain
from trajectory_msgs.msg import JointTrajectory

from vla_ros.core.chunk import ActionChunk, Space, Targets
from vla_ros.core.instruction import instruction_id
from vla_ros.graph.simulated import SimulatedGraph
from vla_ros.messages.chunks import chunk_message
from vla_ros.messages.joints import joint_positions
from vla_ros.messages.stamps import stamp_ns
from vla_ros.msg import ActionChunk as ChunkMessage
from vla_ros.msg import ActionPart, ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, sensor_qos

TEXT, STATUS = "go there", "executor_node/status"
LIMITS, ARM = so101()
ROWS, STEP = 100, 0.5  # a chunk of 50 s of simulated time, which goes on as fast as it can


class ToolGraph(SimulatedGraph):
    """Simulator and executor; the test is the policy."""

    def followed(self) -> list[int | None]:
        return [None if self.watch.executor is None else self.watch.executor.instruction_id]

    def bring_up(self) -> None:
        self.probe, self.sequence = Probe(self.graph), 0
        self.probe.record(SO101.joint_state_topics[0], JointState, sensor_qos(reliable=True, depth=1000))
        self.probe.record(STATUS, ExecutorStatus, STATUS_QOS)
        self.probe.record(SO101.groups[0].topic, JointTrajectory, COMMAND_QOS)
        self.graph.start("executor_node", parameters=self.common | {"max_chunk_age": 60.0, "mode": "latest"})
        self.simulation.start(self.robot_file, lockstep=True, chunks=False, patience=300.0)
        self.graph.configure("executor_node")
        self.chunks = self.probe.publisher("action_chunk", ChunkMessage)

    def go(self) -> None:
        """Time goes on, with an active executor."""
        self.simulation.reset(seed=0, time_limit=0.0)
        self.graph.activate_when_ready("executor_node")
        self.instruct(TEXT)
        self.wait_until_steered()
        self.simulation.run()
        self.probe.wait_message(SO101.joint_state_topics[0], lambda m: True, "joint states")

    @property
    def newest(self) -> JointState:
        return self.probe.last(SO101.joint_state_topics[0])

    def place(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the tool was measured last, as forward kinematics say."""
        return ARM.pose(joint_positions(self.newest, LIMITS.names))

    def send(self, targets: Targets) -> ExecutorStatus:
        """Publishes a chunk observed now; the status that answers it."""
        self.sequence += 1
        stamp = stamp_ns(self.newest) if self.newest else 1
        chunk = ActionChunk(stamp, STEP, targets, instruction_id(TEXT), self.sequence, 1)
        self.chunks.publish(chunk_message(ChunkMessage, ActionPart, chunk))
        return self.probe.wait_message(STATUS, lambda s: s.chunk_sequence == self.sequence, "the answer to a chunk")


@pytest.fixture
def world(lasting: Lasting, tmp_path_factory: pytest.TempPathFactory) -> ToolGraph:
    @contextmanager
    def make() -> Iterator[ToolGraph]:
        with ToolGraph(tmp_path_factory.mktemp("tool") / "graph", "so101", domain=free_domain()) as made:
            made.bring_up()
            yield made

    return lasting.get(make)


def test_the_tool_goes_to_the_pose_and_an_e_stop_holds_it_on_the_way(world: ToolGraph):
    graph, probe = world.graph, world.probe
    still = tool_targets([pose_row(*ARM.pose(np.zeros(6)))] * ROWS)
    status = world.send(still)
    said = "space: END_EFFECTOR_POSE, expected JOINT_POSITION alone: its tool needs a URDF"
    assert status.last_refusal.startswith(said)
    graph.cleanup("executor_node")
    graph.set_parameters("executor_node", {"robot_description_topic": "robot_description"})
    graph.configure("executor_node")
    world.go()

    place, rotation = world.place()
    wanted = place + [0.03, 0.05, -0.04]
    status = world.send(tool_targets([pose_row(wanted, rotation, "quaternion_xyzw")] * ROWS, form="quaternion_xyzw",
                                     gripper=1.0))
    assert status.accepted_chunks == 1, status.last_refusal
    probe.wait_for(lambda: np.linalg.norm(world.place()[0] - wanted) < 0.005, "the tool at its pose")
    assert np.linalg.norm(wanted - place) > 0.05
    probe.wait_for(lambda: probe.last(STATUS).state == ExecutorStatus.EXECUTING, "EXECUTING")
    gripper = LIMITS.names.index("gripper")
    probe.wait_for(lambda: abs(joint_positions(world.newest, LIMITS.names)[gripper] - 1.0) < 0.1, "the gripper open")

    start = world.place()[0]  # and a difference of it, in the tool's own frame
    status = world.send(tool_targets(np.array([[-0.04] + [0.0] * 5] + [[0.0] * 6] * (ROWS - 1)),
                                     Space.END_EFFECTOR_DELTA, "tip"))
    assert status.accepted_chunks == 2, status.last_refusal
    probe.wait_for(lambda: np.linalg.norm(world.place()[0] - start) > 0.035, "a difference followed")

    start, rotation = world.place()
    far = start + [0.0, -0.1, 0.0]
    assert world.send(tool_targets([pose_row(far, rotation)] * ROWS)).accepted_chunks == 3
    button = probe.publisher("e_stop", Bool)
    probe.wait_for(lambda: np.linalg.norm(world.place()[0] - start) > 0.01, "the tool on its way")
    button.publish(Bool(data=True))
    probe.wait_for(lambda: probe.last(STATUS).state == ExecutorStatus.E_STOPPED, "E_STOPPED")
    count = len(probe.messages(SO101.groups[0].topic))
    probe.wait_for(lambda: len(probe.messages(SO101.groups[0].topic)) > count + 100, "commands that hold")
    held = probe.messages(SO101.groups[0].topic)[count + 60 : count + 100]
    commands = [array("d", message.points[0].positions) for message in held]
    assert all(command == commands[0] for command in commands)
    assert world.send(tool_targets([pose_row(far, rotation)] * ROWS)).last_refusal.startswith("e_stopped: ")
