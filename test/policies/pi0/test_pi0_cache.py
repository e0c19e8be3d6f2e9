"""One evaluation of the prefix a chunk, and the same numbers as without the cache."""

import pi0_tiny
import pytest
import torch
from torch.nn import functional as F

from vla_ros.nn.attention import grouped_attention
from vla_ros.nn.embeddings import rotary_table, time_features
from vla_ros.nn.gemma import GemmaTower


def joint_velocity(model, batch, noisy, time):
    """The plain definition: both towers side by side on the whole sequence, one attention with a full mask."""
    config = model.config
    text = model.embedding(batch["tokens"]) * config.prefix.width**0.5
    images = model.image_tokens(batch["images"], text, batch["token_mask"], None)
    prefix = torch.cat([images.flatten(1, 2), text], dim=1)
    valid = torch.cat([batch["image_mask"].repeat_interleave(images.shape[2], dim=1), batch["token_mask"]], dim=1)
    features = time_features(time, config.expert.width)
    actions = model.action_in(noisy)
    if config.adaptive:
        condition = F.silu(model.time_out(F.silu(model.time_in(features))))
        modulations, suffix, group = model.expert.modulations(condition[:, None]), actions, [1] * config.horizon
    else:
        both = torch.cat([actions, features[:, None].expand_as(actions)], dim=-1)
        actions = model.time_out(F.silu(model.time_in(both)))
        suffix = torch.cat([model.state_in(batch["state"])[:, None], actions], dim=1)
        modulations, group = [None] * (2 * config.expert.depth + 1), [1] + [2] * config.horizon
    valid = F.pad(valid, (0, suffix.shape[1]), value=True)
    groups = torch.tensor([0] * prefix.shape[1] + group)
    mask = (groups[None, :] <= groups[:, None]) & valid[:, None, :] & valid[:, :, None]
    rotary = rotary_table((valid.cumsum(dim=1) - 1), config.prefix.head_dim)
    x = [prefix, suffix]
    length = prefix.shape[1]
    for index, layers in enumerate(zip(model.prefix.layers, model.expert.layers, strict=True)):
        spans = (slice(0, length), slice(length, None))
        projected = [
            layer.project(part, (rotary[0][:, :, span], rotary[1][:, :, span]), m)
            for layer, part, span, m in zip(layers, x, spans, (None, modulations[2 * index]), strict=True)
        ]
        query, key, value = (torch.cat([p[i] for p in projected], dim=2) for i in range(3))
        heads = query.shape[1]
        scores = query @ key.repeat_interleave(heads // key.shape[1], dim=1).transpose(2, 3) * query.shape[3] ** -0.5
        weights = scores.masked_fill(~mask[:, None], -2.3819763e38).softmax(dim=-1)
        attended = (weights @ value.repeat_interleave(heads // value.shape[1], dim=1)).transpose(1, 2).flatten(2)
        x = [
            layer.finish(part, attended[:, span], p[3], m)
            for layer, part, span, p, m in zip(
                layers, x, spans, projected, (None, modulations[2 * index + 1]), strict=True
            )
        ]
    return model.action_out(model.expert.norm(x[1], modulations[-1])[0][:, -config.horizon :])


VARIANTS = pytest.mark.parametrize(
    "changes",
    [{}, {"adaptive": True}, {"vision": pi0_tiny.STEM, "cameras": ("front", "wrist")}],
    ids=["pi0", "pi05", "keypoint_stem"],
)


@VARIANTS
@torch.no_grad()
def test_the_cached_velocity_equals_the_joint_forward(changes):
    model = pi0_tiny.policy(**changes)
    batch, noisy = pi0_tiny.batch(model.config), pi0_tiny.noise(model.config)
    time = torch.tensor([0.3, 0.8])
    expected = joint_velocity(model, batch, noisy, time)
    assert expected.std() > 0.1
    torch.testing.assert_close(
        model.denoise(model.encode(batch), noisy, time), expected, rtol=1e-5, atol=1e-5
    )


@VARIANTS
@torch.no_grad()
def test_sampling_with_the_cache_equals_sampling_without(changes):
    model = pi0_tiny.policy(**changes)
    batch, x = pi0_tiny.batch(model.config), pi0_tiny.noise(model.config)
    actions = model.predict(batch, {"noise": x})
    for time in torch.linspace(1, 0.1, 10):
        x = x - joint_velocity(model, batch, x, time.expand(2)) / 10
    torch.testing.assert_close(actions, x, rtol=1e-5, atol=1e-5)


@VARIANTS
def test_the_differentiable_path_gives_the_same_numbers(changes):
    model = pi0_tiny.policy(**changes)
    batch, noisy = pi0_tiny.batch(model.config), pi0_tiny.noise(model.config)
    time = torch.tensor([0.3, 0.8])
    with_gradients = model.denoise(model.encode(batch), noisy, time)
    with_gradients.square().mean().backward()
    with torch.no_grad():
        without = model.denoise(model.encode(batch), noisy, time)
    torch.testing.assert_close(with_gradients.detach(), without, rtol=1e-5, atol=1e-6)
    used = {name for name, p in model.named_parameters() if p.grad is not None}
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    assert "embedding.weight" in used and "image_tokens.tower.positions" in used
    last = f"prefix.layers.{model.config.prefix.depth - 1}."
    assert all(name.startswith((last, "prefix.norm")) for name in unused)  # nothing reads the prefix's last output


@torch.no_grad()
def test_one_prefix_evaluation_a_chunk(monkeypatch):
    model = pi0_tiny.policy()
    runs = {"prefix": 0, "expert": 0}
    original = GemmaTower.fill, GemmaTower.forward

    def fill(self, *args):
        runs["prefix"] += self is model.prefix
        return original[0](self, *args)

    def forward(self, *args):
        runs["expert"] += self is model.expert
        return original[1](self, *args)

    monkeypatch.setattr(GemmaTower, "fill", fill)
    monkeypatch.setattr(GemmaTower, "forward", forward)
    model.predict(pi0_tiny.batch(model.config), {"noise": pi0_tiny.noise(model.config)})
    assert runs == {"prefix": 1, "expert": 10}


def test_grouped_attention_equals_repeated_heads():
    query, key, value = torch.randn(2, 8, 5, 16), torch.randn(2, 2, 7, 16), torch.randn(2, 2, 7, 16)
    mask = torch.rand(2, 1, 1, 7) > 0.3
    mask[..., 0] = True
    keys, values = key.repeat_interleave(4, dim=1), value.repeat_interleave(4, dim=1)
    expected = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask).transpose(1, 2).flatten(2)
    torch.testing.assert_close(grouped_attention(query, key, value, mask), expected)
