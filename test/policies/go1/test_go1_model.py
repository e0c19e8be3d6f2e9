"""GO-1's network against outputs of the original code, and the properties of its specification."""

import json

import golden_vectors
import pytest
import torch
from safetensors import safe_open

from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.go1.config import GO1Config
from vla_ros.policies.go1.model import GO1, GO1Steps, solver
from vla_ros.policies.go1.names import rename

VECTORS = pytest.mark.parametrize("name", ["go1_whole", "go1_air"])


def golden_policy(name):
    vectors, said, shapes = golden_vectors.load(name)
    with torch.device("meta"):
        policy = GO1(GO1Config.from_published(said, name)).eval()
    load_weights(policy, golden_vectors.Filled(shapes), name, rename(policy.config, shapes))
    inputs = {
        "images": vectors["pixel_values"].unflatten(0, (2, 2)), "tokens": vectors["input_ids"],
        "token_mask": vectors["attention_mask"], "state": vectors["state"][:, 0],
        "control_frequency": vectors["ctrl_freqs"][:, 0], "actions": vectors["action"],
    }  # fmt: skip
    return policy, inputs, vectors


@VECTORS
@torch.no_grad()
def test_golden_prompt(name):
    policy, inputs, vectors = golden_policy(name)
    golden_vectors.assert_close(policy.vision(vectors["pixel_values"]), vectors["vision_hidden"])
    golden_vectors.assert_close(policy.encode_images(inputs["images"]).flatten(0, 1), vectors["image_features"])
    context = policy.encode(inputs)
    golden_vectors.assert_close(torch.stack(context.values), vectors["expert_vlm_values"])


@VECTORS
@torch.no_grad()
def test_golden_steps(name):
    policy, inputs, vectors = golden_policy(name)
    context, steps = policy.encode(inputs), policy.prepare()
    golden_vectors.assert_close(steps.times, vectors["time_tokens"][:, 0, 0])
    golden_vectors.assert_close(context.head, torch.cat([vectors["freq_tokens"], vectors["state_token"]], dim=1))
    assert solver(policy.config, 5)[0].tolist() == vectors["inference_timesteps"].tolist()
    for i, noisy in enumerate([vectors["noise"], *vectors["step_x"][:-1]]):
        clean = policy.denoise(context, noisy, steps.times[i : i + 1])
        golden_vectors.assert_close(clean, vectors["step_prediction"][i])


@VECTORS
@torch.no_grad()
def test_golden_actions(name):
    policy, inputs, vectors = golden_policy(name)
    draws = {"noise": vectors["noise"]}
    golden_vectors.assert_close(policy.predict(inputs, draws), vectors["action_pred"], 5e-5)
    alone = {key: value[1:] for key, value in inputs.items()}
    alone |= {key: alone[key][:, :-3] for key in ("tokens", "token_mask")}
    one = policy.predict(alone, {"noise": vectors["noise"][1:]})
    golden_vectors.assert_close(one, vectors["unpadded_action_pred_1"], 5e-5)


@VECTORS
@torch.no_grad()
def test_golden_actions_with_the_times_that_bfloat16_knows(name):
    """Of float32 weights; `prepare` rounds the times where the weights are bfloat16."""
    policy, inputs, vectors = golden_policy(name)
    times, mix = solver(policy.config, 5)
    rounded = times.bfloat16().float()
    assert rounded.tolist() == [1000, 800, 600, 400, 200]
    fixed = GO1Steps(policy._scalar(policy.time_in, rounded), mix)
    answer = policy.act(policy.encode(inputs), {"noise": vectors["noise"]}, fixed).actions
    golden_vectors.assert_close(answer, vectors["bf16_timesteps_action_pred"], 5e-5)
    policy.store_as(torch.bfloat16)
    assert torch.equal(policy.prepare().times, policy._scalar(policy.time_in, rounded))


@VECTORS
def test_golden_loss_and_gradients(name):
    policy, inputs, vectors = golden_policy(name)
    draws = {"noise": vectors["noise"], "time": vectors["train_timesteps"][:, 0]}
    noisy = policy.scheduler.add_noise(inputs["actions"], draws["noise"], draws["time"])
    golden_vectors.assert_close(noisy, vectors["noisy_action"])
    loss = policy.loss(inputs, **draws)["loss"]
    golden_vectors.assert_close(loss, vectors["loss"])
    loss.backward()
    norms = gradient_norms(name)
    found = {}
    for key in norms:
        part, _, block = rename(policy.config, norms)(key).partition("[")
        gradient = policy.get_parameter(part).grad
        half = gradient.chunk(2)[int(block[0])] if block else gradient
        found[key] = half.norm().item()
    assert found == pytest.approx(norms, rel=1e-3, abs=1e-7) and len(norms) > 100


def gradient_norms(name):
    with safe_open(golden_vectors.FOLDER / f"{name}.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["grad_norms"])
