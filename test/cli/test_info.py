"""vla-ros info: robot files, policy files and checkpoints, as a user calls it."""

import shutil
from pathlib import Path

import pi0_folders
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from vla_ros.cli.main import main
from vla_ros.core.errors import InputError
from vla_ros.core.resources import resolve_robot
from vla_ros.policies import load

ROBOT = Path(__file__).parents[2] / "config" / "robots" / "so101.yaml"


def words(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_a_robot_file(capsys):
    assert main(["info", str(ROBOT)]) == 0
    said = words(capsys)
    for part in ("robot so101", "shoulder_pan -1.91986 1.91986 3 20 rad arm", "gripper (discrete)", "640x480"):
        assert part in said


def test_the_stricter_of_robot_file_and_urdf_is_named(capsys, tmp_path):
    urdf = tmp_path / "so101.urdf"
    limit = '<limit lower="-1" upper="9" velocity="1.5" effort="1"/>'
    urdf.write_text(f'<robot name="so101"><joint name="elbow_flex" type="revolute">{limit}</joint></robot>')
    assert main(["info", str(ROBOT), "--urdf", str(urdf)]) == 0
    said = words(capsys)
    for part in (
        "elbow_flex -0.99 (URDF) to 1.68 rad (robot file), 1.5 rad/s (URDF),",
        "shoulder_pan -1.91 (robot file)",
    ):
        assert part in said
    assert main(["info", str(tmp_path), "--urdf", str(urdf)]) == 2
    assert "it is for a robot file" in capsys.readouterr().err


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory):
    root = tmp_path_factory.mktemp("info")
    pi0_folders.write_lerobot(root / "checkpoint", pi0_folders.TINY, "pi05", 2, ("front", "wrist"))
    pi0_folders.write_sentencepiece(root / "tokenizer.model")
    data = {"checkpoint": "checkpoint", "tokenizer": "tokenizer.model", "step_dt": 0.05, "state": ["pan", "lift"],
            "cameras": {"front": "left", "wrist": None}}  # fmt: skip
    (root / "policy.yaml").write_text(yaml.safe_dump(data))
    return root / "policy.yaml"


def test_a_published_checkpoint(policy_file, capsys):
    assert main(["info", str(policy_file.parent / "checkpoint")]) == 0
    said = words(capsys)
    for part in ("family pi0", "layout lerobot", "π0.5", "cameras front, wrist", "2 of 32 dimensions",
                 "quantiles", "5 rows", "the expert writes no text"):  # fmt: skip
        assert part in said


def test_weights_that_load_refuses_are_described_and_refused_in_the_same_words(policy_file, tmp_path, capsys):
    folder = shutil.copytree(policy_file.parent / "checkpoint", tmp_path / "checkpoint")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("action_in_proj.weight"))
    for changed, said in ((None, "1 missing: action_in.weight"), (torch.zeros(3), "misshapen"),
                          (tensors[name].to(torch.complex64), "is C64, expected one of")):
        others = {key: value for key, value in tensors.items() if key != name}
        save_file(others | ({} if changed is None else {name: changed}), folder / "model.safetensors")
        with pytest.raises(InputError, match=said) as error:
            load(folder)
        assert main(["info", str(folder)]) == 2
        out, err = capsys.readouterr()
        assert "2 of 32 dimensions" in out
        assert err == f"vla-ros info: {error.value} (docs/troubleshooting.md#checkpoints)\n"


def test_a_policy_file(policy_file, capsys):
    assert main(["info", str(policy_file)]) == 0
    said = words(capsys)
    for part in ("front from left, wrist (absent)", "joints pan, lift", "0.05 s apart"):
        assert part in said


@pytest.mark.parametrize("said", ["", " "])
def test_an_empty_path_is_refused(said, capsys):
    assert main(["info", said]) == 2
    assert f"{said!r}: expected a checkpoint folder, a policy file" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "policy_preprocessor.json"])
def test_a_file_of_a_checkpoint_stands_for_its_folder(policy_file, file, capsys):
    assert main(["info", str(policy_file.parent / "checkpoint" / file)]) == 0
    assert "2 of 32 dimensions" in words(capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [("checkpoint: nowhere\n", "nowhere"), ("{", "not YAML"), ("name: x\n", "cameras"), (None, "no such")],
)
def test_a_bad_path_is_named_without_a_traceback(tmp_path, capsys, text, message):
    path = tmp_path / "file.yaml"
    if text is not None:
        path.write_text(text)
    assert main(["info", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vla-ros info: ") and message in error and "Traceback" not in error


@pytest.mark.parametrize("name", ["joint_states", "command/arm", "state", ""])
def test_a_camera_does_not_take_the_name_of_another_stream(tmp_path, capsys, name):
    data = yaml.safe_load(resolve_robot("so101").read_text())
    data["cameras"][0]["name"] = name
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(data))
    assert main(["info", str(tmp_path / "robot.yaml")]) == 2 and f"camera {name}: " in capsys.readouterr().err


def test_what_looks_like_markup_in_a_robot_file_is_shown_as_it_is(tmp_path, capsys):
    data = yaml.safe_load(resolve_robot("so101").read_text())
    data["name"], data["groups"][0]["name"] = "[bold]", "[red]a"
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(data))
    assert main(["info", str(tmp_path / "robot.yaml")]) == 0
    said = words(capsys)
    assert "robot [bold]:" in said and "[red]a" in said


@pytest.mark.parametrize("window", [{"count": 10**9, "rate": 100}, {"count": 3, "rate": 1e-300}])
def test_a_window_that_nothing_could_hold_is_refused(tmp_path, capsys, window):
    data = yaml.safe_load(ROBOT.read_text())
    data["streams"] = [{"name": "force", "topic": "ft", "type": "geometry_msgs/msg/WrenchStamped",
                        "select": ["wrench.force.x"], "window": window}]
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(data))
    assert main(["info", str(tmp_path / "robot.yaml")]) == 2
    assert "streams[0].window: count " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"select": ["wrench..x"]}, "select 'wrench..x', expected field.field"),
        ({"select": ["wrench.force.x"], "decoder": "nowhere"}, "decoder 'nowhere', expected an installed one"),
        ({}, "no decoder of geometry_msgs/msg/WrenchStamped"),
    ],
)
def test_a_stream_that_nothing_can_decode_is_refused_at_once(tmp_path, capsys, fields, message):
    data = yaml.safe_load(ROBOT.read_text())
    data["streams"] = [{"name": "force", "topic": "ft", "type": "geometry_msgs/msg/WrenchStamped", **fields}]
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(data))
    assert main(["info", str(tmp_path / "robot.yaml")]) == 2
    error = capsys.readouterr().err
    assert "force" in error and message in error and "Traceback" not in error
