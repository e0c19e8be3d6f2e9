"""Policies whose actions are differences are trained with statistics of the differences, of every real family."""

import json
from contextlib import nullcontext
from dataclasses import replace

import golden_vectors
import lerobot_folders
import numpy as np
import pytest
import real_families
import torch
import yaml
from real_families import FAMILIES, LEROBOT, ROBOT, make_relative
from safetensors.numpy import load_file
from training_data import REPOSITORY, write_dataset

from vla_ros.cli.main import main as vla_ros
from vla_ros.core.errors import InputError
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies import load, save
from vla_ros.policies.dimension import Dimension, Linkage
from vla_ros.policies.rows import Rows, chunk_statistics
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer, open_policy

JOINTS = ROBOT.joint_names
MODES = ["delta"] * 5 + ["absolute"]


def dimensions(modes=MODES):
    return tuple(Dimension(name, mode=mode) for name, mode in zip(JOINTS, modes, strict=True))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset") / "data", episodes=6, size=(48, 64))


def chunks(dataset, steps):
    """(M, H, 6) targets of every chunk that lies within one episode, and the (M, 6) states that it begins at."""
    targets, states = [], []
    for episode in dataset.episodes:
        for t in range(episode.start, episode.stop):
            rows = t + np.array(steps)
            if episode.start <= rows[0] and rows[-1] < episode.stop:
                targets.append(dataset.actions[rows])
                states.append(dataset.states[t])
    return np.array(targets, np.float64), np.array(states, np.float64)


def test_they_are_those_that_lerobot_computes():
    """Of `compute_relative_action_stats` of LeRobot 0.6.1, chunks of 9; its quantiles are edges of bins."""
    golden = load_file(golden_vectors.FOLDER / "relative_statistics.safetensors")
    rows = Rows(JOINTS, golden["states"], golden["actions"], tuple(golden["lengths"].tolist()), 0.1)
    told = chunk_statistics(dimensions(), rows, range(9), 0.1)
    assert golden["statistics.count"] == 9 * (12 + 25)  # no chunk fits into the second episode
    spread = golden["statistics.max"] - golden["statistics.min"]
    for name, values in told.items():
        fine = 0.02 * spread if name.startswith("q") else 1e-6  # of 333 values: anywhere between two of them
        assert (np.abs(values - golden[f"statistics.{name}"]) <= fine).all(), name
    every_second = chunk_statistics(dimensions(), rows, range(5), 0.2)  # the policy's clock is slower than the data's
    assert (every_second["max"] <= told["max"]).all()
    with pytest.raises(InputError, match="a chunk takes 34 rows, the longest episode has 33"):
        chunk_statistics(dimensions(), rows, range(34), 0.1)
    still = replace(rows, actions=rows.states[:1].repeat(60, 0), states=rows.states[:1].repeat(60, 0))
    assert (chunk_statistics(dimensions(), still, range(4), 0.1)["std"] == [1e-3] * 5 + [0.01]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_own_checkpoint_of_differences_is_trained_and_served(family, dataset, tmp_path):
    theirs = load(real_families.make(tmp_path / "theirs", family), robot=ROBOT)
    embodiment = replace(theirs.processor.embodiment, actions=dimensions(), step_dt=0.1)
    if family == "groot":  # a published folder's group says that its actions are absolute
        groups = tuple(replace(group, difference=True) for group in theirs.policy.config.action_groups)
        theirs.policy.config = replace(theirs.policy.config, action_groups=groups)
        embodiment = replace(embodiment, actions=dimensions(["delta"] * 6))
    save(tmp_path / "ours", replace(theirs, processor=replace(theirs.processor, config=theirs.policy.config,
                                                              embodiment=embodiment)))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({
        "dataset": str(dataset), "output": str(tmp_path / "run"), "start": str(tmp_path / "ours"), "steps": 1,
        "statistics": "recompute", "batch_size": 2, "save_every": 1, "held_out": 0.0}))  # fmt: skip
    assert vla_ros(["train", "--config", str(tmp_path / "run.yaml"), "--device", "cpu"]) == 0
    loaded = load(tmp_path / "run/checkpoints/last", robot=ROBOT)
    processor = loaded.processor
    targets, states = chunks(Dataset(dataset), range(processor.first_action_step, processor.horizon))
    values = targets - states[:, None] * [d.mode == "delta" for d in embodiment.actions]
    [name] = {"mean_std": ["mean"], "quantiles": ["q01"], "min_max": ["min"]}[processor.actions.mode]
    at = {"mean": values.mean((0, 1)), "q01": np.quantile(values, 0.01, axis=(0, 1)), "min": values.min((0, 1))}[name]
    np.testing.assert_allclose(processor.actions.statistics[name], at, atol=1e-6)
    # What the data did is what such a policy has to answer, and that is what the robot is told.
    one = real_families.sample(loaded)
    rows = processor.horizon - processor.first_action_step
    wanted = np.tile(one.state[-1] + [*[0.05] * 5, 0.0], (1, rows, 1))
    answer = processor.normalise_actions(wanted, one.state[-1:])
    restored = processor._restored(answer, one.state[-1:]) if family != "openvla" else wanted
    np.testing.assert_allclose(restored, wanted[:, : restored.shape[1]], atol=1e-5)
    torch.manual_seed(0)
    with torch.no_grad():
        told = processor.outputs(loaded.policy.predict(processor.inputs([one])).float(), [one]) \
            if family not in ("pi0_fast", "openvla") else []
    assert all(np.isfinite(targets.parts[0].data).all() for targets in told)


@pytest.mark.parametrize("family", LEROBOT)
@pytest.mark.parametrize("lacks", [False, True], ids=["tuned", "base"])
def test_lerobots_relative_folders_take_them_too(family, lacks, dataset, tmp_path):
    folder = make_relative(real_families.make(tmp_path / "theirs", family))
    start = tmp_path / "start.yaml"
    overrides = {"domain_id": 0} if family == "xvla" else {}
    start.write_text(yaml.safe_dump({"checkpoint": "theirs", "overrides": overrides}))
    if lacks:
        _without_statistics(folder)
    config = TrainConfig.from_dict({"dataset": str(dataset), "output": str(tmp_path / "run"), "start": str(start),
                                    "statistics": "recompute"})  # fmt: skip
    data = Dataset(dataset)
    processor = open_policy(config, data).processor
    assert [d.mode for d in processor.embodiment.actions] == MODES
    targets, states = chunks(data, range(processor.first_action_step, processor.horizon))
    values = targets - states[:, None] * [1, 1, 1, 1, 1, 0]
    name, at = {"mean_std": ("mean", values.mean((0, 1))), "min_max": ("min", values.min((0, 1))),
                "quantiles": ("q01", np.quantile(values, 0.01, axis=(0, 1)))}[processor.actions.mode]
    np.testing.assert_allclose(processor.actions.statistics[name], at, atol=1e-6)


def test_lerobots_folder_on_lerobots_dataset(tmp_path):
    """Both written by LeRobot 0.6.1, as are the statistics; its quantiles are edges of bins."""
    folder = lerobot_folders.write(tmp_path / "theirs", "pi05_relative")
    units = [{"joint": name, "unit": "degrees"} for name in JOINTS]
    trainer = Trainer(TrainConfig.from_dict({
        "dataset": str(REPOSITORY / "test/data/lerobot_datasets/image"), "output": str(tmp_path / "run"),
        "start": str(folder), "statistics": "recompute", "units": units, "steps": 1, "batch_size": 2, "held_out": 0.0,
    }), cache=tmp_path / "cache")  # fmt: skip
    assert np.isfinite(trainer.run()["loss"])
    processor = load(tmp_path / "run/checkpoints/last", robot=ROBOT).processor
    assert [d.mode for d in processor.embodiment.actions] == MODES and processor.horizon == 5
    golden = load_file(golden_vectors.FOLDER / "relative_statistics.safetensors")
    for name, values in processor.actions.statistics.items():
        # A quantile of few values is anywhere between two of them, which are a degree apart.
        fine = 1.1 if name.startswith("q") else 1e-4
        np.testing.assert_allclose(np.degrees(values), golden[f"image.{name}"], atol=fine)


def _without_statistics(folder):
    for file in folder.glob("policy_*.safetensors"):
        file.unlink()


def test_a_linkage_bends_what_the_rows_hold(dataset, tmp_path):
    """As ALOHA's grippers in π's convention, of whose positions the statistics say nothing about the angles."""
    make_relative(real_families.make(tmp_path / "theirs", "pi0"))
    data = Dataset(dataset)
    linkage = Linkage(0.036, 0.022)
    gripper = {"joint": "gripper", "linkage": {"arm_length": 0.036, "horn_radius": 0.022}}
    state = [*JOINTS[:5], gripper]
    actions = [*({"joint": name, "mode": "delta"} for name in JOINTS[:5]), gripper]
    (tmp_path / "start.yaml").write_text(yaml.safe_dump({
        "checkpoint": "theirs", "state": state, "actions": actions, "step_dt": 0.1,
        "cameras": {name: name for name in ROBOT.camera_names}}))  # fmt: skip
    config = TrainConfig.from_dict({"dataset": str(dataset), "output": str(tmp_path / "run"), "statistics": "recompute",
                                    "start": str(tmp_path / "start.yaml")})  # fmt: skip
    processor = open_policy(config, data).processor
    assert processor.state.statistics["mean"][5] == pytest.approx(linkage.angle(data.states[:, 5].astype(float)).mean())
    targets, _ = chunks(data, range(processor.horizon))
    assert processor.actions.statistics["mean"][5] == pytest.approx(linkage.angle(targets[..., 5]).mean())


def test_a_file_of_statistics_has_to_be_of_differences(tmp_path):
    """For a base without statistics, and where a file takes the place of a checkpoint's own."""
    folder, file = make_relative(real_families.make(tmp_path / "theirs", "pi05")), tmp_path / "statistics.json"
    loaded = load(folder, robot=ROBOT)
    save(tmp_path / "relative", loaded)
    save(tmp_path / "absolute", load(real_families.make(tmp_path / "plain", "pi05"), robot=ROBOT))
    _without_statistics(folder)
    rows = {feature: {name: one.statistics[name].tolist() for name in ("q01", "q99")} | {"count": [60]}
            for feature, one in (("observation.state", loaded.processor.state), ("action", loaded.processor.actions))}
    relative = rows | {"action": rows["action"] | {"count": [333]}}  # of chunks, as LeRobot counts them
    unknown = {feature: {name: v for name, v in row.items() if name != "count"} for feature, row in rows.items()}
    fine = {folder: (relative, tmp_path / "relative/statistics.json"),
            tmp_path / "plain": (rows, unknown, tmp_path / "absolute/statistics.json")}
    wrong = {folder: (rows, unknown, tmp_path / "absolute/statistics.json"),
             tmp_path / "plain": (relative, tmp_path / "relative/statistics.json")}
    wrong[tmp_path / "relative"], wrong[tmp_path / "absolute"] = wrong[folder], wrong[tmp_path / "plain"]
    for cases, refused in ((fine, False), (wrong, True)):
        for checkpoint, files in cases.items():
            for given in files:
                if isinstance(given, dict):
                    file.write_text(json.dumps(given))
                    given = file
                if refused:
                    with pytest.raises(
                        InputError, match="overrides.statistics .* actions are .*; expected those of"
                    ) as error:
                        load(checkpoint, robot=ROBOT, overrides={"statistics": str(given)})
                    if given == file and checkpoint in (folder, tmp_path / "relative"):
                        assert "the file does not say that its statistics are of differences" in str(error.value)
                else:
                    load(checkpoint, robot=ROBOT, overrides={"statistics": str(given)})


def test_means_of_episodes_quantiles_are_refused_where_quantiles_count(tmp_path):
    """Two episodes around 0 and 3 rad, each narrow: LeRobot averages their q01 and q99 to 1.45 and 1.55."""
    rows = np.concatenate([np.linspace(-0.05, 0.05, 50), np.linspace(2.95, 3.05, 50)])
    one = {"mean": rows.mean(), "std": rows.std(), "min": rows.min(), "max": rows.max(), "q01": 1.451, "q99": 1.549}
    right = one | {"q01": np.quantile(rows, 0.01), "q99": np.quantile(rows, 0.99)}
    for values, words in ((right, ""), (one, r"observation\.state\[0\]: q01 1\.451 to q99 1\.549 cannot be those")):
        said = {feature: {name: [float(value)] * 6 for name, value in values.items()} | {"count": [100]}
                for feature in ("observation.state", "action")}
        (tmp_path / "stats.json").write_text(json.dumps(said))
        for name, mode in (("act", "MEAN_STD"), ("pi05", "QUANTILES")):
            folder = real_families.make(tmp_path / f"{name}{bool(words)}", name)
            with pytest.raises(InputError, match=words) if words and mode == "QUANTILES" else nullcontext():
                load(folder, robot=ROBOT, overrides={"statistics": tmp_path / "stats.json"})
