"""Published folders of every family but π0 in the graph: what a peer sees of their chunks."""

from collections.abc import Iterator

import numpy as np
import pytest
import real_families
from safetensors.torch import load_file, save_file
from system.support import free_domain
from system.test_policy_node import Policy

from vla_ros.core.instruction import instruction_id
from vla_ros.graph.processes import Graph
from vla_ros.messages.chunks import read_chunk
from vla_ros.msg import PolicyStatus
from vla_ros.policies import load

TEXT = "pick up the red cube"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Policy]:
    """One process for all families; each configures it for itself and cleans it up."""
    with Graph(tmp_path_factory.mktemp("graph"), domain=free_domain()) as graph:
        yield Policy(graph)


@pytest.mark.parametrize("family, rows", [
    ("act", 12), ("diffusion", 15), ("smolvla", 10), ("pi0_fast", 5), ("xvla", 5), ("go1", 6),
])
def test_a_published_folder_serves(policy, tmp_path, family, rows):
    folder = real_families.make(tmp_path / family, family)
    processor = load(folder, robot=real_families.ROBOT).processor
    statistics, step_dt = processor.actions.statistics, processor.step_dt
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


def test_tokens_that_are_no_chunk_are_named_and_counted_and_nothing_is_published(policy, tmp_path):
    folder = real_families.make(tmp_path / "pi0_fast", "pi0_fast")
    tensors = load_file(folder / "model.safetensors")
    tensors[next(key for key in tensors if key.endswith("lm_head.weight"))] *= -1  # words before actions
    save_file(tensors, folder / "model.safetensors")
    with policy.up(folder, max_age=30.0) as robot:
        policy.tell(TEXT)
        robot.observe()
        status = policy.wait_status(lambda s: s.refused_observations and "tokens" in s.message, "the refused tokens")
        assert status.state == PolicyStatus.FAILED and status.chunks == 0
        assert "expected actions," in status.message and "\n" not in status.message
        policy.tell("")
