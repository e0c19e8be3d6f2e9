"""policy_node asks `vla-ros serve` in another process, which dies and comes back; a peer sees chunks and status."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import remote_servers  # noqa: F401  skips where its packages are not installed
from std_msgs.msg import String
from system.robot import ROBOT_FILE, FakeRobot
from system.support import DEADLINE, Probe

from vla_ros.cli.demo import CHECKPOINT
from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.processes import Graph, GraphError
from vla_ros.messages.chunks import read_chunk
from vla_ros.msg import ActionChunk, ExecutorStatus, PolicyStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS

# Of a robot that is seldom seen and does not follow.
PATIENT = {"joint_state_timeout": 10.0, "following_limit": 0.0, "overrun_limit": 10.0, "max_chunk_age": 30.0}
TEXT = "touch the red cube"
PATIENCE = 5 * DEADLINE  # s, for what a process that loads a policy does; never how long it takes
# As on a machine without ROS.
SERVE = "import sys; sys.modules['rclpy'] = None; from vla_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"


@contextmanager
def server(log: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen, int]]:
    """`vla-ros serve` of the shipped policy, and its port."""
    policy = log.with_suffix(".yaml")
    policy.write_text(f"checkpoint: {CHECKPOINT}\nstep_dt: 0.5\n")  # chunks of 8 s: none is late on a busy machine
    command = [sys.executable, "-P", "-c", SERVE, "serve", str(policy), "--robot", str(ROBOT_FILE), "--port",
               str(port), "--device", "cpu", "--threads", "1"]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE
        while "serving at ws://127.0.0.1:" not in (said := log.read_text()):
            assert process.poll() is None and time.monotonic() < end, said
            time.sleep(0.05)
        yield process, int(said.split("serving at ws://127.0.0.1:")[1].split(";")[0])
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait()


@contextmanager
def observed(probe: Probe) -> Iterator[None]:
    """A robot that stands still and is seen ten times a second."""
    robot, over = FakeRobot(probe), threading.Event()

    def show() -> None:
        while not over.wait(0.1):
            robot.observe()

    thread = threading.Thread(target=show)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_server_that_dies_and_comes_back(graph: Graph, probe: Probe, tmp_path: Path):
    with ExitStack() as stack:  # the robot is seen until the end
        _lose_and_find(graph, probe, tmp_path, stack)


def _lose_and_find(graph: Graph, probe: Probe, tmp_path: Path, stack: ExitStack) -> None:
    robot = RobotSpec.load(ROBOT_FILE)
    probe.record("policy_node/status", PolicyStatus, STATUS_QOS)
    probe.record("executor_node/status", ExecutorStatus, STATUS_QOS)
    probe.record("action_chunk", ActionChunk, COMMAND_QOS)

    def status(node: str, accept, what: str):
        topic = f"{node}/status"
        return probe.wait_for(lambda: (s := probe.last(topic)) and accept(s) and s, what, PATIENCE)

    policy = tmp_path / "policy.yaml"
    common = {"robot": str(ROBOT_FILE), "autostart": False}
    with server(tmp_path / "first.txt") as (process, port):
        policy.write_text(f"server: ws://127.0.0.1:{port}\ndeadline: 60\n")  # nothing here is about how fast it is
        graph.start("policy_node", parameters=common | {"policy": str(policy), "max_age": 30.0, "max_rate": 4.0})
        graph.start("executor_node", parameters=common | PATIENT | {"resume": "automatic"})
        for name in ("policy_node", "executor_node"):
            graph.configure(name)
        stack.enter_context(observed(probe))
        for name in ("policy_node", "executor_node"):
            graph.activate_when_ready(name, PATIENCE)
        tell(graph, probe, TEXT)
        wanted = instruction_id(TEXT)
        status("policy_node", lambda s: s.chunks, "a chunk")
        chunk = probe.wait_message("action_chunk", lambda m: m.instruction_id == wanted, "it")
        (part,) = read_chunk(chunk).targets.parts
        assert part.names == robot.joint_names and part.data.shape == (16, 6) and np.isfinite(part.data).all()
        said = status("policy_node", lambda s: s.state == PolicyStatus.RUNNING and s.chunks >= 3, "chunks")
        assert 0 < said.flight_time < said.inference_time and said.encode_time > 0 and said.act_time > 0
        assert said.policy == f"pi0 {policy}"
        before = status("executor_node", lambda s: s.state == ExecutorStatus.EXECUTING and s.accepted_chunks, "motion")

        process.send_signal(signal.SIGKILL)
        process.wait()
    lost = status("policy_node", lambda s: s.state == PolicyStatus.FAILED, "the loss")
    assert f"server ws://127.0.0.1:{port}: " in lost.message and "\n" not in lost.message
    status("executor_node", lambda s: s.state == ExecutorStatus.HOLDING
           and s.cause == ExecutorStatus.CAUSE_NO_CHUNK, "the executor to hold")  # fmt: skip
    refused = probe.last("policy_node/status").refused_observations
    status("policy_node", lambda s: s.refused_observations > refused, "the next attempt")  # it is not held

    with server(tmp_path / "second.txt", port):
        again = status("policy_node", lambda s: s.state == PolicyStatus.RUNNING, "chunks again")
        assert again.session == said.session and again.chunks >= said.chunks
        status("executor_node", lambda s: s.state == ExecutorStatus.EXECUTING
               and s.accepted_chunks > before.accepted_chunks, "motion again")  # fmt: skip
        graph.deactivate("policy_node")
        graph.cleanup("policy_node")  # which ends the connection
        with pytest.raises(GraphError, match="rtc: false"):
            graph.set_parameters("policy_node", {"rtc": True})
            graph.configure("policy_node")
    graph.set_parameters("policy_node", {"rtc": False})
    with pytest.raises(GraphError, match="Connection refused"):
        graph.configure("policy_node")


def tell(graph: Graph, probe: Probe, text: str) -> None:
    probe.publisher("instruction", String, readers=2).publish(String(data=text))
