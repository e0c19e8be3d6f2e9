"""LeRobot folders of ACT, Diffusion Policy and SmolVLA load as they are, predict, and go through our own layout."""


import lerobot_checkpoints
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from vla_ros.core.chunk import Part, Targets
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.core.robot import RobotSpec
from vla_ros.policies import describe, load, save
from vla_ros.policies.embodiment import Dimension, Embodiment
from vla_ros.runtime.history import example_sample
from vla_ros.runtime.serving import check_robot
from vla_ros.runtime.session import PolicySession

FAMILIES = ("act", "diffusion", "smolvla")
ROBOT = RobotSpec.load("config/robots/so101.yaml")
ROWS = {"act": 12, "diffusion": 15, "smolvla": 10}


def sample(loaded, seed=0, actions=False):
    rng, p = np.random.default_rng(seed), loaded.processor
    images = {c: rng.integers(0, 256, (p.n_obs_steps, 48, 64, 3), dtype=np.uint8) for c in p.cameras}
    rows = p.horizon - p.first_action_step
    return Sample(
        images, rng.normal(0, 0.2, (p.n_obs_steps, 6)), "pick up the red cube",
        rng.normal(0, 0.2, (rows, 6)) if actions else None, np.zeros(rows, bool) if actions else None,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_serves_as_it_is(tmp_path, family):
    folder = lerobot_checkpoints.make(tmp_path, family)
    loaded = load(folder, robot=ROBOT)
    assert (loaded.family, loaded.layout) == (family, "lerobot")
    assert loaded.processor.joints == ROBOT.joint_names
    assert loaded.processor.cameras == ("front", "wrist")
    assert loaded.processor.step_dt == pytest.approx(1 / 30)
    session = PolicySession(loaded)
    session.warm_up(example_sample(ROBOT, loaded.processor))
    rows = session.infer([sample(loaded)])[0].targets.parts[0].data
    assert rows.shape == (ROWS[family], 6) == (loaded.processor.horizon, 6)
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_both_layouts_of_statistics_predict_the_same(tmp_path, family):
    results = []
    for old in (False, True):
        loaded = load(lerobot_checkpoints.make(tmp_path / str(old), family, old=old), robot=ROBOT)
        results.append(PolicySession(loaded).infer([sample(loaded)])[0].targets.parts[0].data)
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_are_applied_both_ways(tmp_path, family):
    loaded = load(lerobot_checkpoints.make(tmp_path, family), robot=ROBOT)
    statistics = lerobot_checkpoints.make_statistics([])
    mean_std = family != "diffusion"
    low, high = [statistics["observation.state"][name] for name in (("mean", "std") if mean_std else ("min", "max"))]
    one = sample(loaded)
    state = loaded.processor.inputs([one])["state"].reshape(-1, 6 if family != "smolvla" else 32)[-1, :6]
    expected = (one.state[-1] - low) / high if mean_std else 2 * (one.state[-1] - low) / (high - low) - 1
    np.testing.assert_allclose(state, expected, rtol=1e-4, atol=1e-5)
    actions = np.random.default_rng(3).normal(0, 0.3, (1, loaded.processor.horizon, 6))
    normalised, survives = loaded.processor.normalise([Targets((Part(ROBOT.joint_names, actions[0]),))], [one])
    assert survives.all()
    low, high = [statistics["action"][name] for name in (("mean", "std") if mean_std else ("min", "max"))]
    expected = (actions - low) / high if mean_std else 2 * (actions - low) / (high - low) - 1
    np.testing.assert_allclose(normalised[..., :6], expected, rtol=1e-4, atol=1e-5)
    [part] = loaded.processor.outputs(normalised, [one])[0].parts
    assert part.names == ROBOT.joint_names
    np.testing.assert_allclose(part.data, actions[0], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_our_own_layout_gives_the_same_actions(tmp_path, family):
    loaded = load(lerobot_checkpoints.make(tmp_path / "theirs", family), robot=ROBOT)
    save(tmp_path / "ours", loaded)
    again = load(tmp_path / "ours")
    assert again.layout == "vla_ros" and again.policy.config == loaded.policy.config
    one = sample(loaded)
    first, second = (PolicySession(x).infer([one])[0].targets.parts[0].data for x in (loaded, again))
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_stays_near_float32(tmp_path, family):
    folder = lerobot_checkpoints.make(tmp_path, family)
    exact, near = (load(folder, robot=ROBOT, dtype=dtype) for dtype in (None, torch.bfloat16))
    kept = [name for name, p in near.policy.named_parameters() if p.dtype == torch.float32]
    assert 2 <= len(kept) <= 10  # projections of actions alone
    noise = torch.randn(1, exact.policy.config.horizon, exact.policy.config.action_dim)
    one = sample(exact)
    a, b = (PolicySession(loaded).infer([one], draws={"noise": noise})[0].answer for loaded in (exact, near))
    assert (a - b).abs().mean() < 0.05 * a.abs().mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_training_batches_have_a_loss(tmp_path, family):
    loaded = load(lerobot_checkpoints.make(tmp_path, family), robot=ROBOT)
    batch = loaded.processor.inputs([sample(loaded, seed, actions=True) for seed in range(2)])
    loss = loaded.policy.train().loss(batch)["loss"]
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("family", FAMILIES)
def test_info_names_what_matters(tmp_path, family):
    folder = lerobot_checkpoints.make(tmp_path, family)
    rows = describe(folder, robot=ROBOT)
    assert (rows["family"], rows["layout"]) == (family, "lerobot")
    assert rows["cameras"] == "front, wrist"
    assert rows["joints"] == ", ".join(ROBOT.joint_names)
    assert f"{ROWS[family]} rows" in rows["horizon"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_missing_and_extra_tensor_is_listed(tmp_path, family):
    folder = lerobot_checkpoints.make(tmp_path, family)
    tensors = load_file(folder / "model.safetensors")
    tensors["surprise.weight"] = tensors.pop(max(tensors))
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"1 missing: .*; 1 extra: surprise.weight"):
        load(folder, robot=ROBOT)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unknown_field_is_named(tmp_path, family):
    folder = lerobot_checkpoints.make(tmp_path, family, use_new_trick=True)
    with pytest.raises(InputError, match="use_new_trick"):
        load(folder, robot=ROBOT)


def test_without_a_robot_a_folder_can_be_described_but_fits_none(tmp_path):
    folder = lerobot_checkpoints.make(tmp_path, "smolvla")
    assert describe(folder)["joints"].startswith("joint_0, joint_1")
    with pytest.raises(InputError, match="joint_0.*shoulder_pan"):
        check_robot(load(folder).processor, ROBOT)


def test_cameras_are_mapped_by_the_policy_file(tmp_path):
    folder = lerobot_checkpoints.make(tmp_path, "act", cameras=("top", "side"))
    with pytest.raises(InputError, match="no camera 'top' on robot so101.*cameras: {top: front}"):
        load(folder, robot=ROBOT)
    joints = tuple(Dimension(name) for name in ROBOT.joint_names)
    chosen = Embodiment({"top": "wrist", "side": "front"}, joints, joints, step_dt=0.05)
    loaded = load(folder, embodiment=chosen)
    assert loaded.processor.robot_cameras == ("wrist", "front") and loaded.processor.step_dt == 0.05
    with pytest.raises(InputError, match="declared absent, the policy needs every one"):
        load(folder, embodiment=Embodiment({"top": None, "side": "front"}, joints, joints, 0.05))


def test_smolvla_leaves_absent_cameras_out(tmp_path):
    folder = lerobot_checkpoints.make(tmp_path, "smolvla", cameras=("top", "side"))
    joints = tuple(Dimension(name) for name in ROBOT.joint_names)
    loaded = load(folder, embodiment=Embodiment({"top": "front", "side": None}, joints, joints, 0.05))
    assert loaded.processor.inputs([sample(loaded)])["images"].shape == (1, 1, 3, 32, 32)


def test_images_of_another_aspect_are_refused_by_name(tmp_path):
    loaded = load(lerobot_checkpoints.make(tmp_path, "act"), robot=ROBOT)
    one = sample(loaded)
    images = dict(one.images, wrist=np.zeros((1, 96, 96, 3), np.uint8))
    with pytest.raises(InputError, match="camera 'wrist': image of 96x96 pixels.*64x48.*aspect"):
        loaded.processor.inputs([Sample(images, one.state, "go")])
    images["wrist"] = np.full((1, 480, 640, 3), 7, np.uint8)
    assert int(loaded.processor.inputs([Sample(images, one.state, "go")])["images"][0, 1].max()) == 7


def test_smolvla_pads_at_the_top_and_the_left(tmp_path):
    loaded = load(lerobot_checkpoints.make(tmp_path, "smolvla"), robot=ROBOT)
    one = sample(loaded)
    images = {name: np.full((1, 48, 64, 3), 200, np.uint8) for name in one.images}
    image = loaded.processor.inputs([Sample(images, one.state, "go")])["images"][0, 0, 0]
    assert (image[:8] == -1).all() and torch.allclose(image[8:], torch.tensor(200 / 255 * 2 - 1))


def test_a_single_camera_needs_no_name(tmp_path):
    one = RobotSpec.from_dict(
        {"name": "x", "cameras": [{"name": "eye", "topic": "eye", "width": 64, "height": 48}],
         "joints": [dict(name=f"j{i}", lower=-1.0, upper=1.0, velocity=1.0, acceleration=1.0) for i in range(6)],
         "groups": [{"name": "a", "topic": "t", "interface": "joint_state", "joints": [f"j{i}" for i in range(6)]}]}
    )
    folder = lerobot_checkpoints.make(tmp_path, "diffusion", cameras=("top",))
    loaded = load(folder, robot=one)
    assert loaded.processor.robot_cameras == ("eye",)
    assert torch.is_tensor(loaded.processor.inputs([sample(loaded)])["images"])


def test_a_language_conditioned_diffusion_policy_reads_the_text_side_of_clip(tmp_path):
    clip = dict(vocab_size=50, hidden_size=16, intermediate_size=32, projection_dim=12, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=8, eos_token_id=49)
    lerobot_checkpoints.write_smolvlm(tmp_path)  # a tokenizer.json; of what kind does not matter here
    folder = lerobot_checkpoints.make(tmp_path, "diffusion", clip_text=clip, language_dim=5)
    tensors = load_file(folder / "model.safetensors")
    with pytest.raises(InputError, match="missing: language_encoder"):
        load(folder, robot=ROBOT)
    encoder = CLIPTextModelWithProjection(CLIPTextConfig(**clip))
    tensors |= {f"diffusion.language_encoder.{key}": value for key, value in encoder.state_dict().items()}
    tensors["diffusion.language_projection.weight"] = torch.randn(5, 12)
    tensors["diffusion.language_projection.bias"] = torch.zeros(5)
    tensors["diffusion.language_encoder.vision_model.x"] = torch.zeros(1)  # of a whole CLIP model, not read
    width = 16 + 2 * (6 + 2 * 8 + 5)  # step embedding, and per observation state, two cameras' keypoints, text
    for key in [key for key in tensors if key.endswith("cond_encoder.1.weight")]:
        tensors[key] = torch.randn(len(tensors[key]), width) * 0.1
    save_file(tensors, folder / "model.safetensors")
    loaded = load(folder, robot=ROBOT)
    one = sample(loaded)
    red, green = (Sample(one.images, one.state, text) for text in ("pick the red cube", "touch the green cube"))
    first, second = (PolicySession(loaded).infer([x])[0].answer for x in (red, green))
    assert not np.allclose(first, second)
    save(tmp_path / "ours", loaded)
    again = PolicySession(load(tmp_path / "ours")).infer([red])[0].answer
    np.testing.assert_allclose(again, first, rtol=1e-4, atol=1e-5)
