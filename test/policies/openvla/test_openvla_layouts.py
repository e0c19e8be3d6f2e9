"""Published folders of OpenVLA and OpenVLA-OFT: what they hold, and what is refused."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import golden_vectors
import numpy as np
import openvla_folders
import pytest
import torch
import yaml
from answers import answered, sample
from openvla_folders import FULL
from safetensors.torch import save_file
from training_data import write_dataset

from vla_ros.core.chunk import Space
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.policies import describe, load, save
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.formats.weights import Unused, load_weights
from vla_ros.policies.openvla import tokens
from vla_ros.policies.openvla.config import OpenVLAConfig, text_sizes, towers
from vla_ros.policies.openvla.files import Merged
from vla_ros.policies.openvla.model import OpenVLA
from vla_ros.policies.openvla.names import rename
from vla_ros.runtime.serving import check_robot
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer

ROBOT = RobotSpec.load("config/robots/so101.yaml")


class Shapes(golden_vectors.ShapesOnly):
    def read(self, key):
        return torch.empty(self.shapes[key], device="meta")


@pytest.mark.parametrize(("fused", "head", "film", "keys", "numbers"), [
    (True, "autoregressive", False, 982, 7_541_237_184),
    (False, "autoregressive", False, 637, 7_188_124_608),
    (True, "l1", False, 982 + 20, 7_541_237_184 + 151_117_831 + 16_818_176),
    (True, "diffusion", False, 982 + 24, 7_541_237_184 + 151_117_831 + 16_818_176 + 16_789_504),
    (True, "l1", True, None, None),
])  # fmt: skip
def test_every_published_tensor_has_its_place_or_a_reason(fused, head, film, keys, numbers):
    shapes = openvla_folders.shapes_of(FULL, fused)
    if head != "autoregressive":
        for name, rows in openvla_folders.parts_of(FULL, 7, 8, head == "diffusion").items():
            shapes |= {f"{name}:{key}": shape for key, shape in rows.items()}
    if film:
        with torch.device("meta"):
            wrapped = {key: torch.empty(s) for key, s in openvla_folders.vision(FULL, film=4096).items()}
            values = openvla_folders.adapted(wrapped)
        assert len(values) == 1311 and sum(value.numel() for value in values.values()) == 1_215_850_944
        shapes = {key: s for key, s in shapes.items() if not key.startswith("vision_backbone")}
        merged = Merged(Shapes({key: tuple(value.shape) for key, value in values.items()}))
        shapes |= merged.shapes
    else:
        assert (len(shapes), sum(map(math.prod, shapes.values()))) == (keys, numbers)
    said = openvla_folders.config_json(FULL, fused)
    config = OpenVLAConfig(
        action_dim=7, cameras=("a",), head=head, state_dim=0 if head == "autoregressive" else 8, film=film,
        **text_sizes(said, ""), **towers(said, shapes, ""),
    )
    assert (config.text.epsilon, config.layers, config.siglip.depth, config.siglip.tokens) == (1e-6, 32, 27, 256)
    with torch.device("meta"):
        policy = OpenVLA(config)
    names = rename(config, shapes)
    load_weights(policy, Shapes(shapes), "here", names, device="meta")
    unused = sum(math.prod(shapes[key]) for key in shapes if isinstance(names(key), Unused))
    assert sum(p.numel() for p in policy.parameters()) + unused == sum(map(math.prod, shapes.values()))


@pytest.mark.parametrize("fused", [True, False])
def test_a_folder_of_an_end_effector_answers_but_is_not_served(tmp_path, fused):
    path = openvla_folders.write(tmp_path / "theirs", fused=fused)
    rows = describe(path)
    assert rows["layout"] == "openvla" and rows["space"] == "end effector delta"
    assert rows["actions"] == "7 dimensions, normalised by quantiles" and rows["state"] == "none"
    assert "up to the second-to-last" in rows["not used"] and ("DINOv2" in rows["vision"]) == fused
    with pytest.raises(InputError, match=r"end effector's pose: `tool`.*overrides\.space: joint_position") as error:
        load(path, robot=ROBOT)
    assert "\n" not in str(error.value)
    loaded = load(path)
    answer, targets = answered(loaded, sample(loaded.processor))
    [part] = targets.parts
    assert part.space == Space.END_EFFECTOR_DELTA and part.names[-1] == "gripper" and part.data.shape == (1, 7)
    said = openvla_folders.norm_stats(7, mask=[True] * 6 + [False])["action"]
    low, high = (np.array(said[name]) for name in ("q01", "q99"))
    value = tokens.decode(answer[0].numpy(), 32000)
    expected = np.where(said["mask"], 0.5 * (value + 1) * (high - low) + low, value)
    np.testing.assert_allclose(part.data[0], expected, atol=1e-12)
    save(tmp_path / "ours", loaded)
    _, again = answered(load(tmp_path / "ours"), sample(loaded.processor))
    np.testing.assert_allclose(again.parts[0].data, part.data, atol=1e-12)
    with pytest.raises(InputError, match="end effector's pose"):
        load(tmp_path / "ours", robot=ROBOT)


ARM = list(ROBOT.joint_names[:5])
TOOL_FILE = {
    "checkpoint": "theirs", "cameras": {"image": "front"}, "state": [], "step_dt": 0.2, "hold": ARM,
    "actions": [*[{"joint": None}] * 6, {"joint": "gripper", "scale": 0.5, "offset": 0.1}],
    "tool": {"space": "delta", "rotation": "euler_xyz", "frame": "base"},
}  # fmt: skip


def test_a_policy_file_that_names_the_tool_is_served(tmp_path):
    openvla_folders.write(tmp_path / "theirs")
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(TOOL_FILE))
    raw, loaded = load(tmp_path / "theirs"), load(file, robot=ROBOT)
    check_robot(loaded.processor, ROBOT)
    said = "delta of a tool in frame base, rotation as euler_xyz"
    assert said in describe(file)["actions"]
    answer, targets = answered(loaded, sample(loaded.processor))
    tool, gripper = targets.parts
    assert (tool.space, tool.frame, tool.group) == (Space.END_EFFECTOR_DELTA, "base", "")
    assert tool.names == ("x", "y", "z", "euler_xyz[0]", "euler_xyz[1]", "euler_xyz[2]")
    assert gripper.names == ("gripper",) and gripper.space == Space.JOINT_POSITION
    values = raw.processor.outputs(answer, [sample(raw.processor)])[0].parts[0].data
    np.testing.assert_array_equal(tool.data, values[:, :6])
    np.testing.assert_allclose(gripper.data[:, 0], (values[:, 6] - 0.1) / 0.5)
    one = sample(loaded.processor)
    again, survives = loaded.processor.normalise([targets], [one])
    assert survives.all()
    np.testing.assert_allclose(loaded.processor.outputs(again, [one])[0].spatial.data, tool.data, atol=1e-6)
    with pytest.raises(InputError, match="joint targets cannot be converted to end-effector actions; expected a "
                                         "dataset"):
        loaded.processor.embodiment.actions_to_policy(one.state[None], one.state)
    save(tmp_path / "ours", loaded)
    again = load(tmp_path / "ours", robot=ROBOT)
    assert again.processor.embodiment.tool == loaded.processor.embodiment.tool
    with pytest.raises(InputError, match=r"a tool's, robot so101 has none; expected `tool` in the robot file"):
        check_robot(loaded.processor, replace(ROBOT, tool=None))
    with pytest.raises(InputError, match="frame 'base', expected 'table' or 'tip', as robot so101 has it"):
        check_robot(loaded.processor, replace(ROBOT, tool=replace(ROBOT.tool, frame="table")))


@pytest.mark.parametrize("change, words", [
    ({"space": "joints"}, "policy.yaml.tool: space 'joints', expected one of ['delta', 'pose']"),
    ({"rotation": "rpy"}, "policy.yaml.tool: rotation as 'rpy', expected one of"),
    ({"first": 1}, "tool: dimensions 1 to 6 of `actions`, which has 7, of which ['gripper'] are joints"),
    ({"rotation": "matrix"}, "tool: dimensions 0 to 11 of `actions`, which has 7"),
])  # fmt: skip
def test_a_tool_that_does_not_fit_the_actions_is_refused(tmp_path, change, words):
    openvla_folders.write(tmp_path / "theirs")
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(TOOL_FILE | {"tool": TOOL_FILE["tool"] | change}))
    with pytest.raises(InputError) as error:
        load(tmp_path / "policy.yaml", robot=ROBOT)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_policy_file_that_says_joints_is_served(tmp_path):
    openvla_folders.write(tmp_path / "theirs", statistics={"mine": openvla_folders.norm_stats(6)})
    joints = list(ROBOT.joint_names)
    data = {"checkpoint": "theirs", "cameras": {"image": "front"}, "state": joints, "step_dt": 0.2}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match="end effector's pose"):
        load(tmp_path / "policy.yaml", robot=ROBOT)
    data["overrides"] = {"space": "joint_position", "centre_crop": True}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    loaded = load(tmp_path / "policy.yaml", robot=ROBOT)
    check_robot(loaded.processor, ROBOT)
    assert loaded.processor.fit == "centre"
    _, targets = answered(loaded, sample(loaded.processor))
    assert targets.parts[0].names == ROBOT.joint_names and targets.parts[0].space == Space.JOINT_POSITION


def test_openvla_is_fine_tuned_on_joints_however_many_there_are(tmp_path):
    """Adapters on all linear layers of the language model, statistics of the data, as OpenVLA's own fine-tuning."""
    openvla_folders.write(tmp_path / "theirs")
    data = {"checkpoint": "theirs", "cameras": {"image": "front"}, "state": list(ROBOT.joint_names), "step_dt": 0.1,
            "overrides": {"space": "joint_position"}}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    config = TrainConfig.from_dict({
        "dataset": str(write_dataset(tmp_path / "data", episodes=2, size=(48, 64))), "output": str(tmp_path / "run"),
        "start": str(tmp_path / "policy.yaml"), "statistics": "recompute", "steps": 1, "batch_size": 2, "save_every": 1,
        "lora": {"rank": 4, "target": r"layers\.\d+\.(qkv|out|gate_up|down)"},
    })  # fmt: skip
    assert np.isfinite(list(Trainer(config).run().values())).all()
    loaded = load(tmp_path / "run" / "checkpoints" / "last", robot=ROBOT)
    check_robot(loaded.processor, ROBOT)
    assert loaded.policy.config.action_dim == 6 and loaded.processor.actions.style == "openvla"
    assert answered(loaded, sample(loaded.processor))[1].parts[0].names == ROBOT.joint_names


@pytest.mark.parametrize("name", ["libero", "aloha", "bridge"])
@pytest.mark.parametrize("kind", ["l1", "diffusion", "film"])
def test_oft_folders(tmp_path, name, kind):
    dims, state, chunk, cameras = {"libero": (7, 8, 8, 2), "aloha": (14, 14, 25, 3), "bridge": (7, 7, 5, 1)}[name]
    if kind != "film" and name == "bridge" or kind == "diffusion" and name == "aloha":
        pytest.skip("the same with other numbers")
    path = openvla_folders.write_oft(tmp_path / "oft", dims, state, kind == "diffusion", kind == "film")
    loaded = load(path)
    config, processor = loaded.policy.config, loaded.processor
    assert (config.chunk, config.action_dim, config.state_dim, len(config.cameras)) == (chunk, dims, state, cameras)
    assert config.head == ("diffusion" if kind == "diffusion" else "l1") and config.film == (kind == "film")
    assert processor.actions.mode == ("min_max" if name == "aloha" else "quantiles") and processor.fit == "centre"
    assert processor.actions.style == "openvla_oft"
    answer, targets = answered(loaded, sample(processor))
    assert answer.shape == (1, chunk, dims)
    for steps in (0, 51):
        if kind == "diffusion":
            with pytest.raises(InputError, match=f"num_steps {steps}, expected 1 to 50"):
                loaded.policy.prepare(steps)
    space = Space.JOINT_POSITION if name == "aloha" else Space.END_EFFECTOR_DELTA
    assert targets.parts[0].space == space and targets.parts[0].data.shape == (chunk, dims)
    head = torch.load(path / "action_head--100_checkpoint.pt", weights_only=True)
    prefix = "module.noise_predictor.mlp_resnet" if kind == "diffusion" else "module.model"
    assert torch.equal(loaded.policy.action_head.fc2.weight, head[f"{prefix}.fc2.weight"].float())
    if kind == "film":
        rows = torch.load(path / "vision_backbone--100_checkpoint.pt", weights_only=True)
        key = "vision_backbone.fused_featurizer.blocks.0.block.attn.qkv."
        down, up = (rows[f"{key}lora_{letter}.default.weight"].float() for letter in "AB")
        expected = rows[f"{key}base_layer.weight"].float() + 0.5 * up @ down
        torch.testing.assert_close(loaded.policy.vision.towers["siglip"].blocks[0].qkv.weight, expected)
    save(tmp_path / "ours", loaded)
    again, _ = answered(load(tmp_path / "ours"), sample(processor))
    torch.testing.assert_close(again, answer)


def test_alohas_joints_are_served_with_the_shipped_policy_file(tmp_path):
    openvla_folders.write_oft(tmp_path / "oft", 14, 14, film=True)
    robot = RobotSpec.load("config/robots/aloha.yaml")
    data = yaml.safe_load(Path("config/policies/openvla_oft_aloha.yaml").read_text())
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data | {"checkpoint": "oft"}))
    loaded = load(tmp_path / "policy.yaml", robot=robot)
    check_robot(loaded.processor, robot)
    assert loaded.policy.config.cameras == ("full_image", "left_wrist_image", "right_wrist_image")
    one = sample(loaded.processor)
    one.state[:, [robot.joint_names.index(f"{side}_left_finger") for side in ("left", "right")]] = [0.01844, 0.058]
    state = loaded.processor.embodiment.state_to_policy(one.state[0])
    np.testing.assert_allclose(state[[6, 13]], [0, 1], atol=1e-4)
    [part] = answered(loaded, one)[1].parts
    assert part.names == robot.joint_names and part.data.shape == (25, 14)
    closed = np.zeros((1, 14))
    back = loaded.processor.embodiment.actions_to_robot(closed, one.state[0])
    assert back[0, robot.joint_names.index("left_left_finger")] == pytest.approx(0.01844, abs=2e-5)
    # A camera that is not mapped is one that the policy was trained without.
    del data["cameras"]["right_wrist_image"]
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data | {"checkpoint": "oft"}))
    assert load(tmp_path / "policy.yaml", robot=robot).policy.config.cameras == ("full_image", "left_wrist_image")


def test_which_statistics(tmp_path):
    stats = {name: openvla_folders.norm_stats(7, seed=seed) for seed, name in enumerate(("bridge", "fractal"))}
    path = openvla_folders.write(tmp_path / "theirs", statistics=stats)
    assert "unnorm_key" in describe(path)["notes"]
    with pytest.raises(InputError, match=r"\['bridge', 'fractal'\]; overrides.unnorm_key says which"):
        load(path, robot=ROBOT)
    with pytest.raises(InputError, match="the checkpoint has no statistics"):
        answered(load(path), sample(load(path).processor))
    with pytest.raises(InputError, match=r"no 'kuka', expected one of \['bridge', 'fractal'\]"):
        load(path, overrides={"unnorm_key": "kuka"})
    chosen = load(path, overrides={"unnorm_key": "fractal"}).processor
    assert chosen.actions.statistics["q01"].tolist() == stats["fractal"]["action"]["q01"] and chosen.fit == "bicubic"
    mine = openvla_folders.norm_stats(7, seed=9)
    (path / "dataset_statistics.json").write_text(json.dumps({"mine": mine}))
    tuned = load(path).processor
    assert tuned.actions.statistics["q99"].tolist() == mine["action"]["q99"] and tuned.fit == "centre"
    assert load(path, overrides={"centre_crop": False}).processor.fit == "bicubic"


def test_without_statistics_a_folder_is_described_and_says_what_to_give(tmp_path):
    path = openvla_folders.write(tmp_path / "theirs")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"norm_stats": {}}))
    rows = describe(path)
    assert rows["actions"].startswith("7 dimensions") and "no norm_stats in config.json, 7 actions are" in rows["notes"]
    joints = Embodiment.identity(ROBOT.joint_names, {"image": "front"}, 0.1)
    for options in ({"step_dt": 0.1}, {"embodiment": joints}):
        with pytest.raises(InputError, match=r"no norm_stats in config.json.*; set overrides\.statistics in") as error:
            load(path, robot=ROBOT, overrides={"space": "joint_position"}, **options)
        assert "unnorm_key" not in str(error.value) and "\n" not in str(error.value)


def test_an_adapter_is_read_over_its_base(tmp_path):
    base, adapter = openvla_folders.write(tmp_path / "base"), openvla_folders.write(tmp_path / "adapter")
    for file in adapter.glob("model*"):
        file.unlink()
    matrix = "language_model.model.layers.0.self_attn.q_proj"
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "openvla/openvla-7b"}
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    torch.manual_seed(0)
    down, up = torch.randn(2, 16), torch.randn(16, 2)
    save_file({f"base_model.model.{matrix}.lora_A.weight": down, f"base_model.model.{matrix}.lora_B.weight": up},
              adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match="a PEFT adapter of 'openvla/openvla-7b', no whole policy; name the folder"):
        load(adapter)
    assert describe(adapter, base=base)["model"] == "OpenVLA"
    plain, adapted = (policy.policy.layers[0].qkv.weight for policy in (load(base), load(adapter, base=base)))
    torch.testing.assert_close(adapted[:16], plain[:16] + 2 * up @ down)
    assert torch.equal(adapted[16:], plain[16:])
    oft = openvla_folders.write_oft(tmp_path / "oft", 7, 8)
    with pytest.raises(InputError, match=r"an adapter, and \S+/oft/action_head--100_checkpoint.pt, a part of"):
        load(adapter, base=oft)


def test_means_of_the_pixels_come_from_the_folder(tmp_path):
    means = ((0.484375, 0.455078125, 0.40625), (0.25, 0.5, 0.75))
    loaded = load(openvla_folders.write(tmp_path / "theirs", means=means))
    assert loaded.policy.image_mean.flatten(1).tolist() == [list(row) for row in means]
    save(tmp_path / "ours", loaded)
    assert torch.equal(load(tmp_path / "ours").policy.image_mean, loaded.policy.image_mean)


def test_prompts_of_the_two_generations(tmp_path):
    kinds = [describe(openvla_folders.write(tmp_path / str(fused), fused=fused))["head"] for fused in (True, False)]
    assert set(kinds) == {"autoregressive: action tokens one after the other"}
    prompts = [load(tmp_path / str(fused)).policy.config.prompt for fused in (True, False)]
    assert prompts == ["openvla", "vicuna"]


@pytest.mark.parametrize(("change", "message"), [
    ({"timm_model_ids": ["vit_base", "vit_so400m_patch14_siglip_224"]}, "timm_model_ids"),
    ({"n_action_bins": 128}, "n_action_bins 128, expected 256"),
    ({"image_resize_strategy": "stretch"}, "image_resize_strategy 'stretch', expected one of"),
    ({"timm_override_act_layers": ["quick_gelu", None]}, "timm_override_act_layers"),
    ({"text_config": {"vocab_size": 32064, "rope_scaling": {"type": "linear"}}}, "text_config: rope_scaling"),
    ({"text_config": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}}, "text_config.rope_parameters"),
])  # fmt: skip
def test_what_would_compute_something_else_is_refused(tmp_path, change, message):
    path = openvla_folders.write(tmp_path / "theirs", **change)
    with pytest.raises(InputError, match=message):
        describe(path)


def test_the_base_of_rotations_is_read_wherever_it_is_written():
    for said in ({"rope_theta": 5e5}, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}):
        assert text_sizes({"text_config": said}, "")["theta"] == 5e5
    assert text_sizes({"text_config": {"rope_parameters": None}}, "")["theta"] == 1e4


def test_parts_that_do_not_fit_are_named(tmp_path):
    path = openvla_folders.write_oft(tmp_path / "oft", 7, 8)
    file = path / "action_head--100_checkpoint.pt"
    data = file.read_bytes()
    file.write_bytes(data[:1000])
    with pytest.raises(InputError, match="action_head--100_checkpoint.pt: a zip without its end, is the file complete"):
        describe(path)
    file.write_bytes(data)
    (path / "action_head--200_checkpoint.pt").write_bytes(data)
    with pytest.raises(InputError, match=r"200_checkpoint.pt'\], expected one of them: remove the other steps"):
        describe(path)
    (path / "action_head--200_checkpoint.pt").unlink()
    with pytest.raises(InputError, match=r"overrides.platform 'moon', expected one of"):
        load(path, overrides={"platform": "moon"})
    with pytest.raises(InputError, match=r"overrides.head 'tokens', expected 'l1', as the folder's files say"):
        load(path, overrides={"head": "tokens"})


def test_a_part_that_is_missing_does_not_change_the_network(tmp_path):
    path = openvla_folders.write_oft(tmp_path / "oft", 14, 14)
    head, proprio = (path / f"{name}--100_checkpoint.pt" for name in ("action_head", "proprio_projector"))
    held = proprio.read_bytes()
    proprio.unlink()
    message = r"no proprio_projector--\*_checkpoint.pt, expected it.*overrides: \{platform"
    for look, overrides in itertools.product((describe, load), ({}, {"platform": "aloha"})):
        with pytest.raises(InputError, match=message) as error:
            look(path, overrides=overrides)
    said = yaml.safe_load(str(error.value).partition("overrides: ")[2])  # what the message says can be given
    config = load(path, overrides=said).policy.config
    assert (config.head, config.state_dim, config.chunk) == ("l1", 0, 25) and config.space == "joint_position"
    head.unlink()
    proprio.write_bytes(held)
    message = r"proprio_\S+ without action_head--\*_checkpoint.pt, expected both; .*overrides.head"
    for look, overrides in itertools.product((describe, load), ({}, {"platform": "aloha"})):
        with pytest.raises(InputError, match=message):
            look(path, overrides=overrides)
    config = load(path, overrides={"head": "tokens"}).policy.config
    assert (config.head, config.state_dim, config.chunk) == ("tokens", 14, 25)
    proprio.unlink()
    assert load(path).policy.config.head == "autoregressive"  # as OpenVLA's own fine-tunes, which have statistics too
    with pytest.raises(InputError, match=r"no proprio_projector--"):
        load(path, overrides={"platform": "aloha"})
    parallel = load(path, overrides=said).policy.config
    assert (parallel.head, parallel.chunk, parallel.state_dim) == ("tokens", 25, 0)
    libero = openvla_folders.write_oft(tmp_path / "libero", 7, 8)
    next(libero.glob("proprio_projector--*")).unlink()
    with pytest.raises(InputError, match=r"proprioception of \[\] dimensions \(no proprio_projector--\*"):
        describe(libero)


def test_noise_or_film_alone_are_no_policy(tmp_path):
    path = openvla_folders.write_oft(tmp_path / "oft", 7, 8, diffusion=True)
    next(path.glob("noisy_action_projector--*")).unlink()
    with pytest.raises(InputError, match=r"without noisy_action_projector--\*_checkpoint.pt, expected both"):
        describe(path)
    path = openvla_folders.write_oft(tmp_path / "film", 7, 8, film=True)
    for name in ("action_head", "proprio_projector"):
        next(path.glob(f"{name}--*")).unlink()
    with pytest.raises(InputError, match=r"vision_backbone--100_checkpoint.pt without action_head--"):
        describe(path)


def test_film_that_is_missing_is_seen_by_the_adapters_and_by_the_folders_name(tmp_path):
    run = "openvla-7b+aloha+b4--image_aug--parallel_dec--25_acts_chunk--proprio_state--film--50000_chkpt"
    path = openvla_folders.write_oft(tmp_path / run, 14, 14, film=True)
    assert load(path).policy.config.film
    next(path.glob("vision_backbone--*")).unlink()
    refusal = r"trained with FiLM \({}, but there is no vision_backbone--\*_checkpoint.pt"
    with pytest.raises(InputError, match=refusal.format(r"the folder's name .* says film\)")):
        describe(path)
    plain = path.rename(tmp_path / "filming--nofilm")
    assert "no FiLM, which OFT's recipe for ALOHA has" in describe(plain)["notes"]
    (plain / "lora_adapter").mkdir()
    inside = "base_model.model.vision_backbone{}.featurizer.blocks.0{}.attn.qkv.lora_A.weight"
    file = plain / "lora_adapter" / "adapter_model.safetensors"
    save_file({inside.format("", ""): torch.ones(1)}, file)
    assert not load(plain).policy.config.film
    save_file({inside.format(".vision_backbone", ".block"): torch.ones(1)}, file)
    with pytest.raises(InputError, match=refusal.format(r"lora_adapter has base_model.*blocks.0.block.attn.qkv.*\)")):
        load(plain)


def test_a_platform_of_ones_own(tmp_path):
    path = openvla_folders.write_oft(tmp_path / "oft", 6, 6)
    with pytest.raises(InputError, match=r"actions of \[6\] and proprioception of \[6\] dimensions fit none of"):
        describe(path)
    sizes = {"chunk": 10, "action_dim": 6, "state_dim": 6, "cameras": ["full_image"], "space": "joint_position"}
    config = load(path, overrides={"platform": sizes}).policy.config
    assert (config.chunk, config.cameras, config.space) == (10, ("full_image",), "joint_position")
    for name, value, message in (
        ("action_dim", 7, r"fit none of \['yours'\]"), ("chunk", 0, "platform.chunk: 0, expected 1"),
        ("chunks", 1, "platform.chunks: unknown field"), ("mode", "max", "normalisation 'max', expected one of"),
    ):
        with pytest.raises(InputError, match=message):
            load(path, overrides={"platform": sizes | {name: value}})


def test_nothing_in_a_part_is_run(tmp_path):
    path = openvla_folders.write_oft(tmp_path / "oft", 7, 8)

    class Bad:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"a": Bad()}, path / "action_head--100_checkpoint.pt")
    with pytest.raises(InputError, match="would construct builtins.print"):
        load(path)


@torch.no_grad()
def test_what_is_not_read_changes_nothing_and_the_blank_is_never_doubled(tmp_path):
    path = openvla_folders.write(tmp_path / "theirs")
    loaded = load(path)
    ids = loaded.processor.prompt_ids("go")
    assert ids[0] == loaded.processor.tokenizer.bos and ids[-1] != 29871
    batch = loaded.processor.inputs([sample(loaded.processor)])
    expected = loaded.policy.predict(batch)
    longer = dict(batch)
    longer["tokens"] = torch.nn.functional.pad(batch["tokens"], (0, 5), value=9)
    longer["token_mask"] = torch.nn.functional.pad(batch["token_mask"], (0, 5))
    assert torch.equal(loaded.policy.predict(longer), expected)
    bad = expected.clone()
    bad[0, 3] = 29871
    with pytest.raises(InputError, match=r"token 29871 for dimension 3 of row 0, expected an action, 31744 to 31999"):
        loaded.processor.outputs(bad, [sample(loaded.processor)])


