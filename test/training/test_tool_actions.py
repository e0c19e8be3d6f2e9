"""Demonstrations whose actions are poses of a tool: written, read, trained on by every family, and served."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from control.tool_robots import so101
from families import BUILT, FAMILIES, config
from real_families import ROBOT

from vla_ros.cli.demonstrate import ToolPoses
from vla_ros.core.chunk import Space
from vla_ros.core.errors import InputError
from vla_ros.core.tool import pose_names
from vla_ros.datasets.check import check
from vla_ros.datasets.lerobot import Dataset
from vla_ros.datasets.writer import DatasetWriter
from vla_ros.policies import load
from vla_ros.runtime.serving import check_robot
from vla_ros.training.config import TrainConfig
from vla_ros.training.samples import Samples
from vla_ros.training.trainer import Trainer, open_policy

FORM = "rotation_6d_columns"
ARM = ROBOT.joint_names[:5]
_, TOOL = so101()


def write(path, episodes=3):
    """Two datasets of the same motions, `tool` and `joints` by their actions."""
    tool, rng = ToolPoses(ROBOT), np.random.default_rng(0)
    writers = [DatasetWriter(path / "tool", ROBOT, 10, tool.columns), DatasetWriter(path / "joints", ROBOT, 10)]
    for _ in range(episodes):
        states = np.linspace(0, 1, 12)[:, None] * rng.uniform(-0.5, 0.5, 6) + [0.1, -0.9, 0.8, 0.9, 0.3, 0.5]
        images = {name: np.full((12, 32, 32, 3), 99, np.uint8) for name in ROBOT.camera_names}
        for writer, actions in zip(writers, (tool.actions(states + 0.1), states + 0.1), strict=True):
            writer.add_episode(images, states, actions, "touch the red cube")
    for writer in writers:
        writer.finish()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tool")
    write(path)
    return path


def settings(dataset, tmp_path, family="pi0", **more):
    return TrainConfig.from_dict({
        "dataset": str(dataset), "output": str(tmp_path / "run"), "family": BUILT.get(family, family),
        "policy": config(family), "steps": 1, "batch_size": 2, "held_out": 0.4, "evaluate_samples": 4,
    } | more)  # fmt: skip


def opened(dataset, tmp_path, statistics):
    """From the checkpoint of the run in `tmp_path`."""
    last = str(tmp_path / "run/checkpoints/last")
    start = {"dataset": str(dataset.path), "output": "o", "start": last, "statistics": statistics}
    return open_policy(TrainConfig.from_dict(start), dataset)


def test_the_dataset_says_what_its_actions_are_and_they_are_where_the_executor_has_the_tool(folder):
    dataset, joints = Dataset(folder / "tool"), Dataset(folder / "joints")
    assert dataset.action_names == (*pose_names(FORM), "gripper") and dataset.hold == ARM
    assert (dataset.tool.frame, dataset.tool.link) == (ROBOT.tool.frame, ROBOT.tool.link)
    np.testing.assert_array_equal(dataset.states, joints.states)
    np.testing.assert_array_equal(dataset.targets[:, 5], joints.actions[:, 5])
    for row, pose in zip(joints.actions, dataset.poses, strict=True):
        place, rotation = TOOL.pose(row.astype(np.float64))
        np.testing.assert_allclose(pose, [*place, *rotation[:, 0], *rotation[:, 1]], atol=1e-6)
    found = [finding for finding in check(dataset) if finding.kind == "actions"]
    assert not found, found
    assert dataset.said_statistics["action"]["mean"].shape == (10,)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_trained_on_it_and_serves_it(family, folder, tmp_path):
    trainer = Trainer(settings(folder / "tool", tmp_path, family))
    figures = trainer.run()
    assert np.isfinite(list(figures.values())).all()
    loaded = load(tmp_path / "run/checkpoints/last", robot=ROBOT)
    check_robot(loaded.processor, ROBOT)
    samples = Samples(Dataset(folder / "tool"), trainer.samples.episodes, loaded.processor)
    [one] = samples.get(np.array([0]))
    rows = one.actions[None, -loaded.processor.horizon :]
    if family == "pi0_fast":
        return
    told = loaded.processor.outputs(loaded.processor.normalise_actions(rows, one.state[-1:]), [one])[0]
    pose, gripper = told.parts
    assert (pose.names, pose.space, pose.frame) == (pose_names(FORM), Space.END_EFFECTOR_POSE, "base")
    assert gripper.names == ("gripper",)
    np.testing.assert_allclose(pose.data, rows[0, : told.horizon, 6:], atol=1e-4)
    np.testing.assert_allclose(gripper.data[:, 0], rows[0, : told.horizon, 5], atol=1e-4)


def test_the_checkpoint_says_what_its_actions_are(folder, tmp_path):
    Trainer(settings(folder / "tool", tmp_path)).run()
    rows = yaml.safe_load((tmp_path / "run/checkpoints/last/embodiment.yaml").read_text())
    assert rows["tool"] == {"space": "pose", "rotation": FORM, "frame": "base", "first": 0}
    assert rows["actions"] == [{"joint": None}] * 9 + [{"joint": "gripper"}] and rows["hold"] == list(ARM)
    statistics = json.loads((tmp_path / "run/checkpoints/last/statistics.json").read_text())
    np.testing.assert_allclose(statistics["action"]["mean"], Dataset(folder / "tool").statistics["action"]["mean"])


def test_recomputed_statistics_are_those_of_the_tool(folder, tmp_path):
    Trainer(settings(folder / "tool", tmp_path)).run()
    write(tmp_path / "other", episodes=2)
    dataset = Dataset(tmp_path / "other/tool")
    found = opened(dataset, tmp_path, "recompute").processor.actions.statistics["mean"]
    np.testing.assert_allclose(found, dataset.statistics["action"]["mean"])
    with pytest.raises(InputError, match="actions of a tool: none, the policy's: pose in base, the rotation as rot"):
        opened(Dataset(folder / "joints"), tmp_path, "recompute")


def test_a_policy_of_joints_is_not_trained_on_poses(folder, tmp_path):
    Trainer(settings(folder / "joints", tmp_path)).run()
    with pytest.raises(InputError, match=r"no actions of \['shoulder_pan'.*which the policy commands"):
        opened(Dataset(folder / "tool"), tmp_path, "keep")


def test_weights_of_a_policy_of_joints_are_taken_but_for_its_actions(folder, tmp_path):
    Trainer(settings(folder / "joints", tmp_path)).run()
    joints = load(tmp_path / "run/checkpoints/last", robot=ROBOT).policy.state_dict()
    dataset = Dataset(folder / "tool")
    taken = open_policy(settings(dataset.path, tmp_path, weights=str(tmp_path / "run/checkpoints/last")), dataset)
    own = taken.policy.state_dict()
    other = {name for name in own if not torch.equal(own[name], joints[name])} if own.keys() == joints.keys() else None
    assert other == {"action_in.weight", "action_out.weight", "action_out.bias"}
    with pytest.raises(InputError, match="weights of a pi0, expected a checkpoint of the family act"):
        open_policy(settings(dataset.path, tmp_path, "act", weights=str(tmp_path / "run/checkpoints/last")), dataset)


@pytest.mark.parametrize(("change", "message"), [
    ({"space": "delta"}, "info.tool: space 'delta', expected pose: differences of poses cannot be trained on"),
    ({"rotation": "vector"}, "info.tool: rotation vector, expected each of ['x', 'y', 'z', 'vector[0]'"),
    ({"rotation": "angles"}, "expected ['space', 'rotation', 'frame', 'link'], the rotation one of"),
    ({"frame": 3}, "info.tool.frame: 3, expected a string"),
])  # fmt: skip
def test_what_cannot_be_is_refused(change, message, folder, tmp_path):
    shutil.copytree(folder / "tool", tmp_path / "d")
    file = tmp_path / "d/meta/info.json"
    info = json.loads(file.read_text())
    info["features"]["action"]["info"]["tool"] |= change
    file.write_text(json.dumps(info))
    with pytest.raises(InputError, match=re.escape(message)):
        Dataset(tmp_path / "d")


def test_without_the_word_tool_such_actions_are_nobodys(folder, tmp_path):
    shutil.copytree(folder / "tool", tmp_path / "d")
    file = tmp_path / "d/meta/info.json"
    info = json.loads(file.read_text())
    del info["features"]["action"]["info"]["tool"]
    file.write_text(json.dumps(info))
    found = check(Dataset(tmp_path / "d"))
    assert any(finding.level == "error" and "action of 10" in finding.text for finding in found)
