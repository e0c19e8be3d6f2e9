"""Parts beside what others compute, their sizes, and what holds for each of them."""

import copy
import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch.distributions import Normal

from vla_ros.core.errors import InputError
from vla_ros.nn.meta import without_numbers
from vla_ros.nn.norms import RealBatchNorm
from vla_ros.policies.parts import ENCODERS, FUSIONS, HEADS, LANGUAGES, PROJECTORS, VISION, Features
from vla_ros.policies.parts.abstraction import farthest
from vla_ros.policies.parts.choice import chosen

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
REGISTRIES = {"vision": VISION, "projector": PROJECTORS, "language": LANGUAGES, "head": HEADS, "encoder": ENCODERS,
              "fusion": FUSIONS}  # fmt: skip


def make(registry, value, *context):
    return chosen(REGISTRIES[registry], value, registry).make(*context)


def counted(registry, value, *context):
    with without_numbers():
        return sum(p.numel() for p in make(registry, value, *context).parameters())


@pytest.mark.parametrize("registry, value, context, count", [
    ("vision", {"kind": "google/siglip-base-patch16-224", "pooling_head": True}, (1, 8), 92_884_224),
    ("vision", {"kind": "siglip-large", "pooling_head": True}, (1, 8), 316_283_904),
    ("vision", "clip-base", (1, 8), 87_456_000), ("vision", "clip-large", (1, 8), 303_179_776),
    ("vision", "dinov2-base", (1, 8), 86_580_480), ("vision", "dinov2-large", (1, 8), 304_368_640),
    ("language", "qwen2-1.5b", (), 1_543_714_304), ("language", "phi-3-mini", (), 3_722_578_944),
    ("language", "llama-3-8b", (), 7_504_924_672),
    ("projector", "mlp", (768, 196, 1536), 3_542_016), ("projector", "attention", (768, 196, 1536), 29_611_008),
    ("projector", "perceiver", (768, 196, 1536), 76_835_328),
    ("head", "mlp", (1536, 1, 7), 1_055_239), ("head", "gaussian", (1536, 1, 7), 1_058_830),
    ("head", "diffusion", (1536, 10, 7), 2_700_870), ("head", "transformer", (1536, 10, 7), 17_616_903),
    ("head", "gpt_actions", (1536, 10, 7), 19_716_615),
    ("encoder", "points", ((1024, 4), 512), 1_307_968), ("encoder", "pointnet", ((1024, 4), 512), 305_984),
    ("encoder", "point_transformer", ((1024, 4), 512), 4_393_472),
    ("encoder", "radar_points", ((64, 5), 256), 376_192),
    ("encoder", {"kind": "radar", "mixed": True}, ((64, 64, 2), 256), 17_169_888),
    ("encoder", {"kind": "depth", "mixed": True}, ((96, 96, 1), 256), 17_169_600),
    ("encoder", {"kind": "voxel", "mixed": True}, ((1024, 4), 512), 270_502_432),
    ("encoder", {"kind": "rgbd", "camera": "front", "mixed": True}, ((96, 96, 1), 256), 17_558_592),
    ("encoder", "imu", ((100, 6), 256), 497_792), ("encoder", "imu_conv", ((100, 6), 256), 158_784),
    ("encoder", "imu_lstm", ((100, 6), 256), 991_872), ("encoder", "imu_multimodal", ((100, 6), 256), 414_720),
    ("encoder", "depth_transformer", ((224, 224, 1), 512), 4_466_432),
    ("encoder", {"kind": "range_doppler", "mixed": True}, ((64, 64, 2), 256), 17_289_024),
    ("fusion", "concat", (512, dict.fromkeys("abcde", 4)), 6_307_328),
    ("fusion", "cross_modal", (512, dict.fromkeys("abcd", 4)), 25_221_120),
    ("fusion", {"kind": "hierarchical", "late": ["d"]}, (512, dict.fromkeys("abcd", 4)), 9_458_176),
    ("fusion", "gated", (512, dict.fromkeys("abcd", 4)), 2_364_420),
])  # fmt: skip
def test_published_sizes_have_the_published_number_of_parameters(registry, value, context, count):
    assert counted(registry, value, *context) == count


@pytest.mark.parametrize("kind, before", [("siglip", 0), ("clip", 1), ("dinov2", 1)])
def test_a_tower_gives_the_patch_tokens_of_transformers_and_takes_its_folder(kind, before, tmp_path):
    import transformers

    row = TINY | {"image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    if kind == "dinov2":
        theirs = transformers.Dinov2Model(transformers.Dinov2Config(
            **{k: v for k, v in row.items() if k != "intermediate_size"}, mlp_ratio=2))
    else:
        name = {"siglip": "Siglip", "clip": "CLIP"}[kind]
        theirs = getattr(transformers, f"{name}VisionModel")(getattr(transformers, f"{name}VisionConfig")(**row))
    theirs.eval().save_pretrained(tmp_path)
    tower = make("vision", {"kind": kind, "folder": str(tmp_path)}, 2, 8).eval()
    tower.take(tmp_path)
    images = torch.randn(3, 2, 3, 28, 28)
    with torch.no_grad():
        expected = theirs(images.flatten(0, 1)).last_hidden_state[:, before:].unflatten(0, (3, 2))
        torch.testing.assert_close(tower(images, torch.zeros(3, 8)), expected)
    assert (tower.image, tower.tokens, tower.width) == (28, 4, 32)
    wrong = json.loads((tmp_path / "config.json").read_text()) | {"hidden_act": "relu"}
    (tmp_path / "config.json").write_text(json.dumps(wrong))
    with pytest.raises(InputError, match="hidden_act 'relu', expected 'gelu|hidden_act 'relu', expected 'quick_gelu'"):
        make("vision", {"kind": kind, "folder": str(tmp_path)}, 2, 8)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "phi3"])
def test_a_language_model_reads_embeddings_as_transformers_does_and_padding_changes_nothing(kind, tmp_path):
    import transformers

    name = {"qwen2": "Qwen2", "llama": "Llama", "phi3": "Phi3"}[kind]
    config = getattr(transformers, f"{name}Config")(
        **TINY, num_key_value_heads=2, vocab_size=40, pad_token_id=None, bos_token_id=None, eos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
    )
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = make("language", {"kind": kind, "folder": str(tmp_path)}).eval()
    ours.take(tmp_path)
    assert ours.vocabulary == 40
    tokens = torch.randint(0, 40, (2, 5))
    x = torch.cat([torch.randn(2, 3, 32), ours.embed(tokens)], dim=1)
    valid = torch.ones(2, 8, dtype=torch.bool)
    valid[1, 6:] = False
    with torch.no_grad():
        found, expected = ours(x, valid), theirs.model(inputs_embeds=x, attention_mask=valid).last_hidden_state
        torch.testing.assert_close(found[valid], expected[valid])
        torch.testing.assert_close(ours(x[1:, :6], valid[1:, :6]), found[1:, :6])
        changed = x.clone()
        changed[:, 4] += 1
        assert torch.equal(ours(changed, valid)[:, :4], found[:, :4])  # the future
    save_file({"model.norm.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="missing: .*; 1 misshapen: norm.weight \\[3\\], expected \\[32\\]"):
        ours.take(tmp_path)


def features(batch=4, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, 5, width, generator=generator)
    return Features(tokens, torch.ones(batch, 5, dtype=torch.bool), tokens[:, -1])


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_the_diffusion_head_walks_back_as_diffusers_ddim_does(steps):
    from diffusers import DDIMScheduler

    torch.manual_seed(0)
    head = make("head", {"kind": "diffusion", "hidden": 16, "layers": 1}, 24, 4, 3).eval()
    scheduler = DDIMScheduler(100, 1e-4, 0.02, "linear", clip_sample=False, set_alpha_to_one=True,
                              timestep_spacing="leading")
    scheduler.set_timesteps(steps)
    seen, noise = features(), torch.randn(4, 4, 3)
    with torch.no_grad():
        found = head.act(seen, {"noise": noise}, head.prepare(steps))
        ready, x = head.ready(seen), noise
        for time in scheduler.timesteps:
            x = scheduler.step(head.step(ready, x, time.repeat(4)), time, x).prev_sample
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-5)


def test_the_gaussian_head_is_torchs_normal():
    torch.manual_seed(0)
    head = make("head", {"kind": "gaussian", "hidden": 16, "sampled": True}, 24, 4, 3).eval()
    actions, noise = torch.randn(4, 4, 3), torch.randn(4, 4, 3)
    mean, log_std = head.distribution(features())
    expected = Normal(mean, log_std.exp()).log_prob(actions).sum(-1)
    torch.testing.assert_close(head.log_prob(actions, mean, log_std), expected)
    torch.testing.assert_close(head.loss(features(), actions, None)["loss"], -expected.mean())
    assert log_std.min() >= math.log(0.01) - 1e-6 and log_std.max() <= 1e-6
    torch.testing.assert_close(head.act(features(), {"noise": noise}), mean + log_std.exp() * noise)


HEAD_SIZES = {
    "mlp": {"hidden": 32, "dropout": 0.0}, "gaussian": {"hidden": 32, "dropout": 0.0, "least_std": 0.3},
    "discrete": {"hidden": 32, "dropout": 0.0, "bins": 64}, "diffusion": {"hidden": 64, "layers": 2},
    "flow": {"hidden": 32, "layers": 1, "heads": 2, "mlp": 64},
    "transformer": {"hidden": 32, "layers": 1, "heads": 2, "mlp": 64, "dropout": 0.0},
    "gpt_actions": {"hidden": 32, "layers": 1, "heads": 2, "mlp": 64, "dropout": 0.0},
    "lstm": {"hidden": 16}, "gpt": {"hidden": 16}, "fc": {"hidden": 16, "gripper": True},
}  # fmt: skip


@pytest.mark.parametrize("kind", HEAD_SIZES)
def test_each_head_fits_four_samples(kind):
    torch.manual_seed(0)
    head = make("head", {"kind": kind, **HEAD_SIZES[kind]}, 24, 3, 2)
    seen, actions = features(), torch.rand(4, 3, 2) * 1.6 - 0.8
    if kind == "fc":
        actions[..., 1] = actions[..., 1].sign()
    pad = torch.zeros(4, 3, dtype=torch.bool)
    rate = {"gpt": 3e-4, "fc": 1e-3}.get(kind, 3e-3)  # RoboVLMs' trunks are a thousand wide
    optimizer = torch.optim.Adam(head.parameters())
    copies = 16 if head.draws(1) else 1  # noise is drawn often
    rows = Features(seen.tokens.repeat(copies, 1, 1), seen.valid.repeat(copies, 1), seen.summary.repeat(copies, 1))
    steps, fall = (500, 1.0) if copies > 1 else (250, 0.7) if kind == "gpt" else (150, 0.3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - fall * step / steps)
        optimizer.zero_grad()
        head.loss(rows, actions.repeat(copies, 1, 1), pad.repeat(copies, 1))["loss"].backward()
        optimizer.step()
    head.eval()
    with torch.no_grad():
        draws = {name: torch.randn(shape) for name, shape in head.draws(4).items()}
        error = (head.act(seen, draws, head.prepare()) - actions).square().mean()
    assert error < 1e-2, error


SETS = {"kind": "pointnet2", "centres": [5, 3], "radii": [3.0, 6.0], "neighbours": 4}
POINTS = ["points", "pointnet", SETS, SETS | {"pool": "global"}, "point_transformer", "radar_points",
          {"kind": "voxel", "cells": [6, 5, 4]}, {"kind": "bev", "cells": [6, 5, 2]},
          {"kind": "polar", "lower": -9.0, "upper": 9.0}]  # fmt: skip


@pytest.mark.parametrize("kind", POINTS)
def test_the_order_of_points_changes_nothing_and_padding_has_no_effect(kind):
    torch.manual_seed(0)
    encoder = make("encoder", kind, (12, 5), 32).eval()
    x, count = torch.randn(2, 12, 5), torch.tensor([7, 12])
    with torch.no_grad():
        found = encoder(x, count)
        assert found.shape == (2, encoder.tokens, 32)
        order = torch.cat([torch.randperm(7), torch.arange(7, 12)])
        torch.testing.assert_close(encoder(x[:1, order], count[:1]), found[:1], rtol=1e-4, atol=1e-5)
        changed = x.clone()
        changed[0, 7:] = 9.0
        torch.testing.assert_close(encoder(changed, count), found)
        changed[0, 7:] = 0.5
        assert not torch.allclose(encoder(changed, torch.tensor([8, 12]))[0], found[0], rtol=0, atol=1e-6)
        none = encoder(x, torch.tensor([0, 12]))
        assert none.isfinite().all()
        torch.testing.assert_close(encoder(changed, torch.tensor([0, 12])), none)
    with pytest.raises(InputError, match="value of shape \\[12\\], expected points"):
        make("encoder", kind, (12,), 32)


@pytest.mark.parametrize("kind", POINTS)
def test_more_padding_changes_nothing_in_training_either(kind):
    torch.manual_seed(0)
    encoder = make("encoder", kind, (12, 5), 32).train()
    for part in encoder.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        if isinstance(part, torch.nn.MultiheadAttention):
            part.dropout = 0.0
    other, x, count = copy.deepcopy(encoder), torch.randn(5, 12, 5), torch.tensor([7, 12, 0, 5, 9])
    more = torch.cat([x, torch.full((5, 9, 5), 4.0)], dim=1)
    found, again = encoder(x, count), other(more, count)
    torch.testing.assert_close(again, found, rtol=1e-4, atol=1e-5)
    for one, value in ((encoder, found), (other, again)):
        value.square().sum().backward()
        assert all(p.grad.isfinite().all() for p in one.parameters())
    for (name, one), same in zip(encoder.named_parameters(), other.parameters(), strict=True):
        assert (same.grad - one.grad).norm() <= 1e-3 * one.grad.norm() + 1e-3, name
    for one, same in zip(encoder.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(same, one)  # what is used on the robot in place of the batch's statistics


def test_batch_statistics_of_rows_that_are_all_real_are_torchs():
    torch.manual_seed(0)
    ours, theirs = RealBatchNorm(5), torch.nn.BatchNorm1d(5)
    real = torch.rand(4, 6) < 0.7
    for _ in range(2):
        x = torch.randn(4, 6, 5) * 3 + 1
        torch.testing.assert_close(ours(x, real)[real], theirs(x[real]))
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))
    torch.testing.assert_close(ours.eval()(x, real)[real], theirs.eval()(x[real]))


def test_set_abstraction_takes_what_is_far_apart_and_reads_what_is_near():
    line = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [1.0, 0, 0], [4.0, 0, 0], [9.0, 9, 9]]])
    real = torch.tensor([[True, True, True, True, False]])
    chosen, kept = farthest(line, real, 5)
    assert chosen[0, :4].tolist() == [3, 0, 2, 1] and kept[0].tolist() == [True] * 4 + [False]
    encoder = make("encoder", {"kind": "pointnet2", "centres": [2], "radii": [0.5], "pool": "global"}, (5, 3), 8).eval()
    moved = line.clone()
    with torch.no_grad():
        found = encoder(line, torch.tensor([4]))
        moved[0, 2, 1] = 0.05  # too far from both centres to be read
        torch.testing.assert_close(encoder(moved, torch.tensor([4])), found)
        moved[0, 1, 1] = 0.05
        assert not torch.allclose(encoder(moved, torch.tensor([4])), found, atol=1e-5)


def test_cells_hold_what_is_in_them():
    size = {"kind": "voxel", "lower": [0, 0, 0], "upper": [2, 2, 1], "cells": [2, 2, 1]}
    encoder = make("encoder", size, (5, 3), 8)
    x = torch.tensor([[[0.5, 0.5, 0.5], [0.25, 0.75, 0.5], [1.5, 0.5, 0.0], [2.5, 0.5, 0.5], [1.5, 1.5, 0.5]]])
    grid = encoder.grid(x, torch.tensor([[True, True, True, True, False]]))
    assert grid.shape == (1, 4, 2, 2, 1)
    counts = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(grid[0, 0, :, :, 0], counts.log1p())
    torch.testing.assert_close(grid[0, 1:, 0, 0, 0], torch.tensor([-0.125, 0.125, 0.0]))
    torch.testing.assert_close(grid[0, 1:, 1, 0, 0], torch.tensor([0.0, 0.0, -0.5]))
    for changes, said in (({"upper": [2, 0, 1]}, "lower .*, upper .*: expected each"),
                          ({"cells": [512, 512, 512]}, "134,217,728, expected at most")):
        with pytest.raises(InputError, match=said):
            make("encoder", size | changes, (5, 3), 8)


def test_sectors_hold_the_nearest_distance():
    size = {"kind": "polar", "sectors": 4, "lower": -0.1, "upper": 0.1, "near": 0.5, "far": 4.0, "tokens": 2}
    encoder = make("encoder", size, (7, 3), 8)
    ahead, left = [[3.0, -2.9, 0.0], [2.0, 1.9, 0.1], [1.0, 0.0, 0.2]], [[0.0, 0.2, 0.0]]  # the third is too high
    x = torch.tensor([[*ahead, *left, [-5.0, 0.0, 0.0], [0.3, -0.4, -0.1], [0.1, -0.3, 0.0]]])
    found = encoder.nearest(x, torch.tensor([[True] * 6 + [False]]))
    torch.testing.assert_close(found, torch.tensor([[math.hypot(2.0, 1.9), 0.5, 4.0, 0.5]]))
    turned = x @ torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # to the left
    torch.testing.assert_close(encoder.nearest(turned, torch.tensor([[True] * 6 + [False]])), found.roll(1, 1))
    for changes, said in (({"upper": -0.1}, "lower .*, upper .*: expected the"), ({"near": 4}, "near .*, far"),
                          ({"tokens": 3}, "sectors 4, tokens 3: expected a multiple")):
        with pytest.raises(InputError, match=said):
            make("encoder", size | changes, (7, 3), 8)


@pytest.mark.parametrize("join", ["concat", "add", "cross_attention"])
def test_depth_beside_an_image(join):
    torch.manual_seed(0)
    encoder = make("encoder", {"kind": "rgbd", "camera": "front", "join": join}, (24, 32, 1), 32).eval()
    x, image = torch.rand(2, 24, 32, 1), torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        found = encoder(x, None, image)
        assert encoder.camera == "front" and found.shape == (2, 16, 32)
        for other in (encoder(x.flip(1), None, image), encoder(x, None, image.flip(2))):
            assert not torch.allclose(other, found, atol=1e-5)
    with pytest.raises(InputError, match="camera '', expected the camera beside which"):
        make("encoder", "rgbd", (24, 32, 1), 32)


@pytest.mark.parametrize("value, shape, tokens", [
    ({"kind": "depth", "scale": 0.001, "most": 2.0}, (48, 64, 1), 16), ("radar", (32, 64, 2), 16),
    ("range_doppler", (32, 64, 2), 16), ("range_doppler", (3, 5, 1), 16),
    ("imu", (20, 6), 8), ("imu_conv", (20, 6), 8), ("imu_lstm", (20, 6), 8), ("numbers", (6,), 1),
    ({"kind": "depth_multiscale", "scale": 0.001, "most": 2.0}, (48, 64, 1), 16), ("depth_multiscale", (3, 5, 1), 16),
    ({"kind": "depth_transformer", "scale": 0.001, "most": 2.0, "patch": 7, "layers": 1, "queries": 3}, (48, 64, 1), 3),
    ({"kind": "imu_multimodal", "sensors": [3, 3, 1], "tokens": 2}, (20, 7), 2),
])  # fmt: skip
def test_encoders_of_images_and_windows(value, shape, tokens):
    torch.manual_seed(0)
    encoder = make("encoder", value, shape, 32).eval()
    x = torch.rand(2, *shape) * 3000
    with torch.no_grad():
        found = encoder(x)
        assert found.shape == (2, tokens, 32) and found.isfinite().all()
        assert not torch.allclose(encoder(x.flip(1)), found, atol=1e-5)  # where or when it was measured matters
        if "most" in value:
            far = x.clone()
            far[x > 2000] = 60_000  # mm: beyond what it sees
            torch.testing.assert_close(encoder(far), found)


@pytest.mark.parametrize("value", ["concat", "cross_modal", {"kind": "hierarchical", "late": ["imu"]}, "gated"])
def test_fusions_keep_the_tokens_they_say_and_tell_the_sources_apart(value):
    torch.manual_seed(0)
    tokens = {"images": 6, "lidar": 4, "imu": 2}
    fusion = make("fusion", value, 32, tokens).eval()
    sources = {name: torch.randn(2, n, 32) for name, n in tokens.items()}
    with torch.no_grad():
        found = fusion(sources)
        assert found.shape == (2, 1 if value == "gated" else 12, 32) == (2, fusion.tokens, 32)
        swapped = sources | {"imu": sources["lidar"][:, :2], "lidar": torch.cat([sources["imu"]] * 2, dim=1)}
        assert not torch.allclose(fusion(swapped), found, atol=1e-4)


@pytest.mark.parametrize("registry, value, context, said", [
    ("projector", {"kind": "attention", "heads": 7}, (8, 4, 32), "projector 'attention': 7 heads of attention, "
     "expected a number that divides the width 32"),
    ("vision", {"kind": "clip", "hidden_size": 30}, (1, 8), "vision: hidden_size 30, expected a multiple of the 12"),
    ("vision", {"kind": "siglip", "hiden_size": 32}, (1, 8), "vision.hiden_size: unknown field"),
    ("language", {"kind": "qwen2", "num_key_value_heads": 3}, (), "language: hidden_size 128, 4 heads, 3 of keys"),
    ("head", {"kind": "diffusion", "num_steps": 200}, (8, 4, 2), "num_steps 200, expected at most"),
    ("head", {"kind": "fc", "gripper": True}, (8, 4, 1), "head 'fc': action of 1 numbers, expected a gripper"),
    ("head", {"kind": "mlp", "folder": "x"}, (8, 4, 1), "folder x: MlpHead takes no pretrained weights"),
    ("vision", {"kind": "siglip", "folder": "/nowhere"}, (1, 8), "folder /nowhere"),
    ("encoder", "imu_multimodal", ((9, 7), 32), "'imu_multimodal': sensors \\[3, 3\\] of rows of 7 numbers, expected"),
    ("encoder", "depth", ((4, 4), 8), "encoder 'depth': a value of shape \\[4, 4\\], expected an image"),
    ("fusion", {"kind": "hierarchical", "late": ["a"]}, (32, {"a": 1}), "expected one that comes first"),
])  # fmt: skip
def test_what_cannot_be_is_refused(registry, value, context, said):
    with pytest.raises(InputError, match=said):
        make(registry, value, *context)
