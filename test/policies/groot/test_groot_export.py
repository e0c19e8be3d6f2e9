"""GR00T N1.7 as LeRobot 0.6.1 has it: the files that it wrote itself, groups, and what it has not."""

import json
import shutil
from dataclasses import replace

import golden_vectors
import groot_folders
import lerobot_folders
import lerobot_python
import numpy as np
import pytest
import real_families
import torch
from real_families import ROBOT
from safetensors.torch import load_file

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies import load
from vla_ros.policies.embodiment import Dimension
from vla_ros.policies.groot.checkpoint import FAMILY
from vla_ros.policies.groot.config import GENERATIONS, GrootConfig
from vla_ros.policies.groot.export_base import BASE, BASE_HEAD, VLM, base_files
from vla_ros.policies.groot.groups import Group
from vla_ros.policies.groot.sizes import PUBLISHED, head_fields, vlm_fields
from vla_ros.policies.registry import export

TAG = {"embodiment_tag": "libero_sim"}  # LeRobot's small network has no weights of the one that it says


def lerobots(tmp_path):
    """A folder that LeRobot wrote, with the network of the vectors."""
    path, (_, said, shapes) = tmp_path / "theirs", golden_vectors.load("lerobot_groot_n17")
    shutil.copytree(lerobot_folders.FOLDER / "groot", path)
    groot_folders.write_tokenizer(path, "<|image_pad|>", said["image_token_id"], 200)
    tensors = {key: shape for key, shape in shapes.items() if "embed_tokens" not in key}
    groot_folders.write_weights(path, tensors, 1, "_groot_model.")
    vlm = {"text_config": said["text"], "vision_config": said["vision"], "image_token_id": said["image_token_id"]}
    for folder, row in (("vlm", vlm), ("raw", {"model_type": "Gr00tN1d7"} | said["head"])):
        (path / folder).mkdir()
        (path / folder / "config.json").write_text(json.dumps(row))
    return path


def answer(loaded, one):
    torch.manual_seed(0)
    with torch.no_grad():
        actions = loaded.policy.predict(loaded.processor.inputs([one]))
    return loaded.processor.outputs(actions, [one])[0].parts[0].data


def seen(loaded):
    one = real_families.sample(loaded, seed=3)
    return Sample(one.images, one.state, lerobot_folders.INSTRUCTION)


def steps(folder, which):
    return json.loads((folder / f"policy_{which}.json").read_text())["steps"]


def test_the_files_are_lerobots(tmp_path):
    theirs, ours = lerobots(tmp_path), tmp_path / "ours"
    loaded = load(theirs, robot=ROBOT, overrides=TAG | {"base_model_path": str(theirs / "raw")})
    export(ours, loaded, "lerobot")
    said, written = (json.loads((folder / "config.json").read_text()) for folder in (theirs, ours))
    assert written.keys() <= said.keys()
    changed = {"base_model_path", "embodiment_tag", "num_inference_timesteps", "rtc_ramp_rate", "input_features",
               "push_to_hub"}  # fmt: skip
    assert {key for key in written if written[key] != said[key]} <= changed
    for which in ("preprocessor", "postprocessor"):
        for first, second in zip(steps(theirs, which), steps(ours, which), strict=True):
            if first["registry_name"] == "groot_n1_7_pack_inputs_v1":
                first["config"] |= TAG
            if first["registry_name"] == "groot_n1_7_vlm_encode_v1":
                first["config"]["model_name"] = "./vlm"
            assert second == first
            if file := first.get("state_file"):
                rows, copied = load_file(theirs / file), load_file(ours / file)
                assert copied and all(torch.equal(rows[key], value) for key, value in copied.items())
    first, second = (load_file(folder / "model.safetensors") for folder in (theirs, ours))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert key.endswith("language_model.norm.weight") or torch.equal(second[key], value), key
    again = load(ours)  # its heads are in the base model's file, which lies in the folder
    assert again.policy.config.dit_heads == loaded.policy.config.dit_heads == 3
    np.testing.assert_array_equal(answer(again, seen(loaded)), answer(loaded, seen(loaded)))


def test_a_published_network_is_named_and_not_written():
    fields = GENERATIONS["n1.7"] | vlm_fields("n1.7", PUBLISHED["n1.7"], "published")
    fields |= head_fields("n1.7", groot_folders.published("n1.7")[0]["config"], "published")
    config = GrootConfig.from_dict(fields | {"cameras": ("a",), "state_dim": 6, "real_action_dim": 6})
    assert {name: getattr(config, name) for name in BASE_HEAD} == BASE_HEAD
    assert base_files(config, None) == (BASE, VLM, {})
    base, vlm, files = base_files(replace(config, dit_layers=16), None)
    assert (base, vlm, sorted(files)) == ("./base", VLM, ["base/config.json", "base/model.safetensors"])
    written = json.loads(files["base/config.json"])
    again = GrootConfig.from_dict(fields | head_fields("n1.7", written, "written") | {
        "cameras": ("a",), "state_dim": 6, "real_action_dim": 6})  # fmt: skip
    assert again == replace(config, dit_layers=16)


def grouped(loaded, state, action, statistics=()):
    """The policy with groups of the arm and the gripper, whose statistics are those of its one group.

    Args:
        statistics: of the actions, name -> numbers, in place of those.
    """
    config = replace(loaded.policy.config, state_groups=state, action_groups=action)
    rows = loaded.processor.actions
    actions = replace(rows, statistics=dict(rows.statistics) | dict(statistics))
    loaded.policy.config = config
    return replace(loaded, processor=replace(loaded.processor, config=config, actions=actions))


ARM, GRIPPER = Group("arm", 5, "percentiles", True, True), Group("gripper", 1, "percentiles", True, True)
TURNED = Group("arm", 5, "min_max", True, True, relative="joints", reference="arm", rows=6)


def of_rows(rows):
    """Statistics of a relative arm, one below the other, before the gripper's."""
    reach = np.linspace(0.1, 0.4, rows)[:, None].repeat(5, 1).ravel()
    low = {name: np.append(-reach, -0.5) for name in ("min", "q01")}
    high = {name: np.append(reach, 0.5) for name in ("max", "q99")}
    return low | high | {"mean": np.zeros(len(reach) + 1), "std": np.append(reach, 0.5)}


@pytest.fixture
def small(tmp_path):
    return load(groot_folders.make_lerobot(tmp_path / "theirs"), robot=ROBOT)


CASES = pytest.mark.parametrize("name", ["deltas", "percentiles", "relative"])


def made(small, name):
    """The policy with such actions."""
    if name == "percentiles":
        return grouped(small, (ARM, GRIPPER), (ARM, GRIPPER))
    if name == "relative":
        return grouped(small, (ARM, GRIPPER), (TURNED, GRIPPER), of_rows(6))
    modes = ["delta"] * 5 + ["absolute"]
    rows = tuple(Dimension(name, mode=mode) for name, mode in zip(ROBOT.joint_names, modes, strict=True))
    processor = small.processor
    return replace(small, processor=replace(processor, embodiment=replace(processor.embodiment, actions=rows)))


@CASES
def test_groups_come_back(small, tmp_path, name):
    loaded = made(small, name)
    export(tmp_path / "ours", loaded, "lerobot")
    again = load(tmp_path / "ours", robot=ROBOT)
    assert again.policy.config.action_groups == loaded.policy.config.action_groups
    assert again.processor.embodiment == loaded.processor.embodiment
    np.testing.assert_allclose(answer(again, seen(loaded)), answer(loaded, seen(loaded)), atol=1e-6)


@lerobot_python.needed
@CASES
def test_lerobot_gives_our_actions(small, tmp_path, name):
    loaded = made(small, name)
    export(tmp_path / "ours", loaded, "lerobot")
    lerobot_python.check_actions(tmp_path / "ours", loaded, seen(loaded))


@pytest.mark.parametrize(("groups", "message"), [
    ((ARM, replace(GRIPPER, mode="sin_cos")), r"state group 'gripper' is sin_cos, .* LeRobot"),
    ((replace(ARM, clip=False), GRIPPER), r"state group 'gripper' is percentiles, clip True, .* LeRobot"),
    ((replace(ARM, mode="mean_std_passed"), GRIPPER), r"state group 'arm' is mean_std_passed, .* LeRobot has perc"),
])  # fmt: skip
def test_groups_that_lerobot_has_not_are_named(small, tmp_path, groups, message):
    with pytest.raises(InputError, match=message):
        export(tmp_path / "out", grouped(small, groups, (ARM, GRIPPER)), "lerobot")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("fields", "message"), [
    ({"state_steps": (-1, 0)}, r"state_steps \(-1, 0\), LeRobot's GR00T has \(0,\)"),
    ({"video_steps": (-15, 0)}, r"video_steps \(-15, 0\), LeRobot's"),
    ({"image_path": "isaac"}, r"image_path 'isaac', LeRobot's GR00T has"),
    ({"image_size": (32, 48)}, r"image_size \(32, 48\), LeRobot's GR00T has \(32, 32\)"),
    ({"max_state_dim": 64}, r"max_state_dim 64, which LeRobot takes for an N1.5's and changes"),
])  # fmt: skip
def test_what_lerobot_has_not_is_named(small, tmp_path, fields, message):
    small.policy.config = replace(small.policy.config, **fields)
    with pytest.raises(InputError, match=f"export: {message}"):
        FAMILY.export(tmp_path / "out", small, "lerobot")
