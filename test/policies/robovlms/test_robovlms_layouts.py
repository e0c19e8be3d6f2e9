"""Published folders of RoboVLMs: what they hold, and what is refused."""

import json
import math
from argparse import Namespace

import golden_vectors
import numpy as np
import pytest
import robovlms_folders
import torch
import yaml
from answers import answered, sample
from safetensors.torch import load_file

from vla_ros.core.chunk import Space
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.policies import describe, load, save
from vla_ros.policies.formats.convert import convert
from vla_ros.policies.formats.weights import Unused, load_weights
from vla_ros.policies.normalisation import write_statistics
from vla_ros.policies.options import ACTION, STATE, TrainingData
from vla_ros.policies.robovlms.actions import mu_law
from vla_ros.policies.robovlms.config import BACKBONES, RoboVLMConfig
from vla_ros.policies.robovlms.model import RoboVLM
from vla_ros.policies.robovlms.names import rename
from vla_ros.runtime.serving import check_robot

ROBOT = RobotSpec.load("config/robots/so101.yaml")


def changed(path, **changes):
    data = json.loads((path / "config.json").read_text())
    head = data["act_head"] | changes.pop("act_head", {})
    (path / "config.json").write_text(json.dumps(data | changes | {"act_head": head}))


@pytest.mark.parametrize("kind", ["kosmos", "paligemma"])
@pytest.mark.parametrize("head", ["LSTM head", "GPT head", "FC head", "resampler and state"])
def test_every_published_tensor_has_its_place_or_a_reason(kind, head):
    shapes = robovlms_folders.full_shapes(kind, "LSTM head" if "resampler" in head else head)
    if "resampler" in head:
        shapes |= robovlms_folders.full_shapes(kind, head)
        shapes |= {key: shape for key, shape in robovlms_folders.full_shapes(kind).items() if ".rnn." in key}
    elif head == "LSTM head":
        assert len(shapes) == {"kosmos": 919, "paligemma": 648}[kind]
    names = {"LSTM head": "lstm", "GPT head": "gpt", "FC head": "fc", "resampler and state": "lstm"}
    inner = {key.removeprefix("model.backbone."): shape for key, shape in shapes.items()}
    config = RoboVLMConfig(
        action_dim=7, cameras=("static",), backbone=BACKBONES[kind].size_of(inner, {}, ""), head=names[head],
        window=16, resampler="resampler" in head, prompt=kind,
    )
    with torch.device("meta"):
        policy = RoboVLM(config)
    name = rename(config, shapes)
    load_weights(policy, golden_vectors.ShapesOnly(shapes), "here", name, device="meta")
    count = sum(p.numel() for p in policy.parameters())
    unused = {key: math.prod(shapes[key]) for key in shapes if isinstance(name(key), Unused)}
    assert count + sum(unused.values()) == sum(map(math.prod, shapes.values()))
    if head == "LSTM head":
        pooled = sum(size for key, size in unused.items() if ".vision_model.head." in key)
        assert count + pooled == {"kosmos": 1_705_698_374, "paligemma": 2_979_917_830}[kind]


def test_a_folder_of_calvin_answers_but_is_not_served_without_a_tool(tmp_path):
    path = robovlms_folders.write(tmp_path / "theirs")
    rows = describe(path)
    assert rows["layout"] == "robovlms" and rows["space"] == "end effector delta" and rows["state"] == "none"
    assert rows["actions"] == "7 dimensions, normalised by quantiles" and "4 steps, post" in rows["window"]
    with pytest.raises(InputError, match=r"end effector's pose.*overrides\.space: joint_position") as error:
        load(path, robot=ROBOT)
    assert "\n" not in str(error.value)
    loaded = load(path)
    assert loaded.policy.traits.paced and loaded.processor.first_action_step == -3
    answer, targets = answered(loaded, sample(loaded.processor))
    [part] = targets.parts
    assert part.space == Space.END_EFFECTOR_DELTA and part.names[-1] == "gripper" and part.data.shape == (3, 7)
    values = answer[0].double().numpy()
    np.testing.assert_allclose(part.data[:, :6], 0.5 * (values[:, :6] + 1) * 1.3 - 0.65, atol=1e-12)
    np.testing.assert_array_equal(part.data[:, 6], values[:, 6] == 1)  # how far it is open
    save(tmp_path / "ours", loaded)
    _, again = answered(load(tmp_path / "ours"), sample(loaded.processor))
    np.testing.assert_allclose(again.parts[0].data, part.data, atol=1e-12)
    changed(path, use_mu_law=True)
    spread = answered(load(path), sample(loaded.processor))[1].parts[0].data
    np.testing.assert_allclose(spread[:, :6], mu_law(values, inverse=True)[:, :6] * 0.65, atol=1e-7)


def test_actions_of_open_x_embodiment_are_normalised_twice(tmp_path):
    path = robovlms_folders.write(tmp_path / "theirs", train_dataset={"type": "OpenVLADataset"})
    assert "expected one" in describe(path)["notes"]
    low, high = robovlms_folders.write_statistics(path, 7)
    loaded = load(path)
    answer, targets = answered(loaded, sample(loaded.processor))
    values = answer[0].double().numpy()
    expected = 0.5 * (values * 0.65 + 1) * (high - low) + low
    np.testing.assert_allclose(targets.parts[0].data[:, :6], expected[:, :6], atol=1e-12)
    np.testing.assert_array_equal(targets.parts[0].data[:, 6], values[:, 6] == 1)
    raw = np.random.default_rng(0).uniform(1.5 * low, 1.5 * high, (20, 7))
    raw[:, 6] = raw[:, 6] > 0.5
    once = 2 * (np.clip(raw, low, high) - low) / (high - low) - 1
    twice = 2 * (np.clip(once, -0.65, 0.65) + 0.65) / 1.3 - 1
    np.testing.assert_allclose(loaded.processor.actions.normalise(raw)[:, :6], twice[:, :6], atol=1e-6)
    np.testing.assert_allclose(loaded.processor.actions.normalise(raw)[:, 6], once[:, 6], atol=1e-6)


def given(path, **action):
    """A file for `overrides.statistics`."""
    file = path / "given.json"
    write_statistics(file, {STATE: {name: np.zeros(0) for name in action}, ACTION: action})
    return {"statistics": str(file)}


def test_a_file_of_statistics_counts_as_the_folders_own(tmp_path):
    path = robovlms_folders.write(tmp_path / "theirs", train_dataset={"type": "OpenVLADataset"})
    low, high = robovlms_folders.write_statistics(path, 7)
    own, file = load(path), given(tmp_path, q01=low, q99=high, min=low * 2, max=high * 2)
    next(path.glob("dataset_statistics*")).unlink()
    answer, theirs = answered(own, sample(own.processor))
    ours = load(path, overrides=file).processor.outputs(answer, [sample(own.processor)])[0]
    np.testing.assert_array_equal(ours.parts[0].data, theirs.parts[0].data)
    calvin = load(robovlms_folders.write(tmp_path / "calvin"), overrides=file).processor.actions.statistics
    assert sorted(calvin) == ["q01", "q99"] and (calvin["q01"][6], calvin["q99"][6]) == (0, 1)
    np.testing.assert_allclose((calvin["q99"] - calvin["q01"])[:6], 0.65 * (high - low)[:6])
    for rows, words in (({"q01": low[1:], "q99": high[1:]}, r"given.json': q01, q99 of \[6, 6\] numbers, expected 7"),
                        ({"min": low, "max": high}, r"given.json': action.q01")):  # fmt: skip
        with pytest.raises(InputError, match=words) as error:
            load(path, overrides=given(tmp_path, **rows))
        assert "\n" not in str(error.value)


def test_mean_and_deviation_are_the_published_codes_and_leave_the_gripper(tmp_path):
    path = robovlms_folders.write(tmp_path / "theirs", regular_action=True)
    assert "a mean and a deviation that config.json does not contain" in describe(path)["notes"]
    vectors, *_ = golden_vectors.load("robovlms_actions")
    mean, std, one = (vectors[name].numpy() for name in ("reg_mean", "reg_std", "mulaw_in_1d"))
    loaded = load(path, overrides=given(tmp_path, mean=mean, std=std))
    normalised = loaded.processor.actions.normalise(one)
    np.testing.assert_allclose(normalised[:6], vectors["regularized_1d"][:6], atol=1e-12)
    np.testing.assert_allclose(loaded.processor.actions.restore(normalised), one, atol=1e-12)
    answer, targets = answered(loaded, sample(loaded.processor))
    assert {-1.0, 1.0} >= set(answer[0, :, 6].tolist())
    np.testing.assert_allclose(targets.parts[0].data[:, 6], answer[0, :, 6] == 1, atol=1e-5)
    joints = loaded.processor.joints
    row = {"mean": np.full(7, 0.2), "std": np.full(7, 0.4), "min": np.full(7, -0.1), "max": np.full(7, 0.9)}
    data = TrainingData(joints, loaded.processor.cameras, 0.1, {STATE: row, ACTION: row}, ())
    again = loaded.processor.with_statistics(data).actions
    np.testing.assert_allclose(again.restore(np.ones(7)), [0.6] * 6 + [0.9], atol=1e-5)
    np.testing.assert_allclose(again.restore(-np.ones(7)), [-0.2] * 6 + [-0.1], atol=1e-5)


def test_a_file_of_torch_is_converted_and_gives_the_same(tmp_path):
    path = robovlms_folders.write(tmp_path / "theirs")
    tensors = {f"module.{key}": value for key, value in load_file(path / "model.safetensors").items()}
    tied = "module.model.backbone.text_model."
    tensors[f"{tied}model.embed_tokens.weight"] = tensors[f"{tied}lm_head.weight"]
    torch.save({"state_dict": tensors, "hyper_parameters": Namespace(a=1)}, tmp_path / "kosmos_ph.pt")
    (tmp_path / "kosmos_ph.json").write_text((path / "config.json").read_text())
    convert([tmp_path / "kosmos_ph.pt"], tmp_path / "converted")
    (path / "vlm").rename(tmp_path / "converted/vlm")
    again = load(tmp_path / "converted")
    robovlms_folders.write(tmp_path / "second")
    one = sample(again.processor)
    assert torch.equal(answered(again, one)[0], answered(load(tmp_path / "second"), one)[0])


def test_a_discrete_folder_decodes_one_row_of_its_tokenizers_tokens(tmp_path):
    path = robovlms_folders.write(tmp_path / "theirs", "kosmos_discrete")
    robovlms_folders.write_tokenizer(path / "vlm", 100)
    with pytest.raises(InputError, match="256 bins from -1.0 to 1.0, action_end 85, stop 2: expected"):
        load(path)
    robovlms_folders.write_tokenizer(path / "vlm")
    loaded = load(path)
    config = loaded.policy.config
    assert (config.action_end, config.tokens.first, config.stop) == (399 - 4 - 10, 129, 2)
    assert loaded.processor.horizon == 1 and config.chunk == 2 and not loaded.policy.traits.paced
    assert config.asked == 3 and "head reads" not in describe(path)
    (path / "vlm/special_tokens_map.json").unlink()
    with pytest.raises(InputError, match=r"special_tokens_map\.json.*overrides\.action_end"):
        load(path)
    loaded = load(path, overrides={"action_end": 386, "decoding": "actions"})
    answer, targets = answered(loaded, sample(loaded.processor))
    assert answer.dtype == torch.int64 and targets.parts[0].data.shape == (1, 7)
    values = loaded.policy.config.tokens.values(answer)[0]
    np.testing.assert_allclose(targets.parts[0].data[0, :6], values[:6] * 0.65, atol=1e-7)
    assert targets.parts[0].data[0, 6] == float(values[6] > 0)
    with pytest.raises(InputError, match="the policy wrote token 5 for dimension 0, expected an action, 130 to 385"):
        loaded.processor.outputs(torch.full_like(answer, 5), [sample(loaded.processor)])


@pytest.mark.parametrize("name", ["kosmos_fc", "kosmos_gpt", "kosmos_resampler", "kosmos_downsample_vision",
                                  "kosmos_lstm_pre_pool", "paligemma_lstm", "llava_lstm"])
def test_the_other_recipes_load(tmp_path, name):
    path = robovlms_folders.write(tmp_path / "theirs", name)
    if name == "llava_lstm":  # its tokenizer's own prompt has neither start nor end
        changed(path, tokenizer={"max_text_len": 20})
    loaded = load(path)
    answer, _ = answered(loaded, sample(loaded.processor))
    assert answer.isfinite().all() and answer.shape[-1] == 7


@pytest.mark.parametrize(("changes", "message"), [
    ({"robovlm_name": "RoboFlamingo"}, "robovlm_name 'RoboFlamingo', expected one of"),
    ({"robovlm_name": "RoboPaligemma"}, "language_model.*is it the backbone that config.json names"),
    ({"tcp_rel": True}, "tcp_rel True, expected false"),
    ({"image_size": 224}, "image_size 224, expected 28"),
    ({"norm_min": 1.0}, "norm_min 1.0, norm_max 0.65"),
    ({"act_head": {"type": "DiTDecoder"}}, "act_head.type 'DiTDecoder', expected one of"),
    ({"act_head": {"history_type": "video"}}, "history_type 'video', expected one of"),
    ({"act_head": {"fill_zero": True}}, "fill_zero True, expected false"),
    ({"act_head": {"hidden_size": 17}}, "misshapen"),
])  # fmt: skip
def test_what_is_not_supported_is_refused_in_one_line(tmp_path, changes, message):
    path = robovlms_folders.write(tmp_path / "theirs")
    changed(path, **changes)
    with pytest.raises(InputError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_heads_that_no_tensor_tells_are_asked_for(tmp_path):
    path = robovlms_folders.write(tmp_path / "theirs")
    (path / "vlm/config.json").unlink()
    with pytest.raises(InputError, match=r"a tower of width 24, expected one of \[1024, 1152\], or vlm/config.json"):
        load(path)


def test_a_policy_file_that_says_joints_is_served(tmp_path):
    robovlms_folders.write(tmp_path / "theirs", action_dim=6)
    data = {"checkpoint": "theirs", "cameras": {"static": "front", "hand": "wrist"}, "step_dt": 0.2,
            "state": list(ROBOT.joint_names), "overrides": {"space": "joint_position"}}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    loaded = load(tmp_path / "policy.yaml", robot=ROBOT)
    check_robot(loaded.processor, ROBOT)
    _, targets = answered(loaded, sample(loaded.processor))
    assert targets.parts[0].names == ROBOT.joint_names and targets.parts[0].space == Space.JOINT_POSITION


def test_a_policy_file_that_names_the_tool_is_served(tmp_path):
    path = robovlms_folders.write(tmp_path / "theirs")
    data = {"checkpoint": "theirs", "cameras": {"static": "front", "hand": "wrist"}, "step_dt": 0.2, "state": [],
            "actions": [{"joint": None, "scale": 50.0}] * 3 + [{"joint": None, "scale": 20.0, "offset": 0.3}] * 3
                       + [{"joint": "gripper", "scale": 0.5, "offset": 0.1}],
            "tool": {"space": "delta", "rotation": "euler_xyz", "frame": "base"}, "hold": list(ROBOT.joint_names[:-1])}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    loaded = load(tmp_path / "policy.yaml", robot=ROBOT)
    check_robot(loaded.processor, ROBOT)
    answer, targets = answered(loaded, sample(loaded.processor))
    raw = load(path).processor
    [plain] = raw.outputs(answer, [sample(raw)])[0].parts
    tool, gripper = targets.parts
    assert (tool.space, tool.frame) == (Space.END_EFFECTOR_DELTA, "base") and gripper.names == ("gripper",)
    offset, scale = np.repeat([[0.0, 0.3], [50.0, 20.0]], 3, axis=1)
    np.testing.assert_allclose(tool.data, (plain.data[:, :6] - offset) / scale, atol=1e-12)
    np.testing.assert_allclose(gripper.data[:, 0], (plain.data[:, 6] - 0.1) / 0.5)
    save(tmp_path / "ours", loaded)
    again = answered(load(tmp_path / "ours", robot=ROBOT), sample(loaded.processor))[1]
    np.testing.assert_allclose(again.parts[0].data, tool.data, atol=1e-12)
