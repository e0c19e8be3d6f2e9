"""The demo, headless and in simulated time: it succeeds, and its files are what they are called."""

import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import pytest

from vla_ros.bags.reader import Bag
from vla_ros.cli.demo import INSTRUCTIONS


@pytest.mark.parametrize("scene", ["cubes", "bench"])
def test_the_demo_succeeds_and_leaves_its_files(tmp_path: Path, scene: str):
    folder, instructions = tmp_path / "demo", INSTRUCTIONS[scene]
    command = [sys.executable, "-m", "vla_ros.cli.main", "demo", "--scene", scene, "--lockstep", "--time-limit", "60"]
    done = subprocess.run([*command, "--output", str(folder)], capture_output=True, text=True, timeout=1200,
                          env=os.environ | {"COLUMNS": "200"})  # a line for each instruction
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for instruction in instructions:
        assert instruction in done.stdout

    with Bag(folder / "bag") as bag:
        told = [bag.decode(record).data for record in bag.records(["/instruction"])]
        assert list(dict.fromkeys(told)) == list(instructions)
        for topic in ("/action_chunk", "/arm_controller/joint_trajectory", "/joint_states", "/executor_node/status"):
            assert bag.topics[topic].count > 10
    with av.open(str(folder / "demo.mp4")) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert sum(1 for _ in video.decode(stream)) > 20
    assert cv2.imread(str(folder / "commands.png")) is not None
