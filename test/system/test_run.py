"""`vla-ros run` serves a checkpoint in LeRobot's layout against the simulator, and Ctrl-C leaves no process.

It is started in a folder that means harm, and strangers send what would end it or `vla-ros top` beside it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pi0_folders
import psutil
import yaml
from core.test_terminal import MARKUP
from std_msgs.msg import String
from system.robot import ROBOT_FILE
from system.support import DEADLINE, Probe
from test_working_directory import lay_trap

from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.processes import Graph
from vla_ros.messages.chunks import read_chunk
from vla_ros.msg import ActionChunk, ExecutorStatus, PolicyStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS
from vla_ros.runtime.history import example_sample
from vla_ros.runtime.serving import open_session

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
DEGREES = 180 / np.pi
STEERING = "\x1b]0;title\x07\x1b[2J\rnew"


def write_policy(folder: Path, robot: RobotSpec) -> Path:
    """A published layout with tokenizer and statistics, and the policy file that maps the robot to it."""
    pi0_folders.write_lerobot(folder / "lerobot", pi0_folders.TINY, "pi0", len(robot.joints), CAMERAS)
    pi0_folders.write_sentencepiece(folder / "lerobot" / "tokenizer.model")
    dimensions = [{"joint": name, "scale": DEGREES} for name in robot.joint_names]
    policy = {
        "checkpoint": "lerobot",
        "cameras": {"base_0_rgb": "front", "left_wrist_0_rgb": "wrist", "right_wrist_0_rgb": None},
        "state": dimensions,
        "step_dt": 0.05,
    }
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    return path


def test_run_serves_a_lerobot_folder_and_ends_with_ctrl_c(graph: Graph, probe: Probe, tmp_path: Path):
    robot = RobotSpec.load(ROBOT_FILE)
    policy = write_policy(tmp_path, robot)
    # Nothing here is about how fresh images are on a machine that pauses.
    files = {"everybody": {"/**": {"ros__parameters": {"use_sim_time": False}}},
             "patient": {"policy_node": {"ros__parameters": {"max_age": 30.0}}},
             "dry": {"executor_node": {"ros__parameters": {"dry_run": True}}}}  # fmt: skip
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    probe.record("executor_node/status", ExecutorStatus, STATUS_QOS)
    probe.record("action_chunk", ActionChunk, COMMAND_QOS)
    graph.start("sim_node", parameters={"robot": str(ROBOT_FILE)})
    trap = lay_trap(tmp_path / "downloaded", tmp_path / "RAN")
    os.mkfifo(trap / "DEFAULT_FASTDDS_PROFILES.xml")  # who reads it waits for ever
    program = [sys.executable, "-P", "-m", "vla_ros.cli.main"]
    command = [
        *program, "run", "--policy", str(policy), "--robot", "so101",
        "--device", "cpu", "--instruction", "touch the red cube",
        *(word for name in files for word in ("--params", str(tmp_path / f"{name}.yaml"))),
        "--output", str(tmp_path / "run"),
    ]  # fmt: skip
    environment = os.environ | {"ROS_DOMAIN_ID": str(graph.domain), "SKIP_DEFAULT_XML_FILE": "0"}
    said = {name: tmp_path / f"{name}.txt" for name in ("run", "top")}
    with said["run"].open("w") as output:
        run = subprocess.Popen(command, cwd=trap, env=environment, stdout=output)
    with said["top"].open("w") as output:
        top = subprocess.Popen([*program, "top"], cwd=trap, env=environment, stdout=output)
    try:
        identity = instruction_id("touch the red cube")

        def arrived() -> ActionChunk | None:
            assert run.poll() is None, f"vla-ros run ended with status {run.returncode}"
            chunks = probe.messages("action_chunk")
            return next((chunk for chunk in chunks if chunk.instruction_id == identity), None)

        chunk = read_chunk(probe.wait_for(arrived, "a chunk", 2 * DEADLINE))
        assert chunk.targets.parts[0].names == robot.joint_names
        assert chunk.targets.parts[0].data.shape == (pi0_folders.TINY.horizon, 6) and chunk.step_dt == 0.05
        # The policy speaks degrees, 57 of which make a radian: on the wire are radians, as large as they are here.
        session = open_session(policy, robot, "cpu")
        usual = np.abs(session.infer([example_sample(robot, session.processor)])[0].targets.parts[0].data).max()
        assert usual / 10 < np.abs(chunk.targets.parts[0].data).max() < 10 * usual

        # Nobody gave an option about a dry run, so the file's word stands.
        status = probe.wait_message("executor_node/status", lambda status: status.state >= ExecutorStatus.HOLDING, "it")
        assert status.dry_run and not graph.node.count_publishers(robot.groups[0].topic)
        # Another robot with these names would be this one: it is not started.
        second = subprocess.run(command[:-1] + [str(tmp_path / "second")], cwd=trap, env=environment,
                                capture_output=True, text=True, timeout=2 * DEADLINE)  # fmt: skip
        assert second.returncode == 2 and not (tmp_path / "second" / "executor_node.log").exists()
        assert "vla-ros run: node /policy_node: another program has a node of this name" in second.stderr
        assert len(second.stderr.splitlines()) == 1

        strangers = [
            (probe.publisher("policy_node/status", PolicyStatus, STATUS_QOS, readers=2),
             [PolicyStatus(state=99, message=MARKUP), PolicyStatus(state=3, instruction=STEERING)]),
            (probe.publisher("executor_node/status", ExecutorStatus, STATUS_QOS, readers=2),
             [ExecutorStatus(state=99, cause=99, message=MARKUP, refusal_counts=[1])]),
            (probe.publisher("instruction", String, COMMAND_QOS, readers=3), [String(data=MARKUP + STEERING)]),
        ]  # fmt: skip

        def all_said() -> bool:
            assert run.poll() is None and top.poll() is None, f"run {run.poll()}, top {top.poll()}"
            for publisher, messages in strangers:
                for message in messages:
                    publisher.publish(message)
            words = (MARKUP, "policy unknown (99)", "executor unknown (99)", r"\x1b]0;title")
            return all(word in file.read_text() for file in said.values() for word in words)

        probe.wait_for(all_said, "the texts of strangers as they are")
        for file in said.values():
            assert file.read_text().startswith(f"ROS domain {graph.domain}, discovery range ")
            assert "\x1b" not in file.read_text()
        assert not (tmp_path / "RAN").exists(), (tmp_path / "RAN").read_text()

        children = psutil.Process(run.pid).children(recursive=True)
        assert len(children) == 3 and run.poll() is None
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=2 * DEADLINE) == 0
        assert not [child for child in children if child.is_running()]
    finally:
        for process in (run, top):
            process.kill()
            process.wait()
