"""vla-ros demos writes a dataset that training reads."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from vla_ros.cli.demo import CHECKPOINT
from vla_ros.cli.main import main
from vla_ros.datasets.lerobot import Dataset
from vla_ros.sim.tasks import Task, TaskKind, parse_instruction
from vla_ros.sim.world import HOME


def test_demos_write_a_dataset(tmp_path, capsys):
    out = tmp_path / "demos"
    assert main(["demos", str(out), "--episodes", "2", "--tasks", "touch", "--seed", "5", "--image-size", "48"]) == 0
    assert "touch green" in capsys.readouterr().out
    dataset = Dataset(out)
    assert dataset.fps == 10.0
    assert dataset.camera_names == ("front", "wrist")
    tasks = [parse_instruction(episode.instruction) for episode in dataset.episodes]
    assert tasks == [Task(TaskKind.TOUCH, "red"), Task(TaskKind.TOUCH, "green")]
    for camera in dataset.camera_names:
        frames = dataset.episode_frames(dataset.episodes[0], camera)
        assert frames.shape == (dataset.episodes[0].length, 36, 48, 3)
        assert frames.std() > 20 and frames[:, 0].max() > 40  # a picture, no black bar above it
    assert np.isfinite(dataset.statistics["action"]["mean"]).all()


def test_what_varies_is_in_the_dataset(tmp_path):
    out = tmp_path / "demos"
    arguments = ["demos", str(out), "--episodes", "1", "--tasks", "press", "--image-size", "32", "--cameras", "front"]
    assert main([*arguments, "--vary", "cameras", "lights"]) == 0
    about = json.loads((out / "meta" / "info.json").read_text())["simulator"]
    assert about == {"scene": "bench", "vary": ["cameras", "lights"], "tasks": ["press"], "seed": 0}
    table = pq.read_table(out / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    drawn = json.loads(table["variation"][0].as_py())
    assert set(drawn) == {"cameras", "lights"} and len(drawn["cameras"]["front"]["shift_m"]) == 3
    assert len(Dataset(out).episodes) == 1


def test_a_policy_leads_and_is_named_in_the_dataset(tmp_path, capsys):
    out = tmp_path / "demos"
    arguments = ["--episodes", "1", "--tasks", "touch", "--policy", str(CHECKPOINT), "--jobs", "2"]
    assert main(["demos", str(out), *arguments]) == 0
    assert json.loads((out / "meta" / "info.json").read_text())["simulator"] == {"policy": str(CHECKPOINT)}
    assert np.abs(Dataset(out).states[0] - HOME).max() > 0.1  # without a policy this seed begins at home
    assert "warning" not in capsys.readouterr().out


def test_words_that_the_policy_does_not_know_are_said_before_an_episode(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vla_ros.cli.demonstrate.demonstrations", lambda *_: pytest.fail("began"))
    with pytest.raises(pytest.fail.Exception, match="began"):
        main(["demos", str(tmp_path / "demos"), "--tasks", "touch", "undo", "--policy", str(CHECKPOINT)])
    said = capsys.readouterr().out
    assert said.startswith("warning: --tasks touch undo: the policy does not know ") and said.count("\n") == 1
    assert {"undo", "handle", "shove"} <= set(said.strip().replace(",", "").split())


def test_a_policy_that_is_not_there_is_refused_before_anything_is_made(tmp_path, capsys):
    assert main(["demos", str(tmp_path / "demos"), "--policy", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err and not (tmp_path / "demos").exists()


@pytest.mark.parametrize("arguments, why", [
    (["--policy", "ws://127.0.0.1:9"], "--policy ws://127.0.0.1:9, expected a checkpoint folder"),
    (["--policy", str(CHECKPOINT), "--cameras", "front"], "--cameras front: --policy"),
])  # fmt: skip
def test_a_policy_that_cannot_lead_is_refused_before_anything_is_made(tmp_path, capsys, arguments, why):
    assert main(["demos", str(tmp_path / "demos"), *arguments]) == 2
    assert why in capsys.readouterr().err and not (tmp_path / "demos").exists()


@pytest.mark.parametrize(
    "option",
    [["--episodes", "0"], ["--jobs", "0"], ["--seed", "-1"], ["--image-size", "0"], ["--seed", "1000", "--bags"]],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, option, capsys):
    assert main(["demos", str(tmp_path / "demos"), *option]) == 2
    assert option[0] in capsys.readouterr().err
    assert not (tmp_path / "demos").exists()


@pytest.mark.parametrize("option", [["--tasks", "touch"], ["--robot", "so101"], ["--jobs", "2"], ["--bags"]])
def test_a_benchmark_takes_no_option_of_the_simulator(tmp_path, option, capsys):
    assert main(["demos", str(tmp_path / "demos"), "--env", "pusht", *option]) == 2
    assert f"{option[0]} with --env, expected only one of them" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--jobs", "2"], ["--image-size", "96"], ["--cameras", "front"]])
def test_bags_take_no_option_that_would_have_no_effect(tmp_path, option, capsys):
    assert main(["demos", str(tmp_path / "demos"), "--bags", *option]) == 2
    assert f"{option[0]} " in capsys.readouterr().err and not (tmp_path / "demos").exists()


def test_bags_are_never_mixed_with_what_is_there(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["demos", str(tmp_path), "--bags"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
