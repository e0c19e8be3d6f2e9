"""The driver of docs/driver.md, as it stands there, with an executor."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from std_msgs.msg import String

from vla_ros.core.chunk import ActionChunk, Part, Space, Targets
from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.chunks import chunk_message
from vla_ros.msg import ActionChunk as ChunkMessage
from vla_ros.msg import ActionPart, ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "driver.md").read_text(encoding="utf-8")
EXAMPLE = DOCS / "examples" / "driver.py"
PATIENT = {"joint_state_timeout": 10.0, "overrun_limit": 10.0, "jump_limit": 60.0, "max_chunk_age": 60.0,
           "following_limit": 10.0}  # fmt: skip


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[number]


def test_the_page_has_the_example_and_its_robot_files_load(tmp_path):
    assert block("python") == EXAMPLE.read_text(encoding="utf-8")
    joints = [{"name": name, "lower": 0.0, "upper": 1.0, "velocity": 1.0, "acceleration": 1.0}
              for name in ("shoulder", "elbow", "finger")]  # fmt: skip
    mixed = yaml.safe_load(block("yaml", 1)) | {"name": "mixed", "cameras": [], "joints": joints}
    for text in (block("yaml"), yaml.safe_dump(mixed)):
        (tmp_path / "robot.yaml").write_text(text)
        assert RobotSpec.load(tmp_path / "robot.yaml").joint_names[:2] == ("shoulder", "elbow")


def test_it_is_driven(graph, probe, tmp_path):
    robot = tmp_path / "robot.yaml"
    robot.write_text(block("yaml"))
    probe.record("executor_node/status", ExecutorStatus, STATUS_QOS)
    environment = os.environ | {"ROS_DOMAIN_ID": str(graph.domain)}
    driver = subprocess.Popen([sys.executable, "-P", str(EXAMPLE)], env=environment)
    try:
        graph.start("executor_node", parameters={"robot": str(robot), **PATIENT})
        graph.configure("executor_node")
        graph.activate_when_ready("executor_node")
        probe.publisher("instruction", String, COMMAND_QOS).publish(String(data="go"))
        chunks, goal, sent = probe.publisher("action_chunk", ChunkMessage, COMMAND_QOS), np.array([0.1, 0.2]), 0

        def there() -> bool:
            nonlocal sent
            status = probe.last("executor_node/status")
            answered = status.accepted_chunks + status.refused_chunks == sent
            if status.instruction == "go" and answered and not status.live_chunks:
                targets = Targets((Part(("shoulder", "elbow"), np.tile(goal, (20, 1)), Space.JOINT_POSITION),))
                now = graph.node.get_clock().now().nanoseconds
                chunk = ActionChunk(now, 0.5, targets, instruction_id("go"), sent, 1)
                chunks.publish(chunk_message(ChunkMessage, ActionPart, chunk))
                sent += 1
            return np.allclose(status.measured, goal, atol=1e-3)

        assert driver.poll() is None
        probe.wait_for(there, "the robot where the chunk wants it")
    finally:
        driver.kill()
        driver.wait()
