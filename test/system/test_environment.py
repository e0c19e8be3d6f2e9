"""A benchmark through the graph: its robot is commanded as any other, and judged by its own rule."""

import os
import sys
from pathlib import Path

import benchmark_modules
import numpy as np
import pytest
from sensor_msgs.msg import Image, JointState
from system.support import Probe, free_domain
from tiny_checkpoint import tiny_checkpoint

from vla_ros.core.robot import RobotSpec
from vla_ros.graph.evaluation import EvaluationGraph
from vla_ros.graph.processes import GraphError
from vla_ros.messages.stamps import stamp_ns
from vla_ros.nodes.qos import sensor_qos

ROBOT = RobotSpec.load("pusht")
REAL = os.environ.get("VLA_ROS_PUSHT_PYTHON", "")  # an interpreter with gym-pusht


@pytest.mark.parametrize("python", [
    pytest.param("", id="made up"),
    pytest.param(REAL, id="gym-pusht", marks=pytest.mark.skipif(not REAL, reason="VLA_ROS_PUSHT_PYTHON is not set")),
])  # fmt: skip
def test_an_episode_ends_as_the_benchmark_says(python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if not python:
        monkeypatch.setenv("PYTHONPATH", f"{benchmark_modules.write(tmp_path / 'modules')}:{os.environ['PYTHONPATH']}")
    policy = tiny_checkpoint(tmp_path / "policy", ROBOT, centre=np.array([0.2, 0.3]))
    with EvaluationGraph(
        tmp_path / "graph", "pusht", str(policy), rate=2.5, image_rate=5.0, domain=free_domain(),
        environment="pusht", python=python or sys.executable,
    ) as made:  # fmt: skip
        probe = Probe(made.graph)
        qos = sensor_qos(reliable=True, depth=1000)
        probe.record("disc/command", JointState)
        probe.record("joint_states", JointState, qos)
        probe.record("top/image_raw", Image, qos)
        made.bring_up()
        status = made.run_to_end(5, "push the block", 2.0 if python else 30.0)
        steps = 20 if python else 40
        assert status.success == (not python) and float(status.values["run_time"]) == steps / 10
        assert float(status.values["highest_reward"]) == 1.0 or python
        start = int(status.values["run_start_ns"])

        def at(topic: str) -> dict[int, JointState]:
            found = {round((stamp_ns(m) - start) / 1e8): m for m in probe.messages(topic)}
            return {step: message for step, message in found.items() if 0 <= step < steps}

        for topic, count in (("disc/command", steps), ("joint_states", steps), ("top/image_raw", steps // 2)):
            probe.wait_for(lambda topic=topic, count=count: len(at(topic)) == count, f"{count} messages on {topic}")
        if not python:  # the disc goes half of the way to each command
            places, commands = at("joint_states"), at("disc/command")
            for step in range(steps - 1):
                here, told = np.array(places[step].position), np.array(commands[step].position)
                np.testing.assert_allclose(places[step + 1].position, here + 0.5 * (told - here), atol=1e-9)
        with pytest.raises(GraphError, match=r"environment pusht: foreign_images true, .* expected false"):
            made.run_to_end(5, "push the block", 2.0, foreign_images=True)
