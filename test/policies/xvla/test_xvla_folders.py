"""X-VLA's published folders: LeRobot's own answers, Microsoft's names, domains, action modes."""

import json
import re
from dataclasses import replace

import families
import golden_vectors
import lerobot_folders
import numpy as np
import pytest
import torch
import yaml
from real_families import ROBOT
from safetensors.torch import load_file, save_file

from vla_ros.control.kinematics import Kinematics
from vla_ros.core.chunk import Space
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies import describe, load, registry
from vla_ros.policies.normalisation import write_statistics
from vla_ros.policies.options import TrainingData
from vla_ros.policies.xvla.actions import find_mode
from vla_ros.policies.xvla.checkpoint import FAMILY
from vla_ros.policies.xvla.config import XvlaConfig
from vla_ros.runtime.serving import check_robot
from vla_ros.sim.description import urdf
from vla_ros.sim.world import World

MICROSOFT = (  # transformers' name, as a regular expression, and Microsoft's
    (r"vision_tower\.convs\.(\d+)\.conv\.", r"vision_tower.convs.\1.proj."),
    (r"(_block)\.(conv\d)\.", r"\1.\2.fn.dw."),
    (r"spatial_block\.norm1\.", "spatial_block.window_attn.norm."),
    (r"channel_block\.norm1\.", "channel_block.channel_attn.norm."),
    (r"\.(window_attn|channel_attn)\.(qkv|proj)\.", r".\1.fn.\2."),
    (r"(_block)\.norm2\.", r"\1.ffn.norm."),
    (r"(_block)\.ffn\.(fc\d)\.", r"\1.ffn.fn.net.\2."),
    (r"multi_modal_projector\.image_projection\.weight", "image_projection"),
    (r"multi_modal_projector\.image_position_embed\.", "image_pos_embed."),
    (r"multi_modal_projector\.", ""),
    (r"language_model\.encoder\.embed_tokens\.weight", "language_model.model.shared.weight"),
    (r"language_model\.encoder\.", "language_model.model.encoder."),
)


def answer(folder, **options):
    """Normalised actions to LeRobot's sample from its noise, and LeRobot's."""
    theirs, sample = lerobot_folders.expected("xvla")
    loaded = load(folder, **options)
    batch = loaded.processor.inputs([sample])
    actions = loaded.policy.predict(batch, {"noise": theirs["noise"]})
    return loaded, batch, actions[..., :6], loaded.processor.outputs(actions, [sample])[0].parts[0].data, theirs


def steps(folder, change):
    """Change the steps of the preprocessor."""
    file = folder / "policy_preprocessor.json"
    data = json.loads(file.read_text())
    data["steps"] = change(data["steps"])
    file.write_text(json.dumps(data))


def test_lerobots_folder_answers_as_lerobot(tmp_path):
    folder = lerobot_folders.write(tmp_path / "theirs", "xvla")
    _, batch, normalised, positions, theirs = answer(folder)
    assert torch.equal(batch["tokens"], theirs["batch/observation.language.tokens"])
    golden_vectors.assert_close(batch["state"][:, :6], theirs["batch/observation.state"])
    golden_vectors.assert_close(normalised, theirs["normalised"])
    golden_vectors.assert_close(torch.from_numpy(positions)[None].float(), theirs["actions"])
    first, reason = describe(folder)["not used"].split(": ")
    assert "visual_temporal_embed" in first and reason == "computed from its size"


def test_the_layout_of_published_files_is_the_same_policy(tmp_path):
    folder = lerobot_folders.write(tmp_path / "theirs", "xvla")
    _, _, expected, *_ = answer(folder)
    tensors = {}
    for key, value in load_file(folder / "model.safetensors").items():
        name = key
        for pattern, theirs in MICROSOFT:
            name = re.sub(pattern, theirs, name)
        tensors[name] = value.T.contiguous() if name.endswith("image_projection") else value
    assert len(tensors) == len(load_file(folder / "model.safetensors"))
    tensors["model.vlm.language_model.final_logits_bias"] = torch.zeros(1, 300)
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    vision = config["florence_config"]["vision_config"]
    vision["dim_embed"], vision["model_type"] = vision.pop("embed_dim"), "davit"
    vision["image_pos_embed"] = {"type": "learned_abs_2d", "max_pos_embeddings": vision.pop("max_position_embeddings")}
    vision["visual_temporal_embedding"] = {"type": "COSINE", "max_temporal_embeddings": 100}
    (folder / "config.json").write_text(json.dumps(config))
    loaded, _, actions, *_ = answer(folder)
    assert loaded.policy.config.transposed and torch.equal(actions, expected)


def test_sizes_of_the_published_base_are_those_of_its_file():
    config = XvlaConfig(
        cameras=("a", "b", "c"), state_dim=20, real_action_dim=20, max_state_dim=20, chunk_size=30, text_length=50,
    )  # fmt: skip
    temporal = 100 * 2048  # that the file holds and we compute
    assert round((FAMILY.parameters(config) + temporal) / 1e6, 1) == 879.7


def test_a_folder_that_says_no_domain_says_what_to_set(tmp_path):
    folder = lerobot_folders.write(tmp_path / "theirs", "xvla")
    _, _, other, *_ = answer(folder, overrides={"domain_id": 3})
    _, _, said, *_ = answer(folder)
    assert (other - said).abs().max() > 0.01
    steps(folder, lambda rows: [row for row in rows if row["registry_name"] != "xvla_add_domain_id"])
    assert "set overrides.domain_id" in describe(folder)["domain"]
    with pytest.raises(InputError, match=r"the domain it was trained for; set overrides\.domain_id"):
        load(folder, robot=ROBOT)
    with pytest.raises(InputError, match=r"set overrides\.domain_id"):
        answer(folder)
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"checkpoint": "theirs", "overrides": {"domain_id": 0}}))
    assert torch.equal(answer(path)[2], said)
    with pytest.raises(InputError, match="domain_id 4, expected 0 to 3"):
        load(folder, overrides={"domain_id": 4})


def test_images_are_normalised_whatever_the_preprocessor_says(tmp_path):
    """Published preprocessors lack the steps; LeRobot's evaluation adds them by code."""
    folder = lerobot_folders.write(tmp_path / "theirs", "xvla")
    expected = answer(folder)[2]
    steps(folder, lambda rows: [row for row in rows if "image" not in row["registry_name"]])
    assert torch.equal(answer(folder)[2], expected)


def test_poses_are_described_and_answered_but_not_served(tmp_path):
    folder = lerobot_folders.write(tmp_path / "theirs", "xvla", action_mode="agibot_ee6d")
    config = json.loads((folder / "config.json").read_text())
    config["output_features"]["action"]["shape"] = config["input_features"]["observation.state"]["shape"] = [20]
    (folder / "config.json").write_text(json.dumps(config))
    assert describe(folder)["action mode"] == "agibot_ee6d"
    loaded, (_, sample) = load(folder), lerobot_folders.expected("xvla")
    sample = replace(sample, state=np.zeros((1, 20)))
    answered = loaded.policy.predict(loaded.processor.inputs([sample]))
    assert loaded.processor.outputs(answered, [sample])[0].parts[0].data.shape == (5, 20)
    with pytest.raises(InputError, match="action_mode agibot_ee6d: its actions are poses of end effectors: `tool` of"):
        load(folder, robot=ROBOT)


def test_poses_of_a_tool_are_served_and_its_state_is_where_the_arm_is(tmp_path):
    folder = lerobot_folders.write(tmp_path / "theirs", "xvla", action_mode="ee6d")
    config = json.loads((folder / "config.json").read_text())
    config["output_features"]["action"]["shape"] = config["input_features"]["observation.state"]["shape"] = [20]
    (folder / "config.json").write_text(json.dumps(config))
    for file in folder.glob("policy_p*.safetensors"):  # statistics of six joints
        save_file({key: value for key, value in load_file(file).items() if "image" in key}, file)
    (tmp_path / "arm.urdf").write_text(urdf(World().model, "so101"))
    nothing, pose = [{"joint": None}], {"rotation": "rotation_6d_rows", "frame": "base"}
    data = {
        "checkpoint": "theirs", "cameras": {"front": "front", "wrist": "wrist"}, "step_dt": 0.1,
        "state": nothing * 20, "actions": [*nothing * 9, {"joint": "gripper", "offset": 0.1}, *nothing * 10],
        "tool": {"space": "pose", **pose}, "hold": list(ROBOT.joint_names[:5]),
        "tool_state": {"urdf": "arm.urdf", "link": "tip", **pose},
    }  # fmt: skip
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(data))
    loaded, (_, sample) = load(file, robot=ROBOT), lerobot_folders.expected("xvla")
    check_robot(loaded.processor, ROBOT)
    joints = np.array([0.2, -0.9, 0.8, 0.9, 0.3, 0.5])
    sample = replace(sample, state=joints[None])
    batch = loaded.processor.inputs([sample])
    tip = Kinematics(tmp_path / "arm.urdf").poses(dict(zip(ROBOT.joint_names, joints, strict=True)))["tip"]
    seen = np.concatenate([tip[:3, 3], tip[:2, :3].ravel(), np.zeros(11)])
    np.testing.assert_allclose(batch["state"][0], seen, atol=1e-6)
    answered = loaded.policy.predict(batch)
    tool, gripper = loaded.processor.outputs(answered, [sample])[0].parts
    assert (tool.space, tool.frame) == (Space.END_EFFECTOR_POSE, "base") and gripper.names == ("gripper",)
    np.testing.assert_allclose(tool.data, answered[0, :, :9].double(), atol=1e-6)
    np.testing.assert_allclose(gripper.data[:, 0], answered[0, :, 9].double() - 0.1, atol=1e-6)
    millimetres = [{"joint": None, "scale": 1000.0, "offset": 5.0}] * 3
    file.write_text(yaml.safe_dump(data | {
        "state": [*millimetres, *nothing * 17], "actions": [*millimetres, *data["actions"][3:]],
    }))  # fmt: skip
    again = load(file, robot=ROBOT).processor
    np.testing.assert_allclose(again.inputs([sample])["state"][0, :3], 1000 * tip[:3, 3] + 5, rtol=1e-6)
    np.testing.assert_allclose(again.inputs([sample])["state"][0, 3:], seen[3:], atol=1e-6)
    part = again.outputs(answered, [sample])[0].parts[0].data
    np.testing.assert_allclose(part[:, :3], (tool.data[:, :3] - 5) / 1000, atol=1e-9)
    np.testing.assert_array_equal(part[:, 3:], tool.data[:, 3:])
    for change, words in (
        ({"tool_state": None}, "state: the policy reads the pose of its tool"),
        ({"tool_state": data["tool_state"] | {"link": "claw"}}, "tool_state: link 'claw', expected one of"),
        ({"tool_state": data["tool_state"] | {"first": 12}}, "tool_state: dimensions 12 to 20 of `state`, which"),
        ({"tool_state": data["tool_state"] | {"urdf": "no.urdf"}}, "no.urdf"),
        ({"state": [{"joint": None, "mode": "delta"}, *nothing * 19]}, "tool_state: state[0] has mode delta, expected"),
        ({"actions": [*nothing * 8, {"joint": None, "mode": "rate"}, *nothing * 11], "hold": list(ROBOT.joint_names)},
         "tool: actions[8] has mode rate, expected scale and offset at most"),
    ):
        file.write_text(yaml.safe_dump(data | change))
        with pytest.raises(InputError) as error:
            load(file, robot=ROBOT)
        assert words in str(error.value) and "\n" not in str(error.value)


def test_an_absent_camera_is_a_view_of_zeros_behind_the_others(tmp_path):
    from vla_ros.policies.embodiment import Embodiment

    folder = lerobot_folders.write(tmp_path / "theirs", "xvla")
    joints = tuple(f"joint_{i}" for i in range(6))
    _, sample = lerobot_folders.expected("xvla")
    batches = []
    for cameras in ({"front": None, "wrist": "wrist"}, {"front": "wrist", "wrist": None}):
        loaded = load(folder, embodiment=Embodiment.identity(joints, cameras, 0.1))
        batches.append(loaded.processor.inputs([sample]))
    assert torch.equal(batches[0]["images"], batches[1]["images"]) and batches[0]["images"].shape[1] == 1
    tokens = loaded.policy.image_tokens(batches[0]["images"], batches[0]["image_mask"])
    assert tokens.shape[1] == 3 and tokens[:, 0].any() and not tokens[:, 1:].any()


def test_views_are_as_many_as_lerobot_makes(tmp_path):
    for number, (change, views) in enumerate((
        ({}, 3), ({"num_image_views": None}, 2), ({"num_image_views": 1, "empty_cameras": 2}, 4),
    )):
        folder = lerobot_folders.write(tmp_path / str(number), "xvla", **change | {"max_len_seq": 64})
        assert load(folder).policy.config.views == views


def test_padding_is_the_mean_colour(tmp_path):
    """LeRobot normalises before it pads: its padding is zero."""
    folder = lerobot_folders.write(tmp_path / "theirs", "xvla")
    loaded = load(folder)
    images = loaded.processor.inputs([lerobot_folders.expected("xvla")[1]])["images"]
    seen = ((images + 1) / 2 - loaded.policy.pixel_mean) / loaded.policy.pixel_std
    assert images.shape == (1, 2, 3, 64, 64)  # of 48 by 64 pixels
    assert seen[..., :16, :].abs().max() < 1e-6 and seen[..., 16:, :].abs().mean() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_mode": "arms"}, "action_mode 'arms', expected one of"),
        ({"action_mode": "joint"}, "action_mode joint: actions of 6 dimensions, expected 14"),
        ({"max_len_seq": 20}, "tokens of 3 images, 7 of text and 5 actions, expected at most max_len_seq 20"),
        ({"num_heads": 5}, "num_heads 5, expected a divisor of hidden_size 24"),
        ({"pad_language_to": "longest"}, None),
        ({"domain_feature_key": "robot"}, "domain_feature_key 'robot', expected None"),
        ({"new_field": 1}, r"unknown fields \['new_field'\]"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused(tmp_path, change, message):
    folder = lerobot_folders.write(tmp_path / "theirs", "xvla", **change)
    if message is None:  # the preprocessor's word counts
        assert load(folder).policy.config.text_length == 7
        return
    with pytest.raises(InputError, match=message):
        load(folder)


def test_the_modes_of_lerobot_have_their_losses_and_grippers():
    generator = torch.Generator().manual_seed(0)
    for name, width, real, grippers in (("joint", 14, 14, (6, 13)), ("franka_joint7", 20, 7, ()),
                                        ("agibot_ee6d", 20, 20, ())):  # fmt: skip
        mode = find_mode(name, real, 20)
        answer, target = (torch.rand(2, 3, width, generator=generator) for _ in range(2))
        assert mode.width == width and not mode.seen(answer)[..., list(grippers)].any()
        hidden = [index for index in range(width) if index not in grippers]
        assert torch.equal(mode.seen(answer)[..., hidden], answer[..., hidden])
        assert torch.equal(mode.answered(answer)[..., list(grippers)], answer[..., list(grippers)].sigmoid())
        assert torch.equal(mode.answered(answer)[..., hidden], answer[..., hidden])
        error = (answer - target).square().numpy()
        losses = {key: float(value) for key, value in mode.losses(answer, target).items()}
        if name == "franka_joint7":
            assert losses == pytest.approx({"joints_loss": error[..., :7].mean()})
        elif name == "joint":
            a, t = answer[..., list(grippers)].double(), target[..., list(grippers)].double()
            entropy = -(t * a.sigmoid().log() + (1 - t) * (-a).sigmoid().log())
            expected = {"joints_loss": error[..., hidden].mean(), "gripper_loss": 0.1 * float(entropy.mean())}
            assert losses == pytest.approx(expected)
        else:
            sums = [sum(error[..., s + o : e + o].mean() for o in (0, 10)) for s, e in ((0, 3), (3, 9))]
            expected = {"position_loss": 500 * sums[0], "rotate6D_loss": 10 * sums[1],
                        "gripper_loss": 10 * np.mean(error[..., [9, 19]])}  # fmt: skip
            assert losses == pytest.approx(expected)


@pytest.mark.parametrize(("mode", "width", "grippers"), [("joint", 14, [6, 13]), ("so101_bimanual", 12, [5, 11])])
def test_grippers_that_are_answered_as_openings_are_taught_as_openings(mode, width, grippers):
    joints = tuple(f"joint_{i}" for i in range(width))
    row = {"mean": np.zeros(width), "std": np.full(width, 0.3), "min": np.full(width, -0.6), "max": np.full(width, 0.6)}
    row |= {"q01": row["min"], "q99": row["max"]}
    data = TrainingData(joints, families.CAMERAS, 0.1, {"observation.state": row, "action": row}, families.INSTRUCTIONS)
    config = families.config("xvla") | {"action_mode": mode, "max_action_dim": 20}
    numbers = ", ".join(map(str, grippers))
    for normalisation in ({}, {"normalisation": "min_max"}):
        with pytest.raises(InputError, match=rf"{mode}: .* expected identity: .*\(dimensions {numbers}\).*mode auto"):
            registry.build("xvla", config | normalisation, data)
    registry.build("xvla", config | {"action_mode": "auto"}, data)
    processor = registry.build("xvla", config | {"normalisation": "identity"}, data).processor
    images = {name: np.zeros((1, 48, 48, 3), np.uint8) for name in families.CAMERAS}

    def taught(value):
        actions, pad = np.full((6, width), value), np.array([False] * 5 + [True])
        actions[5] = -3.0  # padding counts for nothing
        return processor.inputs([Sample(images, np.zeros((1, width)), "touch", actions=actions, action_is_pad=pad)])

    assert taught(1.00001)["actions"][..., grippers].max() == 1.0
    assert taught(0.4)["actions"][0, :5, :width].numpy() == pytest.approx(0.4)
    for value in (-0.5, 1.2, np.nan):
        with pytest.raises(InputError, match=rf"\(dimensions {numbers}\) from {value} to {value} in the data"):
            taught(value)


def test_a_folder_whose_grippers_were_not_openings_is_refused(tmp_path):
    folder = lerobot_folders.write(tmp_path / "theirs", "xvla", action_mode="joint", max_len_seq=512)
    config = json.loads((folder / "config.json").read_text())
    config["output_features"]["action"]["shape"] = config["input_features"]["observation.state"]["shape"] = [14]
    (folder / "config.json").write_text(json.dumps(config))
    describe(folder)
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace('"ACTION": "IDENTITY"', '"ACTION": "MEAN_STD"'))
    rows = {n: {"mean": np.zeros(n), "std": np.ones(n)} for n in (6, 14)}  # of the state as the folder's own
    write_statistics(tmp_path / "stats.json", {"observation.state": rows[6], "action": rows[14]})
    with pytest.raises(InputError, match="action_mode joint: actions normalised by mean_std, expected identity"):
        load(folder, overrides={"statistics": str(tmp_path / "stats.json")})


def test_a_tokenizer_without_its_template_is_refused(tmp_path):
    folder = lerobot_folders.write(tmp_path / "theirs", "xvla")
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    for look in (describe, load):
        with pytest.raises(InputError, match="neither begun nor ended by it, .*: BART's tokenizer"):
            look(folder)
