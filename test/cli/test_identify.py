"""vla-ros info on anything: what it is, and which command opens it."""

import json
from pathlib import Path

import pytest
from bags.factory import messages, write_bag
from training_data import write_dataset

from vla_ros.cli.main import main

CONFIG = Path(__file__).parents[2] / "config"
URDF = CONFIG / "ros2_control" / "so101.urdf"
EVAL = {"policy": "ckpt", "control": "none", "tasks": {"touch": {"layouts": 4, "successes": 3}}}


def said(capsys, path, *options: str) -> str:
    assert main(["info", str(path), *options]) == 0, capsys.readouterr().err
    return " ".join(capsys.readouterr().out.split())


def refused(capsys, path) -> str:
    assert main(["info", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vla-ros info: ") and len(error.splitlines()) == 1
    return error


def test_a_dataset_and_what_is_in_it(tmp_path, capsys):
    data = write_dataset(tmp_path / "data", episodes=2)
    words = said(capsys, data)
    assert "a LeRobot dataset ('v3.0'): 2 episodes, 25 frames at 10 Hz" in words
    assert f"opens with: vla-ros dataset show {data}" in words
    for file in ("meta/info.json", next(data.rglob("*.mp4")), next(data.rglob("*.parquet"))):
        assert f"a file of the dataset {data} opens with: vla-ros dataset show {data}" in said(capsys, data / file)


def test_a_bag(tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", messages(0.2))
    for path in (bag, bag / "metadata.yaml", next(bag.glob("*.mcap"))):
        assert "vla-ros bag show" in said(capsys, path)
    (bag / "metadata.yaml").unlink()
    assert "without metadata.yaml (vla-ros bag repair writes it)" in said(capsys, bag)


def test_every_file_of_config(capsys):
    words = {path: said(capsys, path) for path in sorted(CONFIG.rglob("*.*"))
             if path.is_file() and path.suffix != ".py" and path.parent.name != "policies"}  # fmt: skip
    assert all("opens with: " in text for text in words.values()) and len(words) > 25
    for name, part in (("executor.yaml", "parameter file for /**/executor_node ("), ("so101.urdf", "a URDF of the "),
                       ("pi0_tiny.yaml", "a training config: "), ("fine_tune.yaml", "vla-ros train --config "),
                       ("vla.rviz", "rviz2 -d "), ("vla.json", "Foxglove"), ("so101.policy.xml", "an SROS2 policy"),
                       ("ur5e.yaml", "vla-ros run --robot"), ("droid.yaml", "of the server ws://")):  # fmt: skip
        assert any(part in text for path, text in words.items() if path.name == name), name


def test_folders_of_runs_and_results(tmp_path, capsys):
    for name in ("step-000100", "step-000200"):
        (tmp_path / "run" / "checkpoints" / name).mkdir(parents=True)
    words = said(capsys, tmp_path / "run")
    assert "a training run: checkpoints step-000100, step-000200" in words
    assert f"vla-ros info {tmp_path / 'run' / 'checkpoints' / 'last'}; vla-ros train" in words
    (tmp_path / "demo" / "bag").mkdir(parents=True)
    (tmp_path / "demo" / "policy_node.log").touch()
    words, log = said(capsys, tmp_path / "demo"), tmp_path / "demo" / "policy_node.log"
    assert f"logs policy_node.log opens with: any editor: {log}; vla-ros bag show" in words
    (tmp_path / "eval.json").write_text(json.dumps(EVAL))
    assert "results of vla-ros eval of 'ckpt': touch 3 of 4" in said(capsys, tmp_path / "eval.json")
    (tmp_path / "demo.mp4").write_bytes(bytes(2_000_000))
    assert "a video of 2.0 MB opens with: any video player" in said(capsys, tmp_path / "demo.mp4")


def test_an_export_of_graphs(tmp_path, capsys):
    graphs = {name: {"file": f"{name}.onnx"} for name in ("encode", "act")}
    (tmp_path / "graphs.json").write_text(json.dumps({"family": "act", "format": "onnx", "graphs": graphs}))
    for path in (tmp_path, tmp_path / "graphs.json"):
        assert "graphs of 'act' that vla-ros export wrote: 'onnx', 'encode.onnx', 'act.onnx'" in said(capsys, path)


def test_what_is_unknown_says_what_was_looked_for(tmp_path, capsys):
    assert "config.json is missing; looked for config.json (a checkpoint), meta/info.json" in refused(capsys, tmp_path)
    (tmp_path / "x.yaml").write_text("colour: red\n")
    words = refused(capsys, tmp_path / "x.yaml")
    assert "a mapping of 'colour', expected a robot file (with cameras, groups, joints), a policy file" in words
    (tmp_path / "x.bin.gz").write_bytes(b"\x1f\x8b\x00")
    assert "expected YAML or JSON, or a name with one of .urdf, " in refused(capsys, tmp_path / "x.bin.gz")
    assert main(["info", str(URDF), "--sros2"]) == 2 and "--sros2 with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("joint_state_timeout: 0,5", "joint_state_timeout: '0,5', expected a number; decimals have a point: 0.5"),
        ("joint_state_timout: 0.5", "joint_state_timout: no parameter of /executor_node, expected joint_state_timeout"),
        ("mode: newest", "parameter mode: 'newest', expected one of ensemble, latest, rtc"),
    ],
)
def test_what_a_node_would_refuse_of_a_parameter_file(tmp_path, capsys, text, message):
    (tmp_path / "p.yaml").write_text(f"/**/executor_node:\n  ros__parameters:\n    {text}\n")
    words = refused(capsys, tmp_path / "p.yaml")
    assert f"parameter file {tmp_path / 'p.yaml'}: /**/executor_node: " in words and message in words
