"""The simulated robot as its peers see it, in lockstep and in real time."""

from pathlib import Path

import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Bool, String
from system.support import Probe
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_ros.core.robot import RobotSpec
from vla_ros.graph.processes import Graph, GraphError
from vla_ros.graph.simulation import Simulation
from vla_ros.messages.commands import CommandWriter
from vla_ros.messages.images import rgb_image
from vla_ros.messages.joints import joint_positions
from vla_ros.messages.stamps import set_stamp, stamp_ns
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, sensor_qos

ROBOT_FILE = str(Path(__file__).parents[2] / "config" / "robots" / "so101.yaml")
ROBOT = RobotSpec.load(ROBOT_FILE)
RELIABLE = sensor_qos(reliable=True, depth=1000)


class Steering:
    """Stands for policy and executor: a command at each tick of /clock, an answer to each front image."""

    def __init__(self, graph: Graph, answer_images: bool = True) -> None:
        node = graph.node
        self.graph = graph
        self.joints: np.ndarray | None = None
        self.images = 0
        self.offset = np.array([0.3, -0.2, 0.1, 0.0, 0.4, 0.5])
        self._writers = [
            (CommandWriter(group, JointTrajectory(), JointTrajectoryPoint),
             node.create_publisher(JointTrajectory, group.topic, COMMAND_QOS),
             [ROBOT.joint_names.index(name) for name in group.joints])
            for group in ROBOT.groups
        ]  # fmt: skip
        self._status = node.create_publisher(ExecutorStatus, "executor_node/status", STATUS_QOS)
        node.create_subscription(JointState, ROBOT.joint_state_topics[0], self._take_joints, RELIABLE)
        node.create_subscription(Clock, "/clock", self._tick, 10)
        if answer_images:
            node.create_subscription(Image, ROBOT.stream("front").topic, self._answer, RELIABLE)

    def _take_joints(self, message: JointState) -> None:
        self.joints = joint_positions(message, ROBOT.joint_names)

    def _tick(self, message: Clock) -> None:
        if self.joints is None:
            return
        for writer, publisher, columns in self._writers:
            publisher.publish(writer.fill((HOME + self.offset)[columns], stamp_ns(message.clock)))

    def _answer(self, message: Image) -> None:
        self.images += 1
        status = ExecutorStatus()
        set_stamp(status.chunk_stamp, stamp_ns(message))
        self._status.publish(status)


HOME = np.zeros(6)


def run_once(graph: Graph, probe: Probe, simulation: Simulation, seed: int) -> dict[str, list]:
    """One run of half a second; what was published in it, by time since its beginning."""
    simulation.reset(seed=seed)
    task = simulation.run_to_end()
    start = int(task.values["run_start_ns"])
    end = start + round(float(task.values["run_time"]) * 1e9)
    found = {}
    for topic in ("joint_states", ROBOT.stream("front").topic, ROBOT.stream("wrist").topic):

        def inside(topic=topic):
            return [m for m in probe.messages(topic) if start <= stamp_ns(m) < end]

        expected = 50 if topic == "joint_states" else 5
        probe.wait_for(lambda: len(inside()) >= expected, f"{expected} messages of {topic}")  # noqa: B023
        found[topic] = [
            (stamp_ns(m) - start, joint_positions(m, ROBOT.joint_names).tobytes() if topic == "joint_states"
             else rgb_image(m).tobytes())
            for m in inside()
        ]  # fmt: skip
    return found


def test_lockstep_runs_are_repeated_exactly(graph: Graph, probe: Probe):
    simulation = Simulation(graph)
    for topic, kind in (("joint_states", JointState), *((camera.topic, Image) for camera in ROBOT.cameras)):
        probe.record(topic, kind, RELIABLE)
    steering = Steering(graph)
    simulation.start(ROBOT_FILE, lockstep=True, image_rate=10.0, time_limit=0.5)
    instruction = probe.publisher("instruction", String)
    instruction.publish(String(data="touch the red cube"))
    probe.wait_for(lambda: simulation.task.values["instruction"] == "touch the red cube", "the instruction to arrive")
    first, other = run_once(graph, probe, simulation, 3), run_once(graph, probe, simulation, 4)
    again = run_once(graph, probe, simulation, 3)
    assert first == again
    assert [stamp for stamp, _ in first["joint_states"]] == [tick * 10_000_000 for tick in range(50)]
    for camera in ROBOT.cameras:
        assert [stamp for stamp, _ in first[camera.topic]] == [tick * 100_000_000 for tick in range(5)]
        assert first[camera.topic] != other[camera.topic]
    assert first["joint_states"][0] != first["joint_states"][-1]
    assert steering.images >= 15
    assert simulation.task.message == "not yet" and simulation.task.values["ended_by"] == "time limit"


def test_lockstep_names_what_did_not_come(graph: Graph, probe: Probe):
    simulation = Simulation(graph)
    simulation.start(ROBOT_FILE, lockstep=True, patience=4.0)
    with pytest.raises(GraphError, match="a command with this stamp for arm and gripper did not arrive within 4 s"):
        simulation.run_to_end()
    steering = Steering(graph, answer_images=False)
    instruction = probe.publisher("instruction", String)
    instruction.publish(String(data="touch the red cube"))
    probe.wait_for(lambda: simulation.task.values["instruction"] and steering.joints is not None, "the instruction")
    simulation.reset(seed=1)
    with pytest.raises(GraphError, match="the executor's status about a chunk"):
        simulation.run_to_end()


def test_success_is_judged_and_published(graph: Graph, probe: Probe):
    """The arm is sent to a cube by inverse kinematics of the simulator's own."""
    from vla_ros.sim.kinematics import inverse
    from vla_ros.sim.world import World

    simulation = Simulation(graph)
    probe.record("sim_node/success", Bool, STATUS_QOS)
    steering = Steering(graph)
    simulation.start(ROBOT_FILE, lockstep=True, time_limit=5.0)
    world = World(7)
    simulation.reset(seed=7, task="touch the green cube")
    reach = inverse(world.cube_positions()["green"] + [0.0, 0.0, 0.02], 0.0)
    steering.offset = np.append(reach, 0.0)
    task = simulation.run_to_end()
    assert (task.message, task.values["cube"], task.values["ended_by"]) == ("success", "green", "success")
    assert 0 < float(task.values["success_after"]) < 5
    probe.wait_message("sim_node/success", lambda m: m.data, "success to be published")
    simulation.reset(seed=7, task="touch the red cube")
    task = simulation.run_to_end()
    assert (task.message, task.values["ended_by"]) == ("not yet", "time limit")


def test_real_time_streams_and_commands(graph: Graph, probe: Probe):
    simulation = Simulation(graph)
    front = ROBOT.stream("front").topic
    probe.record("joint_states", JointState, sensor_qos())
    probe.record(front, Image, RELIABLE)
    probe.record(f"{front}/compressed", CompressedImage, RELIABLE)
    probe.record("camera/front/camera_info", CameraInfo, RELIABLE)
    simulation.start(ROBOT_FILE, seed=2)
    for topic in (front, f"{front}/compressed", "camera/front/camera_info"):
        probe.wait_for(lambda t=topic: probe.last(t), f"a message of {topic}")
    image = probe.last(front)
    assert rgb_image(image).shape == rgb_image(probe.last(f"{front}/compressed")).shape == (480, 640, 3)
    assert image.header.frame_id == "front_camera"
    info = probe.last("camera/front/camera_info")
    assert (info.width, info.height) == (640, 480) and info.k[0] == info.k[4] > 100
    writer = CommandWriter(ROBOT.groups[0], JointTrajectory(), JointTrajectoryPoint)
    arm = probe.publisher(ROBOT.groups[0].topic, JointTrajectory)
    gripper = probe.publisher(ROBOT.groups[1].topic, JointTrajectory)
    start = joint_positions(probe.last("joint_states"), ROBOT.joint_names)
    target = start + [0.4, 0, 0, 0, 0, 0.5]
    bad = target.copy()
    bad[0] = np.nan
    arm.publish(writer.fill(bad[:5], 0))  # refused: nothing moves, the next one counts
    arm.publish(writer.fill(target[:5], 0))
    gripper.publish(CommandWriter(ROBOT.groups[1], JointTrajectory(), JointTrajectoryPoint).fill(target[5:], 0))
    probe.wait_message(
        "joint_states",
        lambda m: np.abs(joint_positions(m, ROBOT.joint_names) - target)[[0, 5]].max() < 0.1,
        "the arm to arrive",
    )
    with pytest.raises(GraphError, match="only a simulation in lockstep"):
        simulation.run()
