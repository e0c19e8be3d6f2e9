"""A small dataset that a policy can learn, and the toy family in the registry."""

from pathlib import Path

import pytest
import torch
import toy_family
from training_data import write_dataset

from vla_ros.policies import registry

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "dataset")


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setattr(registry, "BUILT_IN", registry.BUILT_IN | {toy_family.NAME: "toy_family"})


@pytest.fixture
def settings(dataset, tmp_path) -> dict:
    """A training config of a few seconds."""
    return {
        "dataset": str(dataset), "output": str(tmp_path / "run"), "family": "toy", "policy": {"width": 16},
        "steps": 12, "batch_size": 8, "micro_batch_size": 4, "held_out": 0.2,
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 2},
        "augmentation": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "shift": 1},
        "evaluate_every": 6, "save_every": 4, "log_every": 1, "ema_decay": 0.9,
    }
