"""Agreement with the published code (LeRobot 0.5.1) on tiny models, through our own checkpoint loader."""

import golden_vectors
import pytest
import torch

from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.meta import without_numbers
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.pi0.names import rename


def golden_config(said, tensors, adaptive):
    vision = said["vision"]
    return Pi0Config(
        vision=SiglipSize(
            hidden=vision["hidden"], depth=vision["layers"], heads=vision["heads"], mlp=vision["mlp"],
            patch=said["patch"], image=said["image"],
        ),
        prefix=GemmaSize(**said["prefix"]),
        expert=GemmaSize(**said["expert"]),
        vocabulary=said["vocab"],
        horizon=said["horizon"],
        action_dim=said["action_dim"],
        state_dim=tensors["state"].shape[1],
        text_length=tensors["tokens"].shape[1],
        num_steps=said["num_steps"],
        adaptive=adaptive,
        prompt="pi05" if adaptive else "pi0",
    )  # fmt: skip


def golden_case(name, dtype=torch.float32):
    """The policy, its batch, noise, time, and the published loss and actions."""
    tensors, said, shapes = golden_vectors.load(name)
    with without_numbers():
        policy = Pi0(golden_config(said, tensors, adaptive=name == "pi05"))
    load_weights(policy, golden_vectors.Filled(shapes), name, rename(policy.config, shapes), dtype=dtype)
    cameras = sorted(key for key in tensors if key.startswith("image_") and "mask" not in key)
    batch = {
        "images": torch.stack([tensors[key] for key in cameras], dim=1),
        "image_mask": torch.stack([tensors[key.replace("image_", "image_mask_")] for key in cameras], dim=1),
        "tokens": tensors["tokens"],
        "token_mask": tensors["token_mask"],
        "state": tensors["state"],
        "actions": tensors["actions"],
    }
    return policy.eval(), batch, tensors


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_loss_agrees_with_the_published_code(name):
    policy, batch, golden = golden_case(name)
    with torch.no_grad():
        error = policy.element_loss(batch, noise=golden["noise"], time=golden["time"])
        loss = policy.loss(batch, noise=golden["noise"], time=golden["time"])["loss"]
    golden_vectors.assert_close(error, golden["loss"])
    golden_vectors.assert_close(loss, golden["loss"].mean())


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_sampled_actions_agree_with_the_published_code(name):
    policy, batch, golden = golden_case(name)
    golden_vectors.assert_close(policy.predict(batch, {"noise": golden["noise"]}), golden["sampled_actions"])


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_bfloat16_stays_near_float32(name):
    """Within 5 % of the actions' size: eight bits of mantissa through two layers and ten steps."""
    policy, batch, golden = golden_case(name, torch.bfloat16)
    assert policy.expert.layers[0].qkv.weight.dtype == torch.bfloat16
    assert policy.action_out.weight.dtype == torch.float32
    actions = policy.predict(batch, {"noise": golden["noise"]})
    assert not torch.equal(actions, golden["sampled_actions"])
    golden_vectors.assert_close(actions, golden["sampled_actions"], relative=0.05)
