"""What must hold for any weights."""

import pi0_tiny
import pytest
import torch

from vla_ros.policies.policy import Steer

BOTH = pytest.mark.parametrize("adaptive", [False, True], ids=["pi0", "pi05"])


def predict(model, batch):
    return model.predict(batch, {"noise": pi0_tiny.noise(model.config)})


@BOTH
def test_what_a_masked_camera_shows_has_no_effect(adaptive):
    model = pi0_tiny.policy(adaptive=adaptive)
    batch = pi0_tiny.batch(model.config)
    expected = predict(model, batch)
    batch["images"] = batch["images"].clone()
    batch["images"][:, 2] = 0.7
    assert torch.equal(predict(model, batch), expected)
    batch["images"][:, 0] = 0.7
    assert not torch.allclose(predict(model, batch), expected)


@BOTH
def test_longer_padding_changes_nothing(adaptive):
    model = pi0_tiny.policy(adaptive=adaptive)
    batch = pi0_tiny.batch(model.config)
    expected = predict(model, batch)
    batch["tokens"] = torch.cat([batch["tokens"], torch.full((2, 5), 7)], dim=1)
    batch["token_mask"] = torch.nn.functional.pad(batch["token_mask"], (0, 5))
    torch.testing.assert_close(predict(model, batch), expected, rtol=1e-5, atol=1e-5)


@BOTH
def test_an_output_of_zero_leaves_the_noise(adaptive):
    model = pi0_tiny.policy(adaptive=adaptive)
    with torch.no_grad():
        model.action_out.weight.zero_()
        model.action_out.bias.zero_()
    assert torch.equal(predict(model, pi0_tiny.batch(model.config)), pi0_tiny.noise(model.config))


@torch.no_grad()
def test_actions_see_the_state_and_it_does_not_see_them():
    model = pi0_tiny.policy()
    batch = pi0_tiny.batch(model.config)
    expected = predict(model, batch)
    changed = predict(model, batch | {"state": batch["state"] + 1})
    assert not torch.allclose(changed, expected)
    assert model.encode(batch).cache.shape[4] == 3 * 4 + 6 + 1  # images, text and the state, before any action is known


@torch.no_grad()
def test_pi05_does_not_read_the_state_but_in_its_prompt():
    model = pi0_tiny.policy(adaptive=True)
    batch = pi0_tiny.batch(model.config)
    assert torch.equal(predict(model, batch), predict(model, batch | {"state": batch["state"] + 1}))


@torch.no_grad()
def test_fresh_adaptive_norms_switch_the_experts_layers_off():
    """With dense = 0 every gate is 0: what goes in comes out, but for the last norm."""
    model = pi0_tiny.policy(adaptive=True)
    for name, parameter in model.expert.named_parameters():
        if ".dense." in name:
            parameter.zero_()
    noisy = pi0_tiny.noise(model.config)
    velocity = model.denoise(model.encode(pi0_tiny.batch(model.config)), noisy, torch.tensor([0.3, 0.8]))
    x = model.action_in(noisy)
    torch.testing.assert_close(velocity, model.action_out(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)))


def test_times_are_drawn_between_noise_and_actions():
    torch.manual_seed(0)
    time = pi0_tiny.policy().draw_time(torch.zeros(4000, 1, 1))
    assert 0.001 <= time.min() and time.max() <= 1.0
    assert time.mean() == pytest.approx(0.999 * 0.6 + 0.001, abs=0.02)  # the mean of Beta(1.5, 1) is 0.6


def test_a_running_chunk_pulls_the_first_rows_in_both_forms():
    model = pi0_tiny.policy()
    batch, noise = pi0_tiny.batch(model.config), pi0_tiny.noise(model.config)
    free = model.predict(batch, {"noise": noise})
    target = free + 0.5
    counts = torch.tensor([2, 2])
    for exact in (False, True):
        guided = model.predict(batch, {"noise": noise}, Steer(target, counts, counts + 1, exact=exact))
        before, after = ((a - target)[:, :2].abs().mean() for a in (free, guided))
        assert after < 0.5 * before
    assert torch.equal(model.predict(batch, {"noise": noise}, Steer(target, counts, counts * 0)), free)
