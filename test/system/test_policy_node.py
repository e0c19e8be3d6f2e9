"""policy_node over DDS: what a peer sees of chunks and status, and what stops it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import State
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from system.robot import ROBOT_FILE, FakeRobot, image_message
from system.support import Lasting, Probe, free_domain
from tiny_checkpoint import HORIZON, STEP_DT, tiny_checkpoint

from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.processes import Graph, GraphError
from vla_ros.messages.chunks import read_chunk
from vla_ros.messages.stamps import NS, stamp_ns
from vla_ros.msg import ActionChunk, PolicyStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS
from vla_ros.runtime.engines.backends import ENGINES

STATUS = "policy_node/status"
HOUR = 3600 * NS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("policy") / "tiny", RobotSpec.load(ROBOT_FILE))


@pytest.fixture
def policy(lasting: Lasting, tmp_path_factory: pytest.TempPathFactory) -> "Policy":
    """One process for all tests here; each configures it for itself and cleans it up."""
    @contextmanager
    def make() -> Iterator[Policy]:
        folder = tmp_path_factory.mktemp("graph")
        with Graph(folder, domain=free_domain(), environment={"XDG_CACHE_HOME": str(folder / "cache")}) as graph:
            yield Policy(graph)

    return lasting.get(make)


class Policy:
    """A policy node, a robot for it, and what it said."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.probe = Probe(graph)
        self.probe.record(STATUS, PolicyStatus, STATUS_QOS)
        self.probe.record("action_chunk", ActionChunk, COMMAND_QOS)
        fixed = {"robot": str(ROBOT_FILE), "device": "cpu", "threads": 1, "reliable_sensors": True}
        graph.start("policy_node", parameters=fixed)
        self.parameters = AsyncParameterClient(graph.node, "policy_node")
        self.probe.wait_for(self.parameters.services_are_ready, "the node's parameter services")
        self.instruction = self.probe.publisher("instruction", String)

    def set(self, **values) -> None:
        """As `ros2 param set` does."""
        future = self.parameters.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        self.probe.wait_for(future.done, f"the parameters {values}")
        assert all(result.successful for result in future.result().results)

    @contextmanager
    def up(self, checkpoint: Path, max_age: float) -> Iterator[FakeRobot]:
        """Configured and active, with a robot whose publishers are matched."""
        self.set(policy=str(checkpoint), max_age=max_age)
        self.graph.bring_up("policy_node")
        robot = FakeRobot(self.probe)
        self.probe.wait_for(lambda: self.graph.node.count_publishers("action_chunk") == 1, "the publisher of chunks")
        yield robot
        robot.close()
        self.graph.deactivate("policy_node")
        self.graph.cleanup("policy_node")

    def tell(self, text: str) -> None:
        self.instruction.publish(String(data=text))
        identity = instruction_id(text)
        self.wait_status(lambda status: status.instruction_id == identity, f"instruction {text!r} in the status")

    def wait_status(self, accept, what: str) -> PolicyStatus:
        return self.probe.wait_for(lambda: (s := self.probe.last(STATUS)) and accept(s) and s, what)

    def chunk_of(self, stamp: int) -> ActionChunk:
        return self.probe.wait_message(
            "action_chunk", lambda chunk: stamp_ns(chunk) == stamp, f"the chunk of the observation at {stamp}"
        )


def edited(checkpoint: Path, folder: Path, name: str, edit) -> Path:
    """A copy of the checkpoint with one file changed."""
    folder.mkdir()
    for file in checkpoint.iterdir():
        data = file.read_bytes()
        (folder / file.name).write_bytes(edit(data) if file.name == name else data)
    return folder


def test_what_stops_configure_is_named(policy: Policy, checkpoint: Path, tmp_path: Path):
    truncated = edited(checkpoint, tmp_path / "truncated", "model.safetensors", lambda data: data[: len(data) // 2])
    renamed = edited(
        checkpoint, tmp_path / "renamed", "embodiment.yaml", lambda data: data.replace(b"wrist: wrist", b"wrist: left")
    )

    def fewer_joints(data: bytes) -> bytes:
        config = json.loads(data)
        config["policy"]["state_dim"] = 5
        return json.dumps(config).encode()

    narrow = edited(checkpoint, tmp_path / "narrow", "config.json", fewer_joints)
    cases = {
        "truncated": ({"policy": str(truncated)}, ["model.safetensors"]),
        "renamed": ({"policy": str(renamed)}, ["camera 'left'", "front", "wrist"]),
        "narrow": ({"policy": str(narrow)}, ["state of 6 dimensions", "at most 5"]),
        "absent": ({"policy": str(tmp_path / "nowhere")}, ["nowhere", "no such"]),
        "robotless": ({"robot": str(tmp_path / "robot.yaml")}, ["robot.yaml", "no such file"]),
    }
    for name, (values, words) in cases.items():
        policy.set(**{"robot": str(ROBOT_FILE), "policy": str(checkpoint)} | values)
        with pytest.raises(GraphError) as error:
            policy.graph.configure("policy_node")
        for word in words:
            assert word in str(error.value).splitlines()[-1], f"{name}: {error.value}"
        # Unconfigured: it can be corrected and tried again, as the next turn does.
        assert policy.graph.state("policy_node") == State.PRIMARY_STATE_UNCONFIGURED
    policy.set(robot=str(ROBOT_FILE), policy=str(checkpoint))
    policy.graph.configure("policy_node")
    policy.graph.cleanup("policy_node")


def test_instructions_make_chunks_and_bad_streams_are_named(policy: Policy, checkpoint: Path):
    with policy.up(checkpoint, max_age=30.0) as robot:
        done = _follow_instructions(policy, robot)
    assert policy.wait_status(lambda s: s.state == PolicyStatus.UNCONFIGURED, "the way down").inferences == done


def _follow_instructions(policy: Policy, robot: FakeRobot) -> int:
    """Returns the number of inferences at the empty instruction; nothing after it may add to it."""
    probe = policy.probe

    # No instruction: nothing is inferred, though everything is there.
    lying = robot.observe()
    assert policy.wait_status(lambda s: s.state == PolicyStatus.IDLE, "idle").chunks == 0

    # An instruction: the images that lie there are used at once, then one chunk for each new set.
    policy.tell("touch the red cube")
    policy.chunk_of(lying)
    stamps = [robot.observe()]
    chunk = policy.chunk_of(stamps[0])
    parsed = read_chunk(chunk)
    (part,) = parsed.targets.parts
    assert part.names == robot.spec.joint_names
    assert part.data.shape == (HORIZON, 6) and parsed.step_dt == STEP_DT
    assert abs(part.data).max() < 0.5  # rad: the statistics of the checkpoint were applied
    assert parsed.instruction_id == instruction_id("touch the red cube")
    for _ in range(3):
        stamps.append(robot.observe())
        policy.chunk_of(stamps[-1])
    status = policy.wait_status(lambda s: s.state == PolicyStatus.RUNNING and s.chunks >= 4, "running")
    assert status.inference_time > 0 and status.encode_time > 0 and status.act_time > 0
    chunks = [chunk for chunk in probe.messages("action_chunk") if stamp_ns(chunk) in stamps]
    assert len(chunks) == len(stamps)  # exactly one on each
    sequence = [chunk.sequence for chunk in probe.messages("action_chunk")]
    assert sequence == list(range(sequence[0], sequence[0] + len(sequence)))
    assert {chunk.session for chunk in chunks} == {status.session}

    # Another instruction takes effect with the next inference, and changes the actions.
    policy.tell("pick up the blue cube")
    other = policy.chunk_of(robot.observe())
    assert other.instruction_id == instruction_id("pick up the blue cube")
    assert list(other.parts[0].data) != list(chunks[-1].parts[0].data)

    # A camera that shows another resolution is scaled as the policy wants.
    policy.chunk_of(robot.observe(size=(320, 240)))
    policy.chunk_of(robot.observe())
    policy.wait_status(lambda s: s.state == PolicyStatus.RUNNING and not s.waiting_for, "running")

    # One stamp that cannot be is said, and changes nothing of what comes after it.
    ahead = robot.now() + HOUR
    robot.images["front"].publish(image_message(100, ahead))
    policy.wait_status(lambda s: s.message.startswith("front: stamped "), "the stamp of the image")
    policy.chunk_of(robot.observe())
    robot.publish_joints(ahead)
    policy.wait_status(lambda s: s.message.startswith("joint_states: stamped "), "the stamp of the joint states")
    policy.chunk_of(robot.observe())
    for camera, stamp in (("wrist", 0), ("front", robot.now() - HOUR)):
        robot.images[camera].publish(image_message(100, stamp))
        robot.publish_joints(stamp or robot.now() - HOUR)
        policy.chunk_of(robot.observe())

    # Joint states without a stamp are of their arrival; those that contradict themselves are said, and change nothing.
    stamp = robot.now()
    for camera in ("front", "wrist"):
        robot.images[camera].publish(image_message(100, stamp))
    robot.publish_joints(0)
    probe.wait_message("action_chunk", lambda chunk: stamp_ns(chunk) > stamp, "the chunk on unstamped joint states")
    robot.arm.publish(JointState(name=["a", "b"], position=[0.0]))
    said = "undecodable: joint_states: 2 names and 1 positions, expected as many"
    policy.wait_status(lambda s: s.message == said, "the refusal of joint states")
    policy.chunk_of(robot.observe())

    # An instruction that is too long changes nothing.
    policy.instruction.publish(String(data="x" * 10_001))
    refused = policy.wait_status(lambda s: s.message.startswith("size: "), "the refusal of a long instruction")
    assert refused.message == "size: instruction: 10001 bytes, limit 10000"
    assert refused.instruction_id == instruction_id("pick up the blue cube")

    # The empty instruction stops inference, new images or not.
    policy.tell("")
    policy.wait_status(lambda s: s.state == PolicyStatus.IDLE, "idle again")
    done = probe.last(STATUS).inferences
    robot.observe()
    return done


def test_a_missing_and_a_frozen_camera_are_named_with_their_age(policy: Policy, checkpoint: Path):
    with policy.up(checkpoint, max_age=1.0) as robot:
        policy.tell("touch the red cube")
        status = policy.wait_status(lambda s: s.state == PolicyStatus.WAITING, "no input at all")
        assert sorted(status.waiting_for) == ["front", "joint_states", "wrist"] and "no message yet" in status.message
        last = 0.0

        def feed(accept, what: str, wrist: int | None) -> PolicyStatus:
            """The front camera and the joints go on; the wrist camera stays at one stamp, or is silent."""

            def step():
                nonlocal last
                if time.monotonic() - last > 0.1:
                    last = time.monotonic()
                    stamp = robot.observe(cameras=("front",))
                    if wrist is not None:
                        robot.observe(wrist, cameras=("wrist",))
                        robot.publish_joints(stamp)
                status = policy.probe.last(STATUS)
                return status if accept(status) else None

            return policy.probe.wait_for(step, what)

        feed(lambda s: list(s.waiting_for) == ["wrist"] and "no message yet" in s.message, "the missing camera", None)
        frozen = robot.now()
        status = feed(lambda s: list(s.waiting_for) == ["wrist"] and "s old" in s.message, "the frozen camera", frozen)
        assert "expected at most 1.000 s" in status.message
        assert status.refused_observations >= 2

        def without_gripper() -> PolicyStatus | None:
            nonlocal last
            if time.monotonic() - last > 0.1:
                last = time.monotonic()
                stamp = robot.now()
                for camera in ("front", "wrist"):
                    robot.images[camera].publish(image_message(100, stamp))
                robot.publish_joints(stamp, hand=False)
            status = policy.probe.last(STATUS)
            return status if "joint gripper: " in status.message else None

        status = policy.probe.wait_for(without_gripper, "the joint that fell silent")
        assert list(status.waiting_for) == ["joint_states"] and "limit 1 s" in status.message
        policy.tell("")


def test_a_peer_sees_torchs_chunks_whatever_engine_runs_the_policy(policy: Policy, checkpoint: Path):
    """`auto` takes torch in the tests, by VLA_ROS_ENGINE. One other engine will do: test_engines.py tries each."""
    found = {}
    installed = [name for name in ("openvino", "onnxruntime") if not ENGINES[name].missing()]
    for engine in ("auto", *installed[:1]):
        policy.set(engine=engine)
        with policy.up(checkpoint, max_age=30.0) as robot:
            policy.tell("touch the red cube")
            (part,) = read_chunk(policy.chunk_of(robot.observe())).targets.parts
            found[engine] = part.data
    policy.set(engine="auto")
    policy.tell("")
    torchs = found.pop("auto")
    log = (policy.graph.folder / "policy_node.log").read_text()
    for engine, data in found.items():
        assert f"on cpu with {engine} from" in log
        assert 0 < abs(data - torchs).max() <= 1e-4 * np.ptp(torchs), engine
