"""The documented template of a policy family: installed outside the package, trained, saved and served in the graph."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
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
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the template as pip installs it, on the path of this process."""
    source, target = tmp_path / "source", tmp_path / "site"
    shutil.copytree(TEMPLATE, source)  # pip leaves build files beside the sources
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", str(target), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(str(target))
    yield target
    for name in [name for name in sys.modules if name.split(".")[0] == "my_policy"]:
        del sys.modules[name]


def test_the_template_trains_and_serves(installed: Path, tmp_path: Path):
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

    with Graph(tmp_path / "graph", domain=free_domain(), environment=_with_path(installed)) as graph:
        policy = Policy(graph)
        with policy.up(checkpoint, max_age=30.0) as robot:
            policy.tell("go to 1")
            chunk = read_chunk(policy.chunk_of(robot.observe()))
            part = chunk.targets.parts[0]
            assert part.names == robot.spec.joint_names and part.data.shape == (16, 6)
            policy.tell("")


def _with_path(folder: Path) -> dict[str, str]:
    """The environment in which child processes find the installed package too."""
    return {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
