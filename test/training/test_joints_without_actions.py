"""Joints that a dataset shows and does not command: seen by every policy, moved by none."""

import json
import re

import cv2
import numpy as np
import odd_datasets as odd
import pytest
import real_families
import yaml
from families import BUILT, FAMILIES, config
from real_families import ROBOT

from vla_ros.core.errors import InputError
from vla_ros.datasets.check import WARNING, check
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies import load, save
from vla_ros.runtime.serving import check_robot
from vla_ros.training.config import TrainConfig
from vla_ros.training.samples import Samples
from vla_ros.training.trainer import Trainer, open_policy

JOINTS = ROBOT.joint_names
COMMANDED = ("wrist_roll", "shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex")  # in an order of the file's own


def write(path, states=JOINTS, actions=COMMANDED, **more):
    """A dataset of two episodes; joint j moves with a speed of its own, and commands are 0.1 ahead."""
    rows = 0.01 * np.arange(20)[:, None] * (1 + np.arange(len(states))) + 0.1 * np.arange(len(states))
    rows = rows.astype(np.float32)
    chosen = [states.index(name) if name in states else 0 for name in actions]
    vectors = {key: {"dtype": "float32", "shape": [len(names)], "names": list(names)}
               for key, names in (("observation.state", states), ("action", actions))}  # fmt: skip
    columns = {"observation.state": list(rows), "action": list(rows[:, chosen] + np.float32(0.1))}
    png = cv2.imencode(".png", np.full((32, 32, 3), 99, np.uint8))[1].tobytes()
    columns["observation.images.wrist"] = [{"bytes": png, "path": None}] * 20
    vectors["observation.images.wrist"] = {"dtype": "image", "shape": [32, 32, 3],
                                           "names": ["height", "width", "channels"]}  # fmt: skip
    return odd.write(path, info=vectors | more, columns=columns)


def test_a_joint_without_actions_is_read_and_held(tmp_path):
    dataset = Dataset(write(tmp_path / "d"))
    assert dataset.hold == ("gripper",) and dataset.action_names == JOINTS[:5]
    np.testing.assert_allclose(dataset.targets[:, :5], dataset.states[:, :5] + 0.1, atol=1e-6)
    np.testing.assert_array_equal(dataset.targets[:, 5], dataset.states[:, 5])
    assert dataset.statistics["action"]["mean"].shape == (5,)
    found = [finding for finding in check(dataset) if finding.kind == "actions"]
    assert [finding.level for finding in found] == [WARNING] and "none of ['gripper']" in found[0].text
    for states, actions, message in (
        (JOINTS, (*COMMANDED, "base"), "action of 6"),
        (JOINTS, ("gripper", "gripper"), "action: the names ['gripper']"),
    ):
        other = Dataset(write(tmp_path / message[:9], states, actions))
        assert not other.hold
        assert any(message in finding.text and finding.level == "error" for finding in check(other))


def test_names_that_nobody_wrote_are_no_names(tmp_path):
    """Eight numbers of a state and seven of an action may be anything, as in LIBERO."""
    unnamed = {key: {"dtype": "float32", "shape": [size], "names": None}
               for key, size in (("observation.state", 6), ("action", 5))}  # fmt: skip
    dataset = Dataset(write(tmp_path / "d", **unnamed))
    assert not dataset.hold
    settings = {"dataset": str(dataset.path), "output": str(tmp_path / "r"), "family": "act", "policy": config("act")}
    with pytest.raises(InputError, match=re.escape("'action_4']: expected targets of these joints, or of some")):
        Trainer(TrainConfig.from_dict(settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_trained_and_served(family, tmp_path):
    write(tmp_path / "d")
    units = [{"joint": "gripper", "scale": 2.0}]  # of states alone
    trainer = Trainer(TrainConfig.from_dict({
        "dataset": str(tmp_path / "d"), "output": str(tmp_path / "run"), "family": BUILT.get(family, family),
        "policy": config(family), "steps": 1, "batch_size": 2, "held_out": 0.5, "units": units,
    }))  # fmt: skip
    figures = trainer.run()
    assert np.isfinite(list(figures.values())).all()
    loaded = load(tmp_path / "run/checkpoints/last", robot=ROBOT)
    check_robot(loaded.processor, ROBOT)
    assert loaded.processor.embodiment.hold == ("gripper",)
    statistics = loaded.processor.state.statistics
    if loaded.processor.state_width and statistics:
        assert len(statistics["mean"]) == 6
    one = real_families.sample(loaded)
    target = 0.15 + 0.15 * np.arange(6)  # of the data's sixth row: some policies answer nothing beyond the data
    answer = np.tile(target, (1, loaded.processor.horizon, 1))
    normalised = loaded.processor.normalise_actions(answer, one.state[-1:])
    if family != "pi0_fast":
        [part] = loaded.processor.outputs(normalised, [one])[0].parts
        assert part.names == JOINTS[:5]
        np.testing.assert_allclose(part.data, answer[0, : len(part.data), :5], atol=1e-4)


@pytest.mark.parametrize("statistics", ["keep", "recompute"])
def test_a_policy_that_commands_them_is_refused(statistics, tmp_path):
    write(tmp_path / "d")
    dataset, refused = Dataset(tmp_path / "d"), r"no actions of \['gripper'\], which the policy commands; `hold`"
    save(tmp_path / "ours", load(real_families.make(tmp_path / "theirs", "pi05"), robot=ROBOT))
    config = TrainConfig.from_dict({"dataset": str(dataset.path), "output": str(tmp_path / "r"),
                                    "start": str(tmp_path / "ours"), "statistics": statistics})  # fmt: skip
    with pytest.raises(InputError, match=refused):
        open_policy(config, dataset)


@pytest.mark.parametrize("family", ["pi05", "smolvla"])
@pytest.mark.parametrize("by_names", [True, False])
def test_a_checkpoint_is_fine_tuned(family, by_names, tmp_path):
    """A base whose sizes are padding, by the dataset's names; any other by a policy file."""
    folder = real_families.make(tmp_path / "theirs", family)
    write(tmp_path / "d")
    start = tmp_path / "policy.yaml"
    if by_names:
        start = folder
        real_families.take_statistics_away(folder)
        data = json.loads((folder / "config.json").read_text())
        data["input_features"]["observation.state"]["shape"] = [data["max_state_dim"]]
        data["output_features"]["action"]["shape"] = [data["max_action_dim"]]
        (folder / "config.json").write_text(json.dumps(data))
    else:
        rows = [{"joint": name} for name in JOINTS]
        start.write_text(yaml.safe_dump({
            "checkpoint": folder.name, "cameras": {name: name for name in ROBOT.camera_names}, "state": rows,
            "actions": [*rows[:5], {"joint": None}], "hold": ["gripper"], "step_dt": 0.1,
        }))  # fmt: skip
    settings = {"dataset": str(tmp_path / "d"), "output": str(tmp_path / "r"), "start": str(start)}
    dataset = Dataset(tmp_path / "d")
    processor = open_policy(TrainConfig.from_dict(settings | {"statistics": "recompute"}), dataset).processor
    assert processor.embodiment.commanded == JOINTS[:5]
    for kind, rows in (("observation.state", processor.state), ("action", processor.actions)):
        found = dataset.statistics[kind]["max"]
        np.testing.assert_allclose(rows.statistics["max"][: len(found)], found, atol=0.02)
    batch = processor.inputs(Samples(dataset, dataset.episodes, processor).get(np.array([0, 1])))
    assert batch["actions"].isfinite().all()
