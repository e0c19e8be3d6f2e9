"""GR00T's networks against the outputs of the original code, generation by generation."""

import json

import golden_vectors
import pytest
import torch
from groot_golden import NVIDIA, batch, load, pictures
from safetensors import safe_open
from torch.nn import functional

from vla_ros.policies.formats.weights import Unused
from vla_ros.policies.groot.config import GrootConfig
from vla_ros.policies.groot.head import ActionHead
from vla_ros.policies.groot.model import Groot
from vla_ros.policies.groot.names import rename
from vla_ros.policies.groot.processor import mrope_positions
from vla_ros.policies.policy import Steer

EVERY = pytest.mark.parametrize("name", NVIDIA)


def close(actual, golden, most=1e-5):
    assert actual.shape == golden.shape
    difference = float((actual - golden).abs().max())
    assert difference <= most, f"difference {difference:.1e}"


def features(policy, name, vectors, padded=""):
    """(batch, (2, L, feature_dim)) of two images a sample, of any sizes."""
    one_by_one = [policy.backbone.image_tokens(image[None, None]) for image in pictures(name, vectors)]
    tokens = torch.cat([tokens for tokens, _ in one_by_one], dim=1).flatten(0, 1)
    deeper = [torch.cat(level, dim=1).flatten(0, 1) for level in zip(*(d for _, d in one_by_one), strict=True)]
    inputs = batch(name, vectors, padded)
    positions = inputs.get("positions")
    got = policy.backbone(
        inputs["tokens"], inputs["token_mask"], tokens.unflatten(0, (2, -1)),
        [level.unflatten(0, (2, -1)) for level in deeper],
        None if positions is None else positions.transpose(0, 1),
    )
    return inputs, got, tokens


def context(policy, name, vectors, padded=""):
    inputs, got, _ = features(policy, name, vectors, padded)
    at_image = inputs["tokens"] == policy.config.image_token
    return inputs, policy.attend(got, at_image, inputs["token_mask"], inputs)


def loss(policy, inputs, ready, vectors):
    """With the draws of the original."""
    time = vectors["beta_sample"] * policy.time_draw[1] + policy.time_draw[2]
    policy.encode = lambda batch: ready
    try:
        return policy.loss(inputs, noise=vectors["noise"], time=time)["loss"]
    finally:
        del policy.encode


@EVERY
@torch.no_grad()
def test_features_actions_and_loss(name):
    policy, vectors, _ = load(name)
    inputs, got, tokens = features(policy, name, vectors)
    close(tokens, vectors["image_features"].flatten(0, -2), 2e-5)
    close(got, vectors["backbone_features"], 2e-5)
    _, ready = context(policy, name, vectors)
    close(ready.state, vectors["state_features"])
    close(policy.act(ready, {"noise": vectors["noise"]}).actions, vectors["action_pred"])
    close(loss(policy, inputs, ready, vectors), vectors["loss"])


@pytest.mark.parametrize("name", NVIDIA[:-1])
@torch.no_grad()
def test_left_padding_takes_part_as_with_the_kernels_of_the_original(name):
    policy, vectors, _ = load(name)
    _, got, _ = features(policy, name, vectors, "padded_")
    close(got, vectors["padded_backbone_features"], 2e-5)
    inputs, ready = context(policy, name, vectors, "padded_")
    close(policy.act(ready, {"noise": vectors["noise"]}).actions, vectors["padded_action_pred"])
    close(loss(policy, inputs, ready, vectors), vectors["padded_loss"])
    moved = float((vectors["padded_action_pred"] - vectors["action_pred"]).abs().max())
    assert policy.traits.pads == policy.config.padding_is_masked == (name == "groot_n16")
    assert moved > 1e-2  # other words, and in N1 and N1.5 their padding


@torch.no_grad()
def test_padding_never_changes_the_rows_of_n1_7s_text():
    """The vector's padding went through other kernels (a row that sees nothing is an average there)."""
    policy, vectors, _ = load("groot_n17")
    inputs, got, _ = features(policy, "groot_n17", vectors, "padded_")
    kept = inputs["token_mask"]
    close(got[kept], vectors["padded_backbone_features"][kept], 2e-5)
    got = torch.where(kept[..., None], got, vectors["padded_backbone_features"])
    ready = policy.attend(got, inputs["tokens"] == policy.config.image_token, kept, inputs)
    close(policy.act(ready, {"noise": vectors["noise"]}).actions, vectors["padded_action_pred"])
    close(loss(policy, inputs, ready, vectors), vectors["padded_loss"])


@EVERY
def test_gradients_of_every_parameter(name):
    policy, vectors, _ = load(name)
    with safe_open(golden_vectors.FOLDER / f"{name}.safetensors", framework="pt") as file:
        norms = json.loads(file.metadata()["grad_norms"])
    shapes = golden_vectors.load(name)[2]
    policy.zero_grad(set_to_none=True)
    inputs, ready = context(policy, name, vectors)
    loss(policy, inputs, ready, vectors).backward()
    parameters, read = dict(policy.named_parameters()), rename(policy.config, norms)
    sources: dict[str, list[tuple[str, str]]] = {}  # parameter -> its blocks of rows and the keys that they come from
    for key in norms:
        whole, _, block = read(key).partition("[")
        if whole in parameters:
            sources.setdefault(whole, []).append((block, key))
        else:
            assert isinstance(read(key), Unused) and (not norms[key] or "norm" in key), key
    assert sources.keys() == parameters.keys()
    for whole, blocks in sources.items():
        grad, start = parameters[whole].grad, 0
        for _, key in sorted(blocks):
            rows = slice(start, start + shapes[key][0]) if len(blocks) > 1 else slice(None)
            start += shapes[key][0]
            got = 0.0 if grad is None else float(grad[rows].norm())
            assert got == pytest.approx(norms[key], rel=1e-3, abs=1e-6), key
    policy.zero_grad(set_to_none=True)


@torch.no_grad()
def test_n1_with_image_tokens_that_skip_the_text_tower():
    policy, vectors, _ = load("groot_n1", reproject_vision=True)
    _, got, _ = features(policy, "groot_n1", vectors)
    close(got, vectors["reproject_backbone_features"], 2e-5)
    _, ready = context(policy, "groot_n1", vectors)
    close(policy.act(ready, {"noise": vectors["noise"]}).actions, vectors["reproject_action_pred"])


@torch.no_grad()
def test_the_action_head_alone_as_lerobot_runs_it():
    vectors, said, shapes = golden_vectors.load("groot_head")
    text = {"width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp": 8, "vocabulary": 8}
    config = GrootConfig.from_dict({
        "generation": "n1.5", "text": text, "text_layers": 0, "cameras": ("a",), "state_dim": 7, "real_action_dim": 5,
        "vision": {"hidden": 8, "depth": 1, "heads": 2, "mlp": 8, "patch": 8, "grid": 1}, "image_size": (8, 8),
        "feature_dim": 32, "max_state_dim": 7, "max_action_dim": 5, "chunk_size": 4, "hidden": 16, "width": 32,
        "dit_heads": 4, "dit_layers": 4, "vl_layers": 2, "vl_heads": 4, "embodiments": 3, "future_tokens": 3,
        "max_seq_len": 16,
    })
    policy = Groot(config).eval()
    shapes = {f"action_head.{key}": shape for key, shape in shapes.items()}
    names = rename(config, shapes)
    head = {names(key).partition("[")[0] for key in shapes}
    wanted = {key for key in policy.state_dict() if key.startswith(("head.", "vl_"))}
    assert head == wanted
    fill, state = golden_vectors.fill, policy.state_dict()
    for key, shape in shapes.items():
        whole, _, block = names(key).partition("[")
        value, target = fill(key.removeprefix("action_head."), shape), state[whole]
        start = int(block[0]) * (len(target) // (2 if "key_value" in whole else 3)) if block else 0
        target[start : start + len(value)].copy_(value)
    valid = torch.ones(2, 9, dtype=torch.bool)
    inputs = {"state": vectors["state"], "embodiment": vectors["embodiment_id"]}
    ready = policy.attend(vectors["backbone_features"], ~valid, valid, inputs)
    close(policy.act(ready, {"noise": vectors["noise"]}).actions, vectors["sampled_actions"])


@torch.no_grad()
def test_n1_7_follows_a_running_chunk_by_its_ramp():
    policy, vectors, said = load("groot_n17")
    _, ready = context(policy, "groot_n17", vectors)
    options = said["rtc_options"]
    overlap, frozen = (torch.full((2,), options[f"rtc_{name}_steps"]) for name in ("overlap", "frozen"))
    running = torch.zeros(2, 6, 5)  # row 0 is for the first row of the chunk to come
    running[:, : options["rtc_overlap_steps"]] = vectors["rtc_previous_action"][:, -options["rtc_overlap_steps"] :]
    got = policy.act(ready, {"noise": vectors["noise"]}, None, Steer(running, frozen, overlap)).actions
    close(got, vectors["rtc_action_pred"])
    assert torch.equal(got[:, :1], running[:, :1])
    none = policy.act(ready, {"noise": vectors["noise"]}, None, Steer(running, frozen, overlap * 0)).actions
    assert torch.equal(none, policy.act(ready, {"noise": vectors["noise"]}).actions)


class TwoFrames(torch.nn.Module):
    """Qwen3-VL's patches of two frames that differ, as one vector has them; a robot shows each frame twice."""

    def __init__(self, embed, frames):
        super().__init__()
        self.embed, self.frames = embed, frames

    def forward(self, images):
        conv, side = self.embed.patches, self.embed.grid
        x = functional.conv3d(self.frames, conv.weight, conv.bias, stride=(2, *[self.embed.patch] * 2))[:, :, 0]
        table = self.embed.positions.view(side, side, -1).permute(2, 0, 1)[None]
        table = functional.interpolate(table, x.shape[2:], mode="bilinear", align_corners=True)
        return (x + table).permute(0, 2, 3, 1)


@torch.no_grad()
def test_lerobots_n1_7_with_padding():
    name = "lerobot_groot_n17"
    policy, vectors, said = load(name)
    x = vectors["pixel_values"].view(4, 2, 3, 2, 2, 3, 2, 4, 4).permute(0, 5, 6, 1, 3, 7, 2, 4, 8)
    frames, embed = x.reshape(4, 3, 2, 16, 24), policy.backbone.vision.embed
    inputs = batch(name, vectors) | {"images": frames[:, :, 0].unflatten(0, (2, 2))}
    kept = inputs["token_mask"]
    assert (~kept).sum() == 4
    inputs["positions"] = torch.ones(2, 3, 30, dtype=torch.int64)
    for row in range(2):
        tokens = inputs["tokens"][row][kept[row]].tolist()
        inputs["positions"][row][:, kept[row]] = mrope_positions(tokens, said["image_token_id"], [(2, 3), (2, 3)])
    policy.backbone.vision.embed = TwoFrames(embed, frames)
    try:
        tokens, deeper = policy.backbone.image_tokens(inputs["images"])
        close(policy.backbone(inputs["tokens"], kept, tokens, deeper, inputs["positions"].transpose(0, 1)),
              vectors["backbone_features"], 2e-5)
        got = policy.predict(inputs, {"noise": vectors["noise"]})
    finally:
        policy.backbone.vision.embed = embed
    close(got, vectors["sampled_actions"])
    ready = policy.attend(vectors["backbone_features"], vectors["image_mask"].bool(), kept, inputs)
    inputs |= {"actions": vectors["actions"], "action_mask": vectors["action_mask"].bool()}
    policy.encode = lambda batch: ready
    try:
        got = policy.loss(inputs, noise=vectors["noise"], time=1 - vectors["time"])["loss"]
    finally:
        del policy.encode
    close(got, vectors["loss"][0])
    running = torch.zeros(2, 6, 8)
    overlap, frozen = (torch.full((2,), said["rtc"][f"rtc_{part}_steps"]) for part in ("overlap", "frozen"))
    running[:, : int(overlap[0])] = vectors["rtc_previous_actions"][:, -int(overlap[0]) :]
    got = policy.act(ready, {"noise": vectors["noise"]}, None, Steer(running, frozen, overlap)).actions
    close(got, vectors["rtc_sampled_actions"])


def test_positions_of_text_and_images_of_two_sizes():
    _, vectors, _ = load("groot_n17")
    for padded in ("", "padded_"):
        for row, grids in enumerate(([(2, 2), (2, 3)], [(3, 2), (2, 2)])):
            kept = vectors[f"{padded}attention_mask"][row].bool()
            got = mrope_positions(vectors[f"{padded}input_ids"][row][kept].tolist(), 300, grids)
            assert torch.equal(got, vectors[f"{padded}position_ids"][:, row][:, kept])


@torch.no_grad()
def test_n1_5_without_trained_future_tokens_is_another_network():
    """As the port of InternManip runs it; its answers are not the published network's."""
    _, vectors, _ = load("groot_n15")
    assert float((vectors["internmanip_action_pred"] - vectors["action_pred"]).abs().max()) > 1e-3


@EVERY
@torch.no_grad()
def test_keys_and_values_of_the_features_are_made_once(name):
    policy, vectors, _ = load(name)
    calls = []
    for layer in policy.head.layers:
        if layer.source:
            layer.key_value.register_forward_hook(lambda *_: calls.append(1))
    try:
        _, ready = context(policy, name, vectors)
        policy.act(ready, {"noise": vectors["noise"]})
        assert len(calls) == sum(layer.source > 0 for layer in policy.head.layers)
    finally:
        for layer in policy.head.layers:
            if layer.source:
                layer.key_value._forward_hooks.clear()


def test_other_embodiments_get_no_gradient_and_a_zero_decoder_gives_the_noise():
    policy, vectors, _ = load("groot_n15")
    policy.zero_grad(set_to_none=True)
    inputs, ready = context(policy, "groot_n15", vectors)
    loss(policy, inputs, ready, vectors).backward()
    assert isinstance(policy.head, ActionHead)
    used = {int(i) for i in inputs["embodiment"]}
    for number, grad in enumerate(policy.head.action_in.layer1.weight.grad):
        assert bool(grad.any()) == (number in used)
    policy.zero_grad(set_to_none=True)
    last = policy.head.action_out.layer2
    kept = [parameter.detach().clone() for parameter in last.parameters()]
    with torch.no_grad():
        try:
            for parameter in last.parameters():
                parameter.zero_()
            assert torch.equal(policy.act(ready, {"noise": vectors["noise"]}).actions, vectors["noise"])
        finally:
            for parameter, value in zip(last.parameters(), kept, strict=True):
                parameter.copy_(value)


def test_times_are_cut_to_the_buckets_of_the_published_clock():
    policy, _, _ = load("groot_n15")
    got = []
    policy.head.constants, kept = lambda buckets: got.append(buckets.tolist()), policy.head.constants
    try:
        policy.prepare(4), policy.prepare(10)
        policy.step_constants(torch.tensor([1.0, 0.25, 1.0005, 0.6493]))
    finally:
        policy.head.constants = kept
    assert got == [[0, 250, 500, 750], [100 * k for k in range(10)], [0, 750, 0, 350]]
