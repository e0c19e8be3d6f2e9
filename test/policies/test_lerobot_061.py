"""Folders that LeRobot 0.6.1 wrote give LeRobot's own actions, its processors included."""

import json
import re

import lerobot_folders
import numpy as np
import pytest
import torch
from golden_vectors import assert_close
from real_families import ROBOT
from safetensors.torch import load_file, save_file
from training_data import write_dataset

from vla_ros.core.errors import InputError
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies import describe, load, save
from vla_ros.policies.normalisation import write_statistics
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import open_policy

FOLDERS = ("pi0", "pi0_exact", "pi05", "pi05_relative", "pi05_base_like", "smolvla", "smolvla_resized")


def check_answer(loaded, name):
    """State, prompt and actions are LeRobot's."""
    theirs, sample = lerobot_folders.expected(name)
    batch = loaded.processor.inputs([sample])
    assert_close(batch["state"][:, :6], theirs["batch/observation.state"])
    tokens, mask = (theirs[f"batch/observation.language.{what}"][0] for what in ("tokens", "attention_mask"))
    assert batch["tokens"][batch["token_mask"]].tolist() == tokens[mask].tolist()
    answer = loaded.policy.predict(batch, {"noise": theirs["noise"]})
    assert_close(answer[..., :6], theirs["normalised"])
    actions = loaded.processor.outputs(answer, [sample])[0].parts[0].data
    assert_close(torch.from_numpy(actions)[None].float(), theirs["actions"])


@pytest.mark.parametrize("name", FOLDERS)
def test_actions_are_lerobots(tmp_path, name):
    loaded = load(lerobot_folders.write(tmp_path / "theirs", name), robot=ROBOT)
    assert loaded.processor.joints == ROBOT.joint_names
    check_answer(loaded, name)
    save(tmp_path / "ours", loaded)
    check_answer(load(tmp_path / "ours"), name)


def test_empty_cameras_are_left_out(tmp_path):
    """`empty_cameras` adds black images that are masked, so the actions are the same without them."""
    for name in ("pi0", "smolvla"):
        folder = lerobot_folders.write(tmp_path / name, name, empty_cameras=2)
        features = json.loads((folder / "config.json").read_text())["input_features"]
        empty = {f"observation.images.empty_camera_{i}": {"type": "VISUAL", "shape": [3, 480, 640]} for i in range(2)}
        lerobot_folders.change(folder / "config.json", input_features=features | empty)
        assert describe(folder, robot=ROBOT)["cameras"] == "front, wrist"
        check_answer(load(folder, robot=ROBOT), name)


def test_a_base_folder_is_described_and_served_with_a_file(tmp_path):
    """As lerobot/smolvla_base is published: statistics of the actions in three sets, none of the state."""
    folder = lerobot_folders.write(tmp_path / "base", "smolvla_base_like")
    said = r"the sets \['so100', 'so100-blue', 'so100-red'\].*none of which can be used: observation.state .* lack"
    assert re.search(said, describe(folder, robot=ROBOT)["notes"])
    with pytest.raises(InputError, match=said):
        load(folder, robot=ROBOT)
    with pytest.raises(InputError, match=r"observation.state .* lack .*so100-red"):
        load(folder, robot=ROBOT, overrides={"statistics": "so100"})
    with pytest.raises(InputError, match=r"no statistics 'panda'.*so100-blue"):
        load(folder, robot=ROBOT, overrides={"statistics": "panda"})
    processor = load(lerobot_folders.write(tmp_path / "tuned", "smolvla"), robot=ROBOT).processor
    write_statistics(tmp_path / "s.json", {
        "observation.state": processor.state.statistics, "action": processor.actions.statistics,
    })  # fmt: skip
    check_answer(load(folder, robot=ROBOT, overrides={"statistics": tmp_path / "s.json"}), "smolvla")


def test_a_set_is_chosen_by_name_in_a_policy_file(tmp_path):
    """So it was published before: the sets were buffers among the weights, with the state's."""
    folder = lerobot_folders.write(tmp_path / "old", "smolvla")
    statistics = load_file(folder / "policy_preprocessor_step_5_normalizer_processor.safetensors")
    tensors = load_file(folder / "model.safetensors")
    for file in folder.glob("policy_*"):
        file.unlink()
    for name, shift in (("so100", 0.0), ("so100-blue", 1.0)):
        for side, feature in (("normalize_inputs", "observation.state"), ("unnormalize_outputs", "action")):
            for statistic in ("mean", "std"):
                key = f"{side}.{name}_buffer_{feature.replace('.', '_')}.{statistic}"
                tensors[key] = statistics[f"{feature}.{statistic}"] + shift
    save_file(tensors, folder / "model.safetensors")
    policy = tmp_path / "policy.yaml"
    policy.write_text("checkpoint: old\noverrides: {statistics: so100}\n")
    check_answer(load(policy, robot=ROBOT), "smolvla")
    policy.write_text("checkpoint: old\noverrides: {statistics: so100-blue}\n")
    mean = statistics["action.mean"].double().numpy()
    np.testing.assert_allclose(load(policy, robot=ROBOT).processor.actions.statistics["mean"], mean + 1, atol=1e-6)
    policy.write_text("checkpoint: old\n")
    with pytest.raises(InputError, match=r"\['so100', 'so100-blue'\].*overrides.statistics"):
        load(policy, robot=ROBOT)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset") / "data", episodes=2, size=(48, 64))


def start(folder, dataset, statistics="recompute"):
    return open_policy(TrainConfig.from_dict({
        "dataset": str(dataset), "output": str(folder / "run"), "start": str(folder), "statistics": statistics,
    }), Dataset(dataset))  # fmt: skip


def test_a_base_folder_is_fine_tuned_with_the_statistics_of_the_data(tmp_path, dataset):
    folder = lerobot_folders.write(tmp_path / "base", "smolvla_base_like")
    rows = Dataset(dataset).statistics
    processor = start(folder, dataset).processor
    for normalisation, feature in ((processor.state, "observation.state"), (processor.actions, "action")):
        assert normalisation.mode == "mean_std"
        np.testing.assert_allclose(normalisation.statistics["mean"], rows[feature]["mean"], atol=0.02)
    with pytest.raises(InputError, match="so100-red"):
        start(folder, dataset, "keep")


@pytest.mark.parametrize("name", ["pi0", "pi05", "smolvla"])
def test_what_a_base_folder_declares_is_padding(tmp_path, dataset, name):
    """As lerobot/pi0_base: no statistics, state and actions of 32 dimensions, which take a robot of six joints."""
    folder = lerobot_folders.write(tmp_path / "base", name)
    data = json.loads((folder / "config.json").read_text())
    data["input_features"]["observation.state"]["shape"] = data["output_features"]["action"]["shape"] = [32]
    (folder / "config.json").write_text(json.dumps(data))
    for file in folder.glob("policy_*"):
        file.unlink()
    assert "no normalisation" in describe(folder)["notes"]
    with pytest.raises(InputError, match=r"lack .*overrides\.statistics"):
        load(folder, robot=ROBOT)
    loaded = start(folder, dataset)
    assert loaded.processor.joints == ROBOT.joint_names
    config = loaded.policy.config
    assert (config.real_action_dim if name == "smolvla" else config.loss_dims) == 6
    processor = load(lerobot_folders.write(tmp_path / "tuned", name), robot=ROBOT).processor
    write_statistics(tmp_path / "s.json", {
        "observation.state": processor.state.statistics, "action": processor.actions.statistics,
    })  # fmt: skip
    check_answer(load(folder, robot=ROBOT, overrides={"statistics": tmp_path / "s.json"}), name)


@pytest.mark.parametrize("name", ["pi0", "pi05", "smolvla"])
@pytest.mark.parametrize("declared", [32, 5, None])
def test_what_lerobot_tuned_keeps_the_inputs_of_its_base(tmp_path, name, declared):
    """The actions are those of the robot, the state is still declared as the base had it, or not at all."""
    folder = lerobot_folders.write(tmp_path / name, name)
    features = json.loads((folder / "config.json").read_text())["input_features"]
    state = features.pop("observation.state")
    if declared or name == "smolvla":
        features["observation.state"] = state | {"shape": [declared or 14]}
    lerobot_folders.change(folder / "config.json", input_features=features)
    loaded = load(folder, robot=ROBOT)
    assert len(loaded.processor.embodiment.state) == 6
    check_answer(loaded, name)


def test_actions_are_as_wide_as_declared(tmp_path):
    actions = {"action": {"type": "ACTION", "shape": [32]}}
    folder = lerobot_folders.write(tmp_path / "pi0", "pi0", output_features=actions)
    with pytest.raises(InputError, match="actions of 32 dimensions.* 6"):
        load(folder, robot=ROBOT)


@pytest.mark.parametrize("name", ["pi0", "pi05", "smolvla"])
def test_a_compiled_module_is_loaded_too(tmp_path, name):
    """As the first smolvla_base was published."""
    folder = lerobot_folders.write(tmp_path / name, name)
    tensors = load_file(folder / "model.safetensors")
    compiled = {key.replace("model.", "model._orig_mod.", 1): value for key, value in tensors.items()}
    save_file(compiled, folder / "model.safetensors")
    check_answer(load(folder, robot=ROBOT), name)


def test_smolvla_for_aloha_is_refused_where_lerobot_turns_normalised_values(tmp_path):
    plain = load(lerobot_folders.write(tmp_path / "plain", "smolvla"), robot=ROBOT)
    folder = lerobot_folders.write(tmp_path / "new", "smolvla", adapt_to_pi_aloha=True)
    with pytest.raises(InputError, match="adapt_to_pi_aloha: since LeRobot 0.4"):
        describe(folder, embodiment=plain.processor.embodiment)
    for file in folder.glob("policy_*"):
        file.unlink()
    with pytest.raises(InputError, match="adapt_to_pi_aloha: .*give a policy file"):
        describe(folder)

