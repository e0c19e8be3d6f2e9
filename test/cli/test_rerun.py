"""What `vla-ros rerun` writes of the messages it hears, read back with Rerun's own tool."""

import re
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")
rerun = pytest.importorskip("rerun", reason="the optional rerun-sdk (requirements/view.txt) is not installed")

from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from vla_ros.cli.rerun import Bridge
from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.images import image_message
from vla_ros.messages.stamps import set_stamp
from vla_ros.msg import ActionChunk, ActionPart, ExecutorStatus, PolicyStatus

DEADLINE = 120.0  # s, when to give up
START = 1_700_000_000 * 10**9


class Node:
    """Keeps the callbacks, for the test to call."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[Any], None]] = {}

    def create_subscription(self, kind: type, topic: str, callback: Callable[[Any], None], qos: Any) -> None:
        self.callbacks[topic] = callback


def rows(path: Path) -> Counter[str]:
    """Entity -> number of rows of a recording."""
    command = [sys.executable, "-m", "rerun", "rrd", "print", "-v", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    found: Counter[str] = Counter()
    for count, entity in re.findall(r"^Chunk\(\S+\) with (\d+) rows .* - /(\S+) - ", done.stdout, re.MULTILINE):
        found[entity] += int(count)
    return found


def test_what_is_heard_is_in_the_file(tmp_path: Path):
    robot, node = RobotSpec.load(config_file("robots/so101.yaml")), Node()
    recording = rerun.RecordingStream("vla_ros")
    recording.save(tmp_path / "run.rrd")
    Bridge(SimpleNamespace(node=node), robot, recording)
    joints = list(robot.joint_names)
    for k in range(3):
        at = START + k * 10**8
        state = set_stamp(JointState(name=[*joints, "a stranger"], position=array("d", [0.1] * 7)), at)
        node.callbacks[robot.joint_state_topics[0]](state)
        status = set_stamp(ExecutorStatus(names=joints, position=array("d", [0.2] * 6)), at)
        node.callbacks["executor_node/status"](status)
        node.callbacks["policy_node/status"](set_stamp(PolicyStatus(inference_time=0.04), at))
    for camera in robot.cameras:
        node.callbacks[camera.topic](image_message(Image, np.zeros((48, 64, 3), np.uint8), START, camera.name))
    parts = [ActionPart(names=joints, data=array("d", [0.3] * 24))]
    chunk = set_stamp(ActionChunk(step_dt=0.1, parts=parts, horizon=4), START)
    node.callbacks["action_chunk"](chunk)
    chunk.horizon = 5  # not the length of its data
    node.callbacks["action_chunk"](chunk)
    node.callbacks["instruction"](String(data="touch the red cube"))
    recording.flush()
    recording.disconnect()

    found = rows(tmp_path / "run.rrd")
    for name in joints:
        assert [found[f"joint/{name}/{what}"] for what in ("measured", "command", "chunk")] == [3, 3, 4]
    assert not any("stranger" in entity for entity in found)
    assert found["camera/front"] == found["camera/wrist"] == found["instruction"] == 1
    assert found["policy/inference_time"] == found["executor/chunk_latency"] == 3


def test_the_command_writes_a_file_and_ends(tmp_path: Path):
    path = tmp_path / "run.rrd"
    command = [sys.executable, "-m", "vla_ros.cli.main", "rerun", "--save", str(path), "--duration", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    assert f"wrote {path}" in done.stdout.replace("\n", "") and path.stat().st_size > 0
