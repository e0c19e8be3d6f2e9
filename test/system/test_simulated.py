"""A graph around the simulator: instructions reach everybody or are an error, and a robot that does not fit is one."""

from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")
pytest.importorskip("mujoco", reason="MuJoCo is not installed")

from system.support import free_domain

from vla_ros.core.instruction import instruction_id
from vla_ros.core.resources import resolve_robot
from vla_ros.graph import simulated
from vla_ros.graph.processes import GraphError


class SimulatorAlone(simulated.SimulatedGraph):
    ids: list[int | None] = [None]

    def followed(self) -> list[int | None]:
        return self.ids


def test_an_instruction_is_given_until_everybody_follows_it(tmp_path: Path, monkeypatch):
    with SimulatorAlone(tmp_path, "so101", domain=free_domain()) as graph:
        graph.simulation.start(graph.robot_file, lockstep=True)
        graph.ids = [instruction_id("touch the red cube")]
        graph.instruct("  touch the red cube\n")
        assert graph.simulation.task.values["instruction"] == "touch the red cube"
        monkeypatch.setattr(simulated, "_INSTRUCT_PATIENCE", 2.0)
        graph.ids = [instruction_id("touch the blue cube"), None]
        with pytest.raises(GraphError, match=r"'touch the blue cube', id \d+: .*the other nodes \[\d+, None\]"):
            graph.instruct("touch the blue cube")


def test_a_robot_that_is_not_the_simulated_one_is_refused_by_its_reason(tmp_path: Path):
    data = yaml.safe_load(resolve_robot("so101").read_text())
    data["cameras"][0]["name"] = "above"
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(data))
    with SimulatorAlone(tmp_path, tmp_path / "other.yaml", domain=free_domain()) as graph:
        with pytest.raises(GraphError, match="node sim_node did not configure: .*above"):
            graph.simulation.start(graph.robot_file, lockstep=True)
