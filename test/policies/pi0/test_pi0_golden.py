"""Agreement with the published code (LeRobot 0.5.1, 0.6.1) on tiny models, through our own checkpoint loader."""

from dataclasses import replace

import golden_vectors
import lerobot_folders
import pytest
import torch

from vla_ros.core.errors import InputError
from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.meta import without_numbers
from vla_ros.nn.siglip import SiglipSize
from vla_ros.nodes.policy_parameters import PolicyParameters
from vla_ros.policies import describe, load, save
from vla_ros.policies.flow import Guidance, prior_weights
from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.pi0.names import rename
from vla_ros.policies.policy import Steer
from vla_ros.runtime.session import PolicySession


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
    }
    return policy.eval(), batch | {name: tensors[name] for name in ("actions",) if name in tensors}, tensors


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


@pytest.mark.parametrize("case", ["linear", "exp", "exp5", "ones", "zeros", "default"])
def test_real_time_chunking_agrees_with_the_published_code(case):
    policy, batch, golden = golden_case("pi0_rtc")
    said = golden_vectors.load("pi0_rtc")[1]["cases"][case]
    guidance = Guidance(said["schedule"].lower(), said["execution_horizon"] or 10)
    policy.config = replace(policy.config, guidance=guidance)
    previous = golden["previous"]  # of 4 rows and 7 dimensions; LeRobot fills it up with zeros
    actions = torch.nn.functional.pad(previous, (0, 32 - previous.shape[2], 0, 5 - previous.shape[1]))
    counts = (torch.full((2,), count) for count in (said["inference_delay"], previous.shape[1]))
    steer = Steer(actions, *counts, max_guidance=said["max_guidance_weight"])
    torch.testing.assert_close(prior_weights(steer, 5, guidance)[0, :, 0], golden[f"weights_{case}"])
    answer = policy.predict(batch, {"noise": golden["noise"]}, steer)
    golden_vectors.assert_close(answer, golden[f"rtc_{case}"])


def test_rtc_config_is_honoured_or_refused(tmp_path):
    said = {"enabled": True, "prefix_attention_schedule": "LINEAR", "max_guidance_weight": 8.0, "execution_horizon": 3}
    for name in ("pi0", "smolvla"):
        folder = lerobot_folders.write(tmp_path / name, name, rtc_config=said)
        loaded = load(folder)
        assert loaded.policy.config.guidance == Guidance("linear", 3, 8.0)
        assert "over 3 rows, weights linear, at most 8 (" in describe(folder)["notes"]
        for given, taken in ((0.0, 8.0), (3.0, 3.0)):  # of policy_node's parameter
            options = PolicyParameters(rtc=True, graph=False, rtc_max_guidance=given).session_options()
            assert PolicySession(loaded, options)._no_steer().max_guidance == taken
        save(tmp_path / f"our {name}", loaded)
        assert load(tmp_path / f"our {name}").policy.config.guidance == loaded.policy.config.guidance
        lerobot_folders.change(folder / "config.json", rtc_config=said | {"enabled": False})
        assert load(folder).policy.config.guidance == Guidance()
        for change in ({"prefix_attention_schedule": "STEEP"}, {"new_trick": 1}, {"execution_horizon": "all"}):
            lerobot_folders.change(folder / "config.json", rtc_config=said | change)
            with pytest.raises(InputError, match=f"rtc_config.{next(iter(change))}"):
                describe(folder)
