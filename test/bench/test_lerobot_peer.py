"""LeRobot's class as a peer. Where a Python with lerobot is named by VLA_LEROBOT_PYTHON, against the real one."""

import sys
from dataclasses import replace

import lerobot_python
import pytest
import torch

from vla_ros.bench.lerobot_peer import COMPARED, LeRobotPeer, find_python, lerobot_inputs
from vla_ros.bench.subjects import (
    random_batch,
    random_lerobot,
    random_pi0_fast,
    write_groot,
    write_lerobot_config,
)
from vla_ros.bench.timing import draws_for
from vla_ros.cli.main import main
from vla_ros.core.errors import InputError

CPU = torch.device("cpu")


def subject(folder, family):
    write_lerobot_config(folder, family, "tiny", 2)
    policy = random_lerobot(folder, CPU, torch.float32)
    return policy, random_batch(policy), draws_for(policy, CPU)


def test_inputs_have_lerobots_names_and_numbers(tmp_path):
    (tmp_path / "act").mkdir()
    policy, batch, draws = subject(tmp_path / "act", "act")
    policy.image_mean.fill_(0.5)
    policy.image_std.fill_(0.25)
    inputs = lerobot_inputs(policy, batch, draws)
    assert set(inputs) == {"observation.images.camera_0", "observation.images.camera_1", "observation.state"}
    expected = (batch["images"][:, 1].float() / 255 - 0.5) / 0.25
    torch.testing.assert_close(inputs["observation.images.camera_1"], expected)


def test_diffusions_noise_covers_the_past_rows(tmp_path):
    policy, batch, draws = subject(tmp_path, "diffusion")
    inputs = lerobot_inputs(policy, batch, draws)
    assert inputs["noise"].shape == (1, policy.config.unet_horizon, policy.config.action_dim)
    assert torch.equal(inputs["noise"][:, policy.config.past :], draws["noise"])
    assert inputs["observation.images"].shape == (1, 2, 2, 3, 96, 96)


def test_groots_pictures_are_patches_in_blocks_of_four(tmp_path):
    policy, batch = write_groot(tmp_path / "groot", "tiny", 2)
    side, images = policy.config.vision.patch, batch["images"][0]
    found = lerobot_inputs(policy, batch, draws_for(policy, CPU))
    rows, columns = images.shape[2] // side, images.shape[3] // side
    assert found["image_grid_thw"].tolist() == [[1, rows, columns]] * 2
    assert found["pixel_values"].shape == (2 * rows * columns, 3 * 2 * side**2)
    second = found["pixel_values"][rows * columns :].unflatten(1, (3, 2, side, side))
    for number, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1), (0, 2))):
        expected = images[1, :, row * side : (row + 1) * side, column * side : (column + 1) * side] / 127.5 - 1
        for shown in second[number].unbind(1):
            torch.testing.assert_close(shown, expected)


def test_a_python_without_lerobot_is_told_in_its_own_words(tmp_path, monkeypatch):
    write_lerobot_config(tmp_path, "act", "tiny", 1)
    monkeypatch.setattr("vla_ros.bench.lerobot_peer.find_spec", lambda name: None)
    with pytest.raises(InputError, match="--lerobot-python"):
        find_python(None)
    with pytest.raises(InputError, match="lerobot"):
        LeRobotPeer(sys.executable, tmp_path, CPU, "float32", 1, None)
    with pytest.raises(InputError, match="no/such/python: No such file"):
        LeRobotPeer("no/such/python", tmp_path, CPU, "float32", 1, None)


@pytest.mark.parametrize("family", COMPARED)
def test_bench_measures_a_family_without_lerobot(family, capsys, monkeypatch):
    monkeypatch.setattr("vla_ros.bench.lerobot_peer.find_spec", lambda name: None)
    assert main(["bench", "--policy", family, "--size", "tiny", "--runs", "1", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert f"{family} tiny, random weights, 2 cameras" in said
    assert " act " in said and "LeRobot, float32: not measured" in said


@lerobot_python.needed
@pytest.mark.parametrize("family", COMPARED)
def test_bench_beside_lerobot(family, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # names stay in one piece
    arguments = ["--size", "tiny", "--runs", "2", "--device", "cpu", "--lerobot-python", lerobot_python.PYTHON]
    assert main(["bench", "--policy", family, *arguments]) == 0
    said = capsys.readouterr().out
    assert "LeRobot 0." in said and "not measured" not in said


def test_tokens_depend_on_the_images_and_are_compared_where_nothing_else_chooses_them():
    policy = random_pi0_fast("tiny", 2, CPU, torch.float32)
    batch = random_batch(policy)
    other = batch | {"images": 255 - batch["images"]}
    assert (policy.predict(batch, None) != policy.predict(other, None)).sum() > 8
    policy.config = replace(policy.config, decoding="actions")
    with pytest.raises(InputError, match="decoding 'actions' at temperature 0 cannot be compared"):
        lerobot_inputs(policy, random_batch(policy), draws_for(policy, CPU))
