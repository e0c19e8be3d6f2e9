"""Images and prompts of LeRobot's π0 folders are those of the version that wrote them."""

import json

import lerobot_folders
import numpy as np
import pi0_folders
import pytest
import torch
from real_families import ROBOT
from safetensors.torch import load_file, save_file
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies import describe, load

OF_0_3 = {  # what LeRobot 0.3.3 writes and later ones do not, and the fields that it lacks
    "resize_imgs_with_padding": [28, 28], "adapt_to_pi_aloha": False, "use_delta_joint_actions_aloha": False,
    "proj_width": 1024, "num_steps": 4, "use_cache": True, "attention_implementation": "eager",
    "train_state_proj": True, "image_resolution": None, "num_inference_steps": None, "use_relative_actions": None,
    "action_feature_names": None, "relative_exclude_joints": None,
}
OF_0_4 = {"use_relative_actions": None, "action_feature_names": None, "relative_exclude_joints": None}
PADDING = {"0.3": (0, 0, 7, 0, -1.0), "0.4": (0, 0, 3, 4, -3.0), "0.5": (0, 0, 3, 4, -1.0)}  # and its value


def write(path, version, name="pi0", **changes):
    """As the version's `PI0Config` is written; lengths of prompts are said by config.json alone."""
    folder = lerobot_folders.write(path, name, **({"0.3": OF_0_3, "0.4": OF_0_4}.get(version, {}) | changes))
    if version == "0.3":
        tensors = {pi0_folders.legacy_name(k.removeprefix("model.")): v
                   for k, v in load_file(folder / "model.safetensors").items()}
        for file in folder.glob("policy_*"):
            file.unlink()
        rows = pi0_folders.statistics(6)
        for start, feature in (("normalize_inputs", "observation.state"), ("unnormalize_outputs", "action")):
            for statistic in ("mean", "std"):
                key = f"{start}.buffer_{feature.replace('.', '_')}.{statistic}"
                tensors[key] = torch.from_numpy(rows[feature][statistic])
        save_file(tensors, folder / "model.safetensors")
    return folder


def seen(loaded, text="pick_up  the red cube"):
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (1, 48, 64, 3), np.uint8) for name in ("front", "wrist")}
    return images, loaded.processor.inputs([Sample(images, np.zeros((1, 6)), text)])


def expected_image(image, version):
    """LeRobot's rule in torch: floats in [0, 1] to 21 x 28 pixels, bilinear, to [-1, 1], padded to 28 x 28."""
    *sides, value = PADDING[version]
    scaled = functional.interpolate(
        torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255, size=(21, 28), mode="bilinear", align_corners=False
    )
    return functional.pad(scaled * 2 - 1, sides, value=value)[0]


@pytest.mark.parametrize("version", PADDING)
def test_images_are_padded_as_the_version_did(tmp_path, version):
    folder = write(tmp_path / "theirs", version)
    assert f"as in LeRobot {version}, since " in describe(folder, robot=ROBOT)["notes"]
    images, batch = seen(load(folder, robot=ROBOT))
    for n, name in enumerate(("front", "wrist")):
        torch.testing.assert_close(batch["images"][0, n], expected_image(images[name], version), atol=1e-6, rtol=0)
    if version != "0.3":  # whose folders say otherwise by more than their fields
        other = {"0.4": "0.5", "0.5": "0.4"}[version]
        loaded = load(folder, robot=ROBOT, overrides={"lerobot_version": float(other)})
        torch.testing.assert_close(
            seen(loaded)[1]["images"][0, 0], expected_image(images["front"], other), atol=1e-6, rtol=0
        )


def test_the_version_is_told_with_its_reason(tmp_path):
    for version, name, changes, why in (
        ("0.3", "pi0", {}, "resize_imgs_with_padding"), ("0.4", "pi0", {}, "no use_relative_actions"),
        ("0.5", "pi05", {}, "has use_relative_actions"), ("0.5", "pi05_base_like", {}, "converted from openpi's"),
    ):
        folder = write(tmp_path / f"{version}{name}", version, name, **changes)
        assert why in describe(folder)["notes"]
        assert "overrides.lerobot_version" in describe(folder, overrides={"lerobot_version": "0.3"})["notes"]
        if version == "0.4":  # 0.5.0 writes the same config.json, and beside it
            (folder / "train_config.json").write_text(json.dumps({"seed": 1}))
            assert "as in LeRobot 0.4" in describe(folder)["notes"]
            (folder / "train_config.json").write_text(json.dumps({"seed": 1, "cudnn_deterministic": False}))
            assert "as in LeRobot 0.5, since train_config.json" in describe(folder)["notes"]
        with pytest.raises(InputError, match=r"lerobot_version '0.2', expected one of \['0.3', '0.4', '0.5'\]"):
            describe(folder, overrides={"lerobot_version": "0.2"})


@pytest.mark.parametrize("version", PADDING)
def test_pi0_reads_the_instruction_as_it_stands(tmp_path, version):
    _, batch = seen(load(write(tmp_path / "theirs", version), robot=ROBOT), "pick_up  the\nred cube")
    ids = batch["tokens"][0][batch["token_mask"][0]].tolist()
    words = load(tmp_path / "theirs", robot=ROBOT).processor.tokenizer
    assert ids == [words.bos, *words.encode("pick_up  the\nred cube\n")]


@pytest.mark.parametrize(("version", "steps"), [("0.4", 32), ("0.5", 6)])
def test_pi05_reads_the_padding_of_the_state_where_the_version_did(tmp_path, version, steps):
    loaded = load(write(tmp_path / "theirs", version, "pi05"), robot=ROBOT)
    _, batch = seen(loaded)
    text = loaded.processor.tokenizer.inner.decode(batch["tokens"][0][batch["token_mask"][0]].tolist())
    assert len(text.partition("State : ")[2].partition(" ;")[0].split()) == steps
    loaded = load(tmp_path / "theirs", robot=ROBOT, overrides={"prompt": "pi05"})
    assert loaded.processor.config.prompt == "pi05"


def test_old_fields_are_honoured_or_refused(tmp_path):
    folder = write(tmp_path / "theirs", "0.3")
    assert load(folder, robot=ROBOT).policy.config.num_steps == 4
    lerobot_folders.change(folder / "config.json", adapt_to_pi_aloha=True)
    with pytest.raises(InputError, match="adapt_to_pi_aloha: .*give a policy file"):
        load(folder, robot=ROBOT)


@pytest.mark.parametrize(("field", "value"), [
    ("use_new_trick", True), ("n_obs_steps", 2), ("image_resolution", [14, 14]), ("image_resolution", None),
    ("use_delta_joint_actions_aloha", True), ("resize_imgs_with_padding", "all"),
])  # fmt: skip
def test_a_field_that_would_change_the_result_is_refused_by_name(tmp_path, field, value):
    folder = lerobot_folders.write(tmp_path / "theirs", "pi0")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(InputError, match=field):
        describe(folder)


def test_the_preprocessor_says_how_long_a_prompt_may_be(tmp_path):
    for name in ("pi0", "smolvla"):
        folder = lerobot_folders.write(tmp_path / name, name)
        file = folder / "policy_preprocessor.json"
        data = json.loads(file.read_text())
        next(s for s in data["steps"] if s["registry_name"] == "tokenizer_processor")["config"]["max_length"] = 4
        file.write_text(json.dumps(data))
        assert seen(load(folder, robot=ROBOT), "pick up the red cube")[1]["token_mask"].sum() == 4


@pytest.mark.parametrize(("fields", "frozen"), [
    ({"freeze_vision_encoder": True}, {"image_tokens.tower"}), ({"train_state_proj": False}, {"state_in"}),
    ({"train_expert_only": True}, {"image_tokens.tower", "image_tokens.projector", "embedding", "prefix"}), ({}, set()),
])  # fmt: skip
def test_training_leaves_alone_what_the_folder_says(tmp_path, fields, frozen):
    policy = load(lerobot_folders.write(tmp_path / "theirs", "pi0", **fields), robot=ROBOT).policy
    still = {key for key, parameter in policy.named_parameters() if not parameter.requires_grad}
    assert still == {key for key, _ in policy.named_parameters() if key.startswith(tuple(frozen))}
