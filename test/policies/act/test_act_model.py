"""ACT's network against published outputs and the properties of its specification."""

import math

import golden_vectors
import pytest
import torch

from vla_ros.core.errors import InputError
from vla_ros.policies.act.config import ACTConfig
from vla_ros.policies.act.model import ACT
from vla_ros.policies.act.transformer import sinusoid_2d
from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.policy import Steer

TINY = dict(dim_model=32, n_heads=4, dim_feedforward=64, n_encoder_layers=2, n_vae_encoder_layers=2, latent_dim=4,
            chunk_size=8, n_action_steps=8, backbone_width=8)


def tiny(**changes):
    torch.manual_seed(0)
    config = ACTConfig(**(TINY | dict(action_dim=3, state_dim=4, cameras=("a", "b"), image_size=(64, 96)) | changes))
    return ACT(config).eval()


def batch(policy, size=2, seed=1):
    g, config = torch.Generator().manual_seed(seed), policy.config
    return {
        "images": torch.rand(size, len(config.cameras), 3, *config.image_size, generator=g),
        "state": torch.randn(size, config.state_dim, generator=g),
        "environment_state": torch.randn(size, config.environment_dim, generator=g),
        "words": torch.ones(size, len(config.vocabulary)),
        "actions": torch.randn(size, config.horizon, config.action_dim, generator=g),
        "action_is_pad": torch.zeros(size, config.horizon, dtype=torch.bool),
    }


def test_golden_act():
    vectors, said, shapes = golden_vectors.load("act")
    config = ACTConfig(
        action_dim=said["action"], state_dim=said["state"], cameras=("top",), image_size=vectors["image_0"].shape[2:],
        chunk_size=said["chunk"], n_action_steps=said["chunk"], dim_model=said["dim_model"], n_heads=said["heads"],
        dim_feedforward=said["ff"], n_encoder_layers=said["enc"], n_vae_encoder_layers=said["vae_enc"],
        n_decoder_layers=said["dec"], latent_dim=said["latent"],
    )
    with torch.device("meta"):
        policy = ACT(config).eval()
    scales = {  # buffers of the frozen normalisation that kept their initial values
        key.replace("running_mean", leaf): value(shape)
        for key, shape in shapes.items() if key.endswith("running_mean")
        for leaf, value in (("weight", torch.ones), ("bias", torch.zeros))
    }
    load_weights(policy, golden_vectors.Filled(shapes, scales), "golden", optional=["vae_encoder_pos_enc"])
    with torch.no_grad():
        actions = policy.predict({"images": vectors["image_0"][:, None], "state": vectors["state"]})
    golden_vectors.assert_close(actions, vectors["actions"])


def test_published_size_has_the_published_parameters():
    with torch.device("meta"):
        policy = ACT(ACTConfig(action_dim=14, state_dim=14, cameras=("observation.images.top",)))
    assert sum(p.numel() for p in policy.parameters()) == 51_613_582
    state = {key: tuple(value.shape) for key, value in policy.state_dict().items()}
    assert len(state) == 234
    assert state["vae_encoder_pos_enc"] == (1, 102, 512)
    assert state["encoder_1d_feature_pos_embed.weight"] == (2, 512)
    assert state["decoder.layers.0.multihead_attn.in_proj_weight"] == (1536, 512)
    assert state["backbone.layer4.0.downsample.1.running_var"] == (512,)
    assert not any(key.startswith(("encoder.norm", "backbone.fc")) for key in state)


def test_a_full_size_state_dict_fits_exactly():
    with torch.device("meta"):
        policy = ACT(ACTConfig(action_dim=14, state_dim=14, cameras=("observation.images.top",)))
        shapes = {f"model.{key}": tuple(value.shape) for key, value in policy.state_dict().items()}
    names = {key: key.removeprefix("model.") for key in (*shapes, "model.surprise")}
    load_weights(policy, golden_vectors.ShapesOnly(shapes), "here", names.get, device="meta")
    shapes["model.surprise"] = shapes.pop("model.action_head.bias")
    with pytest.raises(InputError, match=r"1 missing: action_head.bias; 1 extra: surprise"):
        load_weights(policy, golden_vectors.ShapesOnly(shapes), "here", names.get)


@torch.no_grad()
def test_prediction_does_not_depend_on_the_vae_encoder():
    policy = tiny()
    before = policy.predict(batch(policy))
    for parameter in policy.vae_encoder.parameters():
        parameter.add_(1)
    assert torch.equal(before, policy.predict(batch(policy)))


@torch.no_grad()
def test_the_order_of_cameras_does_not_matter():
    policy, inputs = tiny(), batch(tiny())
    swapped = inputs | {"images": inputs["images"].flip(1)}
    torch.testing.assert_close(policy.predict(inputs), policy.predict(swapped), rtol=0, atol=1e-5)


@torch.no_grad()
def test_padded_actions_do_not_reach_latent_or_loss():
    policy, inputs = tiny(), batch(tiny())
    inputs["action_is_pad"][:, 5:] = True
    noise = torch.zeros(2, policy.config.latent_dim)
    mean, log_variance = policy.encode_actions(inputs)
    loss = policy.loss(inputs, noise=noise)
    inputs["actions"] = inputs["actions"].clone()
    inputs["actions"][:, 5:] = 1000
    for before, after in zip((mean, log_variance), policy.encode_actions(inputs), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-6)
    torch.testing.assert_close(policy.loss(inputs, noise=noise)["loss"], loss["loss"], rtol=0, atol=1e-5)


def test_loss_means_and_kl_follow_their_definitions():
    policy, every = tiny(), tiny(loss_mean="all")
    inputs = batch(policy)
    inputs["action_is_pad"][:, 4:] = True
    noise = torch.zeros(2, policy.config.latent_dim)
    valid, all_ = policy.loss(inputs, noise=noise), every.loss(inputs, noise=noise)
    torch.testing.assert_close(valid["l1"] / 2, all_["l1"])
    mean, log_variance = policy.encode_actions(inputs)
    gaussian = torch.distributions.Normal(mean, (log_variance / 2).exp())
    kl = torch.distributions.kl_divergence(gaussian, torch.distributions.Normal(0.0, 1.0)).sum(-1).mean()
    torch.testing.assert_close(valid["kl"], kl)
    torch.testing.assert_close(valid["loss"], valid["l1"] + 10 * valid["kl"])


def test_training_leaves_frozen_normalisation_alone_and_reaches_every_parameter():
    policy = tiny(vocabulary=("red",), environment_dim=2).train()
    before = {key: value.clone() for key, value in policy.named_buffers()}
    policy.loss(batch(policy))["loss"].backward()
    assert all(torch.equal(value, before[key]) for key, value in policy.named_buffers())
    silent = [key for key, p in policy.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    # Rows of a table that were not read have zero gradients, but none may be missing.
    assert silent == []


@pytest.mark.parametrize(
    "changes",
    [dict(pre_norm=True), dict(use_vae=False), dict(state_dim=0), dict(environment_dim=5),
     dict(cameras=(), environment_dim=5), dict(feedforward_activation="gelu"), dict(n_decoder_layers=3),
     dict(vocabulary=("red", "green")), dict(backbone_norm="group"),
     dict(vision_backbone="keypoint_stem", vocabulary=("red",), image_size=(48, 48)),
     dict(vision_backbone="resnet50", replace_final_stride_with_dilation=True)],
)
def test_every_option_predicts_and_trains(changes):
    policy = tiny(**changes)
    inputs = batch(policy)
    assert policy.predict(inputs).shape == (2, 8, 3)
    assert policy.loss(inputs)["loss"].isfinite()


def test_the_instruction_changes_the_prediction_where_there_is_a_vocabulary():
    policy = tiny(vocabulary=("red", "green"))
    inputs = batch(policy)
    other = inputs | {"words": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
    assert not torch.allclose(policy.predict(inputs), policy.predict(other))


@torch.no_grad()
def test_bytes_are_normalised_by_the_checkpoint_statistics():
    policy, inputs = tiny(), batch(tiny())
    pixels = torch.randint(0, 256, inputs["images"].shape, generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    policy.image_mean.fill_(0.4)
    policy.image_std.fill_(0.2)
    by_hand = (pixels.float() / 255 - 0.4) / 0.2
    torch.testing.assert_close(
        policy.predict(inputs | {"images": pixels}), policy.predict(inputs | {"images": by_hand}), rtol=1e-4, atol=1e-5
    )


def test_two_dimensional_positions_start_at_one():
    table = sinusoid_2d(1, 1, 8)[0]
    turn = 2 * math.pi / (1 + 1e-6)
    half = [math.sin(turn), math.cos(turn), math.sin(turn / 100), math.cos(turn / 100)]
    torch.testing.assert_close(table, torch.tensor(half + half), rtol=0, atol=1e-6)
    grid = sinusoid_2d(2, 3, 8).reshape(2, 3, 8)
    assert torch.equal(grid[0, 0, :4], grid[0, 2, :4]) and not torch.equal(grid[0, 0, 4:], grid[0, 2, 4:])


def test_a_prior_is_refused_because_there_is_nothing_to_guide():
    policy = tiny()
    counts = torch.tensor([1, 1])
    with pytest.raises(InputError, match="guidance 'prior': ACT takes none; use another blending mode"):
        policy.predict(batch(policy), steer=Steer(torch.zeros(2, 8, 3), counts, counts))
    with pytest.raises(InputError, match="num_steps 3: ACT does not work in steps"):
        policy.predict(batch(policy), num_steps=3)


@pytest.mark.parametrize(
    "changes, message",
    [(dict(feedforward_activation="glu"), "glu"), (dict(vision_backbone="vgg"), "vgg"),
     (dict(vision_backbone="keypoint_stem"), "language: true"), (dict(n_heads=5), "n_heads"),
     (dict(cameras=()), "neither an image"), (dict(n_action_steps=9), "n_action_steps 9"),
     (dict(replace_final_stride_with_dilation=True), "resnet50 or deeper")],
)
def test_options_that_cannot_be_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        tiny(**changes)
