"""Published folders of ACT, Diffusion Policy, SmolVLA and GR00T in the graph: what a peer sees of their chunks."""

from collections.abc import Iterator

import groot_folders
import lerobot_checkpoints
import numpy as np
import pytest
import yaml
from system.support import free_domain
from system.test_policy_node import Policy

from vla_ros.core.instruction import instruction_id
from vla_ros.graph.processes import Graph
from vla_ros.messages.chunks import read_chunk

TEXT = "pick up the red cube"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Policy]:
    """One process for all families; each configures it for itself and cleans it up."""
    with Graph(tmp_path_factory.mktemp("graph"), domain=free_domain()) as graph:
        yield Policy(graph)


@pytest.mark.parametrize("family, rows", [("act", 12), ("diffusion", 15), ("smolvla", 10)])
def test_a_folder_as_lerobot_writes_it_serves(policy, tmp_path, family, rows):
    folder = lerobot_checkpoints.make(tmp_path / family, family)
    statistics = lerobot_checkpoints.make_statistics([])["action"]
    with policy.up(folder, max_age=30.0) as robot:
        policy.tell(TEXT)
        for _ in range(2):  # the second has a history where the policy reads one
            chunk = read_chunk(policy.chunk_of(robot.observe()))
            assert chunk.targets.parts[0].names == robot.spec.joint_names
            assert chunk.targets.parts[0].data.shape == (rows, 6)
            assert chunk.step_dt == pytest.approx(1 / 30)
            assert chunk.instruction_id == instruction_id(TEXT)
            # Near the actions of the statistics: they were applied, in rad.
            assert (np.abs(chunk.targets.parts[0].data - statistics["mean"]) < 20 * statistics["std"]).all()
        policy.tell("")


@pytest.mark.parametrize("layout", ["lerobot", "nvidia"])
def test_a_folder_of_groot_serves(policy, tmp_path, layout):
    """LeRobot's as it is; NVIDIA's through a policy file that leaves a joint out."""
    path = tmp_path / "checkpoint"
    if layout == "lerobot":
        groot_folders.make_lerobot(path)
        rows = groot_folders.statistics({"observation.state": 6, "action": 6})["action"]
    else:
        groot_folders.make_nvidia(path, "n1.7")
        rows = [*groot_folders.statistics({"single_arm": 4, "gripper": 1}, 1).values()]
        rows = {key: rows[0][key] + rows[1][key] for key in ("min", "max")}
        path = tmp_path / "policy.yaml"
        path.write_text(yaml.safe_dump(groot_folders.POLICY_FILE | {"checkpoint": "checkpoint"}))
    with policy.up(path, max_age=30.0) as robot:
        policy.tell(TEXT)
        for _ in range(2):  # the second has the state before, which this N1.7 reads
            chunk = read_chunk(policy.chunk_of(robot.observe()))
            [part] = chunk.targets.parts
            assert part.data.shape == ((6, 6) if layout == "lerobot" else (5, 5))
            assert ("wrist_roll" in part.names) == (layout == "lerobot")
            assert chunk.step_dt == pytest.approx(1 / 30 if layout == "lerobot" else 0.1)
            # Clipped to the bounds of the statistics, which are in rad.
            low, high = (np.array(rows[name]) for name in ("min", "max"))
            assert (part.data >= low - 1e-6).all() and (part.data <= high + 1e-6).all()
        policy.tell("")
