"""The documented template of a policy family: installed outside the package, trained, saved and served in the graph."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import outside
import pytest
import torch
from system.support import free_domain
from system.test_policy_node import Policy
from training_data import REPOSITORY, write_dataset

from vla_ros.core.robot import RobotSpec
from vla_ros.graph.processes import Graph
from vla_ros.messages.chunks import read_chunk
from vla_ros.policies import describe, registry
from vla_ros.runtime.history import example_sample
from vla_ros.runtime.session import PolicySession
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer

TEMPLATE = Path(__file__).parents[2] / "docs" / "template"


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with outside.installed(TEMPLATE, tmp_path / "template") as environment:
        yield environment


def test_the_template_trains_and_serves(environment: dict[str, str], tmp_path: Path):
    assert "my_policy" in registry.families()
    config = TrainConfig.from_dict(
        {
            "dataset": str(write_dataset(tmp_path / "data", episodes=4)),
            "output": str(tmp_path / "run"),
            "family": "my_policy",
            "policy": {"width": 16},
            "steps": 10,
            "batch_size": 8,
            "evaluate_every": 10,
            "save_every": 10,
        }
    )
    figures = Trainer(config).run()
    assert np.isfinite(list(figures.values())).all()
    checkpoint = tmp_path / "run" / "checkpoints" / "last"
    assert describe(checkpoint)["horizon"] == "16 rows, 0.1 s apart (1.6 s)"
    answers = []
    for dtype in (torch.float32, torch.bfloat16):
        loaded = registry.load(checkpoint, dtype=dtype)
        assert next(loaded.policy.parameters()).dtype == dtype
        session = PolicySession(loaded)
        robot = RobotSpec.load(REPOSITORY / "config/robots/so101.yaml")
        [inference] = session.infer([example_sample(robot, loaded.processor, "go to 1")])
        answers.append(inference.targets.parts[0].data)
    np.testing.assert_allclose(answers[1], answers[0], atol=0.02)

    with Graph(tmp_path / "graph", domain=free_domain(), environment=environment) as graph:
        policy = Policy(graph)
        with policy.up(checkpoint, max_age=30.0) as robot:
            policy.tell("go to 1")
            chunk = read_chunk(policy.chunk_of(robot.observe()))
            part = chunk.targets.parts[0]
            assert part.names == robot.spec.joint_names and part.data.shape == (16, 6)
            policy.tell("")
