"""Diffusion Policy's network and sampler against published outputs, diffusers and its specification."""

import golden_vectors
import pytest
import torch
from diffusers import DDPMScheduler
from lerobot_checkpoints import diffusion_key

from vla_ros.core.errors import InputError
from vla_ros.policies.diffusion.config import DiffusionConfig
from vla_ros.policies.diffusion.model import DiffusionPolicy
from vla_ros.policies.diffusion.names import module_key
from vla_ros.policies.diffusion.schedule import make_scheduler
from vla_ros.policies.diffusion.unet import convolve, convolve_transposed
from vla_ros.policies.diffusion.vision import SpatialSoftmax, centre_crop, random_crop
from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.policy import Steer

PUSHT = DiffusionConfig(action_dim=2, state_dim=2, cameras=("observation.image",), image_size=(96, 96),
                        crop_shape=(84, 84))
CLIP = dict(vocab_size=50, hidden_size=16, intermediate_size=32, projection_dim=12, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=8, eos_token_id=49)


def tiny(**changes):
    torch.manual_seed(0)
    values = dict(action_dim=3, state_dim=4, cameras=("a", "b"), image_size=(64, 64), down_dims=(16, 32),
                  diffusion_step_embed_dim=16, spatial_softmax_num_keypoints=4, num_train_timesteps=10,
                  backbone_width=16)
    return DiffusionPolicy(DiffusionConfig(**(values | changes))).eval()


def batch(policy, size=2, seed=1):
    g, config = torch.Generator().manual_seed(seed), policy.config
    steps = config.n_obs_steps
    return {
        "images": torch.rand(size, steps, len(config.cameras), 3, *config.image_size, generator=g),
        "state": torch.randn(size, steps, config.state_dim, generator=g),
        "environment_state": torch.randn(size, steps, config.environment_dim, generator=g),
        "words": torch.ones(size, len(config.vocabulary)),
        "tokens": torch.tensor([[1, 2, 49, 49], [3, 49, 49, 49]])[:size],
        "actions": torch.randn(size, config.unet_horizon, config.action_dim, generator=g),
        "action_is_pad": torch.zeros(size, config.unet_horizon, dtype=torch.bool),
    }


def noise(policy, size=2):
    shape = (size, policy.config.horizon, policy.config.action_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_golden_diffusion():
    vectors, said, shapes = golden_vectors.load("diffusion")
    config = DiffusionConfig(
        action_dim=said["action"], state_dim=said["state"], cameras=("observation.image",),
        image_size=tuple(vectors["images"].shape[-2:]), n_obs_steps=said["n_obs_steps"], unet_horizon=said["horizon"],
        crop_shape=(said["crop"],) * 2, down_dims=tuple(said["down_dims"]),
        diffusion_step_embed_dim=said["step_embed"], spatial_softmax_num_keypoints=said["keypoints"],
        num_train_timesteps=said["num_train_timesteps"],
    )
    with torch.device("meta"):
        policy = DiffusionPolicy(config).eval()
    grid = ["rgb_encoder.pool.pos_grid"]
    load_weights(policy, golden_vectors.Filled(shapes), "golden", module_key, optional=grid)
    prefix = policy.encode({"images": vectors["images"], "state": vectors["state"]})
    golden_vectors.assert_close(prefix.condition, vectors["global_cond"])
    out = policy.denoise(prefix, vectors["noise"], vectors["timestep"])
    golden_vectors.assert_close(out, vectors["unet_out"])


@torch.no_grad()
def test_golden_diffusion_with_clip():
    """InternManip's, whose file holds the whole of CLIP."""
    vectors, said, shapes = golden_vectors.load("dp_clip")
    known = ("n_obs_steps", "use_group_norm", "spatial_softmax_num_keypoints", "diffusion_step_embed_dim", "action_dim",
             "num_train_timesteps", "clip_sample", "do_mask_loss_for_padding")
    config = DiffusionConfig(
        **{name: said[name] for name in known}, state_dim=said["robot_state_dim"], cameras=("a", "b"),
        image_size=(64, 64), unet_horizon=said["horizon"], down_dims=tuple(said["down_dims"]),
        clip_text=said["clip"]["text_config"], language_dim=said["language_projection_dim"],
    )  # fmt: skip
    with torch.device("meta"):
        policy = DiffusionPolicy(config).eval()
    load_weights(policy, golden_vectors.Filled(shapes), "golden", module_key, optional=["rgb_encoder.pool.pos_grid"])
    inputs = {
        "images": vectors["images"].float(), "state": vectors["state"], "actions": vectors["action"],
        "action_is_pad": vectors["action_is_pad"], "tokens": torch.full((2, 7), 111),
    }  # fmt: skip
    for row, name in enumerate(("text_ids_0", "text_ids_1")):
        inputs["tokens"][row, : len(vectors[name])] = vectors[name]
    text = policy.language_encoder(input_ids=inputs["tokens"]).text_embeds
    golden_vectors.assert_close(text, vectors["text_features"])
    context = policy.encode(inputs)
    golden_vectors.assert_close(context.condition, vectors["global_cond"])
    loss = policy.loss(inputs, noise=vectors["noise"], time=vectors["timestep"])["loss"]
    kept = (~vectors["action_is_pad"]).float().mean()
    golden_vectors.assert_close(loss * kept, vectors["loss"])  # InternManip divides by padded rows too
    policy.path_noise.zero_()
    policy.past_noise = vectors["noise"][:, : config.past]
    answer = policy.act(context, {"noise": vectors["noise"][:, config.past :]}).actions
    golden_vectors.assert_close(answer, vectors["sampled_actions_no_variance_noise"][:, config.past :], 1e-4)


def test_published_size_has_the_published_parameters():
    with torch.device("meta"):
        policy = DiffusionPolicy(PUSHT)
    assert sum(p.numel() for p in policy.parameters()) == 262_709_026
    assert sum(p.numel() for p in policy.unet.parameters()) == 251_511_938
    state = {key: tuple(value.shape) for key, value in policy.state_dict().items()}
    assert len(state) == 213
    assert state["unet.down_modules.0.0.conv1.block.0.weight"] == (512, 2, 5)
    assert [state[f"unet.down_modules.{i}.0.cond_encoder.1.weight"] for i in range(3)] == [
        (1024, 260), (2048, 260), (4096, 260)
    ]
    assert state["unet.up_modules.0.0.conv1.block.0.weight"] == (1024, 4096, 5)
    assert state["unet.up_modules.1.0.conv1.block.0.weight"] == (512, 2048, 5)
    assert state["rgb_encoder.pool.pos_grid"] == (9, 2)


@pytest.mark.parametrize("changes", [{}, dict(use_group_norm=False, use_separate_rgb_encoder_per_camera=True)])
def test_a_full_size_state_dict_fits_exactly(changes):
    config = DiffusionConfig(action_dim=2, state_dim=2, cameras=("a", "b"), crop_shape=(84, 84), **changes)
    with torch.device("meta"):
        policy = DiffusionPolicy(config)
    shapes = {diffusion_key(key): tuple(value.shape) for key, value in policy.state_dict().items()}
    load_weights(policy, golden_vectors.ShapesOnly(shapes), "here", module_key, device="meta")
    shapes["diffusion.unet.more"] = shapes.pop("diffusion.unet.final_conv.1.bias")
    with pytest.raises(InputError, match=r"1 missing: unet.final_conv.1.bias; 1 extra: unet.more"):
        load_weights(policy, golden_vectors.ShapesOnly(shapes), "here", module_key)


def test_spatial_softmax_gives_the_place_of_the_peak():
    pool = SpatialSoftmax(1, 5, 7, 1)
    torch.nn.init.ones_(pool.nets.weight)
    torch.nn.init.zeros_(pool.nets.bias)
    features = torch.zeros(1, 1, 5, 7)
    features[0, 0, 3, 1] = 1000
    torch.testing.assert_close(pool(features), torch.tensor([[-1 + 2 * 1 / 6, -1 + 2 * 3 / 4]]))


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
@pytest.mark.parametrize("steps", [None, 5])
@torch.no_grad()
def test_sampling_equals_a_loop_over_the_scheduler_of_diffusers(prediction, kind, steps, monkeypatch):
    policy = tiny(prediction_type=prediction, noise_scheduler_type=kind, num_inference_steps=steps)
    inputs, start = batch(policy), noise(policy)
    scheduler = make_scheduler(policy.config)
    scheduler.set_timesteps(policy.config.num_steps)
    path = iter(policy.path_noise)
    # diffusers draws its noise itself: here it draws ours.
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor",
                        lambda shape, **_: next(path).expand(shape))
    prefix, x = policy.encode(inputs), torch.cat([policy.past_noise.expand(2, -1, -1), start], dim=1)
    for time in scheduler.timesteps:
        out = policy.denoise(prefix, x, time.expand(len(x)))
        x = scheduler.step(out, time, x).prev_sample
    torch.testing.assert_close(policy.predict(inputs, {"noise": start}), x[:, 1:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_predicted_noise_ddim_scales_the_start_by_known_alphas():
    policy = tiny(noise_scheduler_type="DDIM", clip_sample=False)
    torch.nn.init.zeros_(policy.unet.final_conv[1].weight)
    torch.nn.init.zeros_(policy.unet.final_conv[1].bias)
    start = noise(policy)
    first = make_scheduler(policy.config).alphas_cumprod[9]
    started = policy.predict(batch(policy), {"noise": start})
    torch.testing.assert_close(started, start / first.sqrt(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_prediction_is_a_function_of_its_noise():
    policy = tiny()
    inputs, start = batch(policy), noise(policy)
    assert torch.equal(policy.predict(inputs, {"noise": start}), policy.predict(inputs, {"noise": start}))
    assert not torch.equal(policy.predict(inputs), policy.predict(inputs))


@torch.no_grad()
def test_frozen_rows_of_a_prior_come_out_as_they_went_in():
    policy = tiny()
    target = torch.rand(2, policy.config.horizon, 3) - 0.5
    draws, counts, none = {"noise": noise(policy)}, torch.tensor([4, 4]), torch.tensor([0, 0])
    out = policy.predict(batch(policy), draws, Steer(target, counts, counts))
    torch.testing.assert_close(out[:, :4], target[:, :4])
    free = policy.predict(batch(policy), draws, Steer(target, counts, none))
    torch.testing.assert_close(free, policy.predict(batch(policy), draws), rtol=0, atol=0)
    with pytest.raises(InputError, match="guidance 'exact': DiffusionPolicy takes \\['prior'\\]"):
        policy.predict(batch(policy), draws, Steer(target, counts, counts, exact=True))


def test_the_crop_is_random_in_training_alone():
    images = torch.arange(2 * 3 * 9 * 9, dtype=torch.float32).reshape(2, 3, 9, 9)
    torch.testing.assert_close(centre_crop(images, (5, 5)), images[:, :, 2:7, 2:7])
    torch.manual_seed(0)
    corners = {float(random_crop(images, (5, 5))[0, 0, 0, 0]) for _ in range(40)}
    assert len(corners) > 5
    policy = tiny(crop_shape=(48, 48))
    inputs = batch(policy)
    with torch.no_grad():
        features = [policy.encode(inputs).condition for _ in range(2)]
        assert torch.equal(*features)
        assert not torch.equal(policy.train().encode(inputs).condition, features[0])


def test_clip_text_conditions_the_policy_and_stays_frozen():
    policy = tiny(clip_text=CLIP, language_dropout=0.0).train()
    inputs = batch(policy)
    policy.loss(inputs)["loss"].backward()
    assert all(p.grad is None for p in policy.language_encoder.parameters())
    assert policy.language_projection.weight.grad.abs().sum() > 0
    policy.eval()
    first = policy.encode(inputs).condition
    other = policy.encode(inputs | {"tokens": inputs["tokens"].flip(0)}).condition
    assert first.shape == (2, 2 * policy.config.step_condition_dim)
    assert not torch.equal(first, other)
    longer = torch.nn.functional.pad(inputs["tokens"], (0, 3), value=49)  # filled up further: no difference
    torch.testing.assert_close(policy.encode(inputs | {"tokens": longer}).condition, first)
    assert {key.split(".")[0] for key in policy.state_dict()} == {
        "rgb_encoder", "language_encoder", "language_projection", "unet"
    }


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
def test_loss_is_the_error_of_what_is_predicted(kind):
    policy = tiny(prediction_type=kind, do_mask_loss_for_padding=True)
    inputs, time = batch(policy), torch.tensor([3, 7])
    start = torch.randn(inputs["actions"].shape, generator=torch.Generator().manual_seed(5))
    inputs["action_is_pad"][0, 8:] = inputs["action_is_pad"][1, 2:] = True
    noisy = DDPMScheduler(10, beta_schedule="squaredcos_cap_v2").add_noise(inputs["actions"], start, time)
    out = policy.denoise(policy.encode(inputs), noisy, time)
    error = (out - (start if kind == "epsilon" else inputs["actions"])).square()
    expected = torch.cat([error[0, :8], error[1, :2]]).mean()  # as LeRobot divides since 0.6
    torch.testing.assert_close(policy.loss(inputs, noise=start, time=time)["loss"], expected)
    inputs["action_is_pad"][:] = True
    assert policy.loss(inputs, noise=start, time=time)["loss"] == 0


@pytest.mark.parametrize(
    "changes",
    [dict(use_separate_rgb_encoder_per_camera=True), dict(use_group_norm=False), dict(environment_dim=3),
     dict(cameras=(), environment_dim=3), dict(use_film_scale_modulation=False), dict(vocabulary=("red",)),
     dict(n_obs_steps=1),
     dict(resize_shape=(48, 48), crop_ratio=0.9), dict(vision_backbone="resnet50"),
     dict(vision_backbone="keypoint_stem", vocabulary=("red",), image_size=(48, 48))],
)
def test_every_option_predicts_and_trains(changes):
    policy = tiny(**changes)
    inputs = batch(policy)
    assert policy.predict(inputs, {"noise": noise(policy)}).shape == (2, 17 - policy.config.n_obs_steps, 3)
    policy.train().loss(inputs)["loss"].backward()
    assert all(p.grad is not None for p in policy.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "changes, message",
    [(dict(unet_horizon=18), "horizon 18, expected a multiple of 4"), (dict(prediction_type="velocity"), "velocity"),
     (dict(noise_scheduler_type="PNDM"), "PNDM"), (dict(crop_shape=(65, 65)), "crop"), (dict(cameras=()), "neither"),
     (dict(num_inference_steps=11), "num_inference_steps 11"), (dict(down_dims=(12, 24)), "n_groups")],
)
def test_options_that_cannot_be_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        tiny(**changes)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(5, 1, 2), (3, 2, 1), (1, 1, 0)])
def test_convolutions_as_products_are_convolutions(kernel, stride, padding):
    torch.manual_seed(0)
    layer, x = torch.nn.Conv1d(6, 10, kernel, stride, padding), torch.randn(2, 6, 8)
    with torch.no_grad():
        torch.testing.assert_close(convolve(layer, x), layer(x))
    assert convolve(layer, x).requires_grad


def test_transposed_convolutions_as_products_are_transposed_convolutions():
    torch.manual_seed(0)
    layer, x = torch.nn.ConvTranspose1d(6, 10, 4, 2, 1), torch.randn(2, 6, 8)
    with torch.no_grad():
        torch.testing.assert_close(convolve_transposed(layer, x), layer(x))
    assert convolve_transposed(layer, x).requires_grad
