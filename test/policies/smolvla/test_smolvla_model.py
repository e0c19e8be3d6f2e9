"""SmolVLA's network against published outputs and the properties of its specification."""

import golden_vectors
import pytest
import torch
from lerobot_checkpoints import smolvla_shapes

from vla_ros.core.errors import InputError
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.policy import Steer
from vla_ros.policies.smolvla.config import VLMS, SmolVLAConfig, TextSize, VlmSize
from vla_ros.policies.smolvla.model import SmolVLA
from vla_ros.policies.smolvla.names import rename

TINY = VlmSize(SiglipSize(32, 1, 2, 64, 8, 32), 2, TextSize(24, 6, 2, 4, 48, 60))


def tiny(**changes):
    torch.manual_seed(0)
    values = dict(vlm=TINY, cameras=("a", "b"), state_dim=4, real_action_dim=3, max_state_dim=8, max_action_dim=6,
                  chunk_size=5, num_vlm_layers=4)
    return SmolVLA(SmolVLAConfig(**(values | changes))).eval()


def batch(policy, size=2, seed=1):
    g, config = torch.Generator().manual_seed(seed), policy.config
    side = config.vlm.vision.image
    mask = torch.ones(size, 6, dtype=torch.bool)
    mask[1, 4:] = False
    return {
        "images": torch.rand(size, len(config.cameras), 3, side, side, generator=g) * 2 - 1,
        "image_mask": torch.ones(size, len(config.cameras), dtype=torch.bool),
        "tokens": torch.randint(0, 60, (size, 6), generator=g),
        "token_mask": mask,
        "state": torch.randn(size, config.max_state_dim, generator=g),
        "actions": torch.randn(size, config.horizon, config.action_dim, generator=g),
        "action_is_pad": torch.zeros(size, config.horizon, dtype=torch.bool),
    }


def noise(policy, size=2):
    shape = (size, policy.config.horizon, policy.config.action_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def golden_policy():
    vectors, said, shapes = golden_vectors.load("smolvla")
    spec = said["spec"]
    vlm = VlmSize.from_transformers(
        {"vision_config": spec["vision"], "text_config": spec["text"], "scale_factor": spec["scale"]}, "golden"
    )
    width = said["action_dim"]
    config = SmolVLAConfig(
        vlm=vlm, cameras=("a", "b"), state_dim=width, real_action_dim=width, max_state_dim=width,
        max_action_dim=width, chunk_size=said["chunk"], num_steps=said["num_steps"],
        num_vlm_layers=said["num_vlm_layers"],
    )
    with torch.device("meta"):
        policy = SmolVLA(config).eval()
    load_weights(policy, golden_vectors.Filled(shapes), "golden", rename(policy.config, shapes))
    inputs = {
        "images": torch.stack([vectors["image_0"], vectors["image_1"]], dim=1),
        "image_mask": torch.stack([vectors["image_mask_0"], vectors["image_mask_1"]], dim=1).bool(),
        "tokens": vectors["tokens"], "token_mask": vectors["token_mask"].bool(), "state": vectors["state"],
        "actions": vectors["actions"],
    }
    return policy, inputs, vectors


@torch.no_grad()
def test_golden_smolvla_loss():
    policy, inputs, vectors = golden_policy()
    loss = policy.element_loss(inputs, noise=vectors["noise"], time=vectors["time"])
    golden_vectors.assert_close(loss, vectors["loss"])


@torch.no_grad()
def test_golden_smolvla_actions():
    policy, inputs, vectors = golden_policy()
    golden_vectors.assert_close(policy.predict(inputs, {"noise": vectors["noise"]}), vectors["sampled_actions"])


def test_a_full_size_state_dict_has_the_published_size_and_fits_exactly():
    config = SmolVLAConfig(vlm=VLMS["SmolVLM2-500M-Video-Instruct"], cameras=("a",), state_dim=6, real_action_dim=6)
    assert (config.expert_width, config.expert_mlp, config.vlm.image_tokens) == (720, 2048, 64)
    shapes = smolvla_shapes(config)
    assert len(shapes) == 500
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 450_046_176
    with torch.device("meta"):
        policy = SmolVLA(config)
    load_weights(policy, golden_vectors.ShapesOnly(shapes), "here", rename(policy.config, shapes), device="meta")
    unused = 49280 * 960 + 960  # the language head and the text tower's last normalisation
    assert sum(p.numel() for p in policy.parameters()) == 450_046_176 - unused
    expert = sum(p.numel() for p in (*policy.expert.parameters(), *policy.expert_norm.parameters()))
    assert expert == 98_245_840


def test_missing_extra_and_misshapen_keys_are_all_listed():
    policy = tiny()
    shapes = smolvla_shapes(policy.config)
    shapes["model.more"] = shapes.pop("model.state_proj.bias")
    shapes["model.action_in_proj.weight"] = (1, 1)
    with pytest.raises(InputError, match=r"1 missing: state_in.bias; 1 extra: more; 1 misshapen: action_in.weight"):
        load_weights(policy, golden_vectors.ShapesOnly(shapes), "here", rename(policy.config, shapes))


@torch.no_grad()
def test_later_actions_never_reach_earlier_ones():
    policy, inputs = tiny(), batch(tiny())
    prefix, x, time = policy.encode(inputs), noise(policy), torch.tensor([0.5, 0.2])
    before = policy.denoise(prefix, x, time)
    x[:, 3] += 1
    after = policy.denoise(prefix, x, time)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@torch.no_grad()
def test_padding_of_text_and_masked_cameras_have_no_effect():
    policy, inputs = tiny(), batch(tiny())
    inputs["image_mask"][:, 1] = False
    expected = policy.predict(inputs, {"noise": noise(policy)})
    changed = dict(inputs, images=inputs["images"].clone(), tokens=inputs["tokens"].clone())
    changed["images"][:, 1] = 0.3
    changed["tokens"][1, 4:] = 7
    torch.testing.assert_close(policy.predict(changed, {"noise": noise(policy)}), expected, rtol=0, atol=1e-6)
    dropped = dict(inputs, images=inputs["images"][:, :1], image_mask=inputs["image_mask"][:, :1])
    torch.testing.assert_close(policy.predict(dropped, {"noise": noise(policy)}), expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_without_output_weights_the_noise_comes_out():
    policy = tiny()
    torch.nn.init.zeros_(policy.action_out.weight)
    torch.nn.init.zeros_(policy.action_out.bias)
    assert torch.equal(policy.predict(batch(policy), {"noise": noise(policy)}), noise(policy))


@torch.no_grad()
def test_images_and_text_do_not_see_the_state():
    policy, inputs = tiny(), batch(tiny())
    first = policy.encode(inputs)
    second = policy.encode(inputs | {"state": inputs["state"] + 1})
    for a, b in zip(first.keys + first.values, second.keys + second.values, strict=True):
        assert torch.equal(a[:, :, :-1], b[:, :, :-1])
        assert not torch.equal(a[:, :, -1], b[:, :, -1])


def test_the_prefix_is_encoded_once_a_chunk():
    policy, inputs = tiny(), batch(tiny())
    calls = []
    encode, policy.encode_tokens = policy.encode_tokens, lambda *a: calls.append("prefix") or encode(*a)
    with torch.no_grad():
        policy.predict(inputs, {"noise": noise(policy)})
        assert calls == ["prefix"]


def test_cross_layers_make_keys_from_the_prefix_alone():
    policy, inputs = tiny(), batch(tiny())
    x = noise(policy).requires_grad_()
    prefix = policy.encode(inputs)
    layer = policy.expert[1]
    assert layer.cross and layer.key.weight.shape == (8, 8)
    before = policy.denoise(prefix, x, torch.ones(2))
    with torch.no_grad():
        layer.key.weight.zero_()
    assert torch.equal(before, policy.denoise(prefix, x, torch.ones(2)))


def test_the_rotation_of_the_vision_language_model_is_not_read():
    text = {"hidden_size": 24, "num_attention_heads": 6, "intermediate_size": 48, "vocab_size": 60}
    vision = {"hidden_size": 32, "num_attention_heads": 2, "patch_size": 8, "image_size": 32}
    sizes = [
        VlmSize.from_transformers({"vision_config": vision, "text_config": text | {"rope_theta": theta}}, "here")
        for theta in (10_000, 100_000)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    "changes", [dict(attention_mode="self_attn"), dict(self_attn_every_n_layers=3), dict(self_attn_every_n_layers=0),
                dict(state_dim=0), dict(expert_width_multiplier=1.0)],
)
def test_every_option_predicts_and_trains(changes):
    policy = tiny(**changes)
    inputs = batch(policy)
    assert policy.predict(inputs, {"noise": noise(policy)}).shape == (2, 5, 6)
    policy.loss(inputs)["loss"].backward()
    last = policy.config.num_vlm_layers - 1
    unread = {f"text.{last}.{name}.weight" for name in ("out", "post_norm", "gate_up", "down")}
    silent = {key for key, p in policy.named_parameters() if p.grad is None}
    assert silent == unread  # the last layer of the prefix leaves its keys and values alone


def test_loss_covers_real_dimensions_and_valid_rows():
    policy, inputs, time = tiny(), batch(tiny()), torch.tensor([0.3, 0.8])
    inputs["action_is_pad"][0, 3:] = inputs["action_is_pad"][1, 1:] = True
    error = policy.element_loss(inputs, noise(policy), time)[:, :, :3]
    expected = torch.cat([error[0, :3], error[1, :1]]).mean()  # as LeRobot divides since 0.6
    torch.testing.assert_close(policy.loss(inputs, noise=noise(policy), time=time)["loss"], expected)


def test_training_leaves_alone_what_the_configuration_says():
    policy = tiny().freeze()
    trained = {key.split(".")[0] for key, p in policy.named_parameters() if p.requires_grad}
    assert trained == {"expert", "expert_norm", "state_in", "action_in", "action_out", "time_in", "time_out"}
    policy = tiny(train_expert_only=False).freeze()
    assert not any(p.requires_grad for p in policy.vision.parameters()) and policy.embedding.weight.requires_grad


@torch.no_grad()
def test_a_running_chunk_guides_frozen_rows_and_no_overlap_changes_nothing():
    policy, inputs = tiny(), batch(tiny())
    target, counts = torch.zeros(2, 5, 6), torch.tensor([2, 2])
    free = policy.predict(inputs, {"noise": noise(policy)})
    guided = policy.predict(inputs, {"noise": noise(policy)}, Steer(target, counts, counts))
    assert guided[:, :2].abs().mean() < 0.5 * free[:, :2].abs().mean()
    assert torch.equal(policy.predict(inputs, {"noise": noise(policy)}, Steer(target, counts, counts * 0)), free)


@pytest.mark.parametrize(
    "changes, message",
    [(dict(attention_mode="linear"), "linear"), (dict(num_expert_layers=2), "num_expert_layers 2"),
     (dict(state_dim=9), "state of 9"), (dict(real_action_dim=7), "action of 7"), (dict(cameras=()), "no image")],
)
def test_options_that_cannot_be_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        tiny(**changes)
