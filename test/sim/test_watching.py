"""A small run of benchmarks/watching.py: the shipped policy through the executor, steady and shaken."""

import sys
from pathlib import Path

import numpy as np
import pytest

from vla_ros.control.limits import Limits
from vla_ros.core.robot import RobotSpec

ROOT = Path(__file__).parents[2]
ROBOT = RobotSpec.load(ROOT / "config" / "robots" / "so101.yaml")


@pytest.fixture
def watching(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield __import__("watching")
    sys.modules.pop("watching")


def test_auroc_is_how_often_a_failure_lies_higher(watching):
    assert watching.auroc(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)
    assert np.isnan(watching.auroc(np.array([]), np.array([1.0])))


def test_the_monitor_tells_a_shaken_policy_from_the_steady_one(watching, tmp_path, capsys):
    options = ["--layouts", "1", "--tasks", "touch", "--ways", "good", "act05", "--episodes", str(tmp_path)]
    watching.main(options)
    table = capsys.readouterr().out
    assert "as it is" in table and "noise on actions, 0.05 rad" in table
    limits, seen = Limits.merge(ROBOT), {}
    for way in ("good", "act05"):
        with np.load(tmp_path / f"touch-{way}-0.npz") as stored:
            episode = watching.Episode(**stored)
        assert episode.success
        seen[way] = watching.look(episode, limits, window=1.0)
    mean = "reversals, mean of the episode (1/s)"
    assert 0 < 2 * seen["good"][mean] < seen["act05"][mean]
    watching.main(options)  # from the folder
    assert capsys.readouterr().out == table
