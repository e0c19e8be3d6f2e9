"""Published folders of several families in the graph: what a peer sees of their chunks."""

from collections.abc import Iterator

import go1_folders
import lerobot_checkpoints
import numpy as np
import pytest
import real_families
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


@pytest.mark.parametrize(
    "family, rows, step_dt", [("act", 12, 1 / 30), ("diffusion", 15, 1 / 30), ("smolvla", 10, 1 / 30), ("go1", 6, 0.1)]
)
def test_a_published_folder_serves(policy, tmp_path, family, rows, step_dt):
    folder = real_families.make(tmp_path / family, family)
    known = go1_folders.statistics(6) if family == "go1" else lerobot_checkpoints.make_statistics([])
    statistics = {name: np.array(values) for name, values in known["action"].items()}
    with policy.up(folder, max_age=30.0) as robot:
        policy.tell(TEXT)
        for _ in range(2):  # the second has a history where the policy reads one
            chunk = read_chunk(policy.chunk_of(robot.observe()))
            assert chunk.targets.parts[0].names == robot.spec.joint_names
            assert chunk.targets.parts[0].data.shape == (rows, 6)
            assert chunk.step_dt == pytest.approx(step_dt)
            assert chunk.instruction_id == instruction_id(TEXT)
            # Near the actions of the statistics: they were applied, in rad.
            assert (np.abs(chunk.targets.parts[0].data - statistics["mean"]) < 20 * statistics["std"]).all()
        policy.tell("")
