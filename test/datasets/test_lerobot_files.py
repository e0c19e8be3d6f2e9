"""Datasets that LeRobot 0.6.1 wrote, with what its own LeRobotDataset reads of them (`*.expected.npz`: pixels of every
16th row and column)."""

from pathlib import Path

import lerobot_python
import numpy as np
import pytest
from training_data import write_dataset

from vla_ros.datasets.check import ERROR, check
from vla_ros.datasets.lerobot import Dataset

FOLDER = Path("test/data/lerobot_datasets")


@pytest.mark.parametrize("name", ["depth", "image"])
def test_what_lerobot_reads(name):
    """Videos in AV1, pictures as PNG in the rows, depth as 12-bit HEVC: the same pixels, the same mm."""
    dataset = Dataset(FOLDER / name)
    with np.load(FOLDER / f"{name}.expected.npz") as expected:
        assert np.array_equal(dataset.states, expected["observation.state"])
        assert np.array_equal(dataset.actions, expected["action"])
        assert np.array_equal(dataset.timestamps, expected["timestamp"])
        assert [dataset.tasks[task] for task in dataset.task_of] == expected["task"].tolist()
        cameras = [key for key in expected if key.startswith("observation.images.")]
        assert len(cameras) == (3 if name == "depth" else 2)
        for key in cameras:
            camera = key.removeprefix("observation.images.")
            frames = np.concatenate([dataset.episode_frames(episode, camera) for episode in dataset.episodes])
            assert frames.dtype == expected[key].dtype
            assert np.array_equal(frames[:, ::16, ::16], expected[key])


def test_names_streams_and_statistics(tmp_path):
    dataset = Dataset(FOLDER / "depth")
    joints = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
    assert dataset.joint_names == dataset.action_names == joints  # `shoulder_pan.pos` in the file
    assert dataset.camera_names == ("front", "wrist") and dataset.streams == {"front_depth": (96, 128, 1)}
    depth = dataset.values("front_depth", cache=tmp_path)
    assert depth.dtype == np.uint16 and depth.shape == (39, 96, 128, 1)
    for key, rows in (("observation.state", dataset.states), ("action", dataset.actions)):
        right = np.quantile(rows.astype(np.float64), [0.01, 0.1, 0.5, 0.9, 0.99], axis=0)
        for name, values in zip(("q01", "q10", "q50", "q90", "q99"), right, strict=True):
            np.testing.assert_allclose(dataset.statistics[key][name], values)
    written = dataset.said_statistics["observation.state"]
    assert written["q01"][0] > 100 > dataset.statistics["observation.state"]["q01"][0]  # an average of three episodes


def test_what_the_check_says_of_them():
    found = check(Dataset(FOLDER / "depth"))
    assert not [finding for finding in found if finding.level == ERROR]
    said = [finding for finding in found if finding.kind == "statistics"]
    assert [finding.text.split(" of the file")[0] for finding in said] == [
        "observation.state: q01, q10, q90, q99", "action: q01, q10, q90, q99",
    ]  # fmt: skip
    assert "of shoulder_lift is 106.1, expected 1.38" in said[0].text
    units = [finding for finding in found if finding.kind == "units"]
    assert [(finding.episode, finding.row) for finding in units] == [(2, 13)] * 6


@lerobot_python.needed
def test_lerobot_reads_what_we_write_and_we_what_it_makes_of_that(tmp_path):
    ours = Dataset(write_dataset(tmp_path / "ours", episodes=3, size=(64, 96), marked=True))
    lerobot_python.run("lerobot_reads.py", tmp_path / "ours", tmp_path / "read.npz", tmp_path / "copy")
    theirs = Dataset(tmp_path / "copy")
    tasks = [ours.tasks[task] for task in ours.task_of]
    with np.load(tmp_path / "read.npz") as read:
        assert read["task"].tolist() == tasks
        assert np.array_equal(read["observation.state"], ours.states)
        assert np.array_equal(read["action"], ours.actions)
        np.testing.assert_allclose(read["timestamp"], ours.timestamps, atol=1e-6)
        assert np.array_equal(read["intervention"][:, 0], ours.by_person) and 0 < ours.by_person.sum() < len(ours)
        ends = np.cumsum([episode.length for episode in ours.episodes]) - 1
        assert np.flatnonzero(read["next.done"]).tolist() == ends.tolist()
        assert np.flatnonzero(read["next.success"]).tolist() == ends[::2].tolist()
        assert np.array_equal(np.bincount(read["episode_index"]), [episode.length for episode in ours.episodes])
        for feature in ("observation.state", "action"):
            for name in ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99"):
                found = read[f"statistics/{feature}/{name}"]
                np.testing.assert_allclose(found, ours.statistics[feature][name], rtol=1e-5, atol=1e-6)
        for camera in ours.camera_names:
            frames = np.concatenate([ours.episode_frames(episode, camera) for episode in ours.episodes])
            assert np.array_equal(read[f"observation.images.{camera}"], frames)
            again = np.concatenate([theirs.episode_frames(episode, camera) for episode in theirs.episodes])
            assert np.abs(again.astype(int) - frames).mean() < 3  # its codec's loss
    assert not [finding for finding in check(theirs) if finding.level == ERROR]
    assert [theirs.tasks[task] for task in theirs.task_of] == tasks
    assert np.array_equal(theirs.by_person, ours.by_person)
    assert theirs.joint_names == ours.joint_names and theirs.robot_type == ours.robot_type
    assert np.array_equal(theirs.states, ours.states) and np.array_equal(theirs.actions, ours.actions)
