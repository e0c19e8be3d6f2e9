"""Agreement with LeRobot 0.6.1 on tiny models, through our own checkpoint loader."""

import golden_vectors
import pytest
import torch

from vla_ros.nn.meta import without_numbers
from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.images import IMAGENET
from vla_ros.policies.xvla.config import XvlaConfig
from vla_ros.policies.xvla.florence import FlorenceSize
from vla_ros.policies.xvla.model import Xvla
from vla_ros.policies.xvla.names import rename

MODES = ("ee6d", "auto", "so101_bimanual")


def golden_config(said, **changes):
    return XvlaConfig(**dict(
        cameras=("a", "b", "c"), state_dim=said["max_state_dim"], real_action_dim=said["real_action_dim"],
        florence=FlorenceSize.from_files(said["florence"], "golden"), image_size=(64, 64), chunk_size=said["chunk"],
        text_length=7, hidden_size=said["hidden"], num_heads=said["heads"], action_mode=said["action_mode"],
        **{name: said[name] for name in (
            "depth", "mlp_ratio", "num_domains", "len_soft_prompts", "dim_time", "max_len_seq", "use_hetero_proj",
            "max_state_dim", "max_action_dim")},
        num_steps=said["num_denoising_steps"],
    ) | changes)  # fmt: skip


def golden_case(name):
    """The policy, its batch, and what the published code gave."""
    golden, said, shapes = golden_vectors.load(f"xvla_{name}")
    with without_numbers():
        policy = Xvla(golden_config(said))
    load_weights(policy, golden_vectors.Filled(shapes), name, rename(policy.config, shapes))
    batch = {name: golden[name] for name in ("images", "image_mask", "tokens", "actions")}
    # LeRobot's preprocessor has normalised them; here the network does.
    mean, std = (torch.from_numpy(IMAGENET[name]).float()[:, None, None] for name in ("mean", "std"))
    batch["images"] = (batch["images"] * std + mean) * 2 - 1
    return policy.eval(), batch | {"state": golden["proprio"], "domain": golden["domain_id"]}, golden


@pytest.mark.parametrize("name", MODES)
@torch.no_grad()
def test_every_stage_agrees_with_the_published_code(name):
    policy, batch, golden = golden_case(name)
    images = policy.image_tokens(batch["images"], torch.ones_like(batch["image_mask"]))
    golden_vectors.assert_close(images.flatten(0, 1), golden["image_features"])
    assert not batch["image_mask"].all()
    context = policy.encode(batch)
    time, noise = golden["time"], golden["noise"]
    noisy = noise * time[:, None, None] + batch["actions"] * (1 - time)[:, None, None]
    golden_vectors.assert_close(policy.clean(context, noisy, policy.time_features(time)), golden["prediction"])
    terms = policy.loss(batch, noise=noise, time=time)
    for key in (key for key in golden if key.startswith("loss_")):
        golden_vectors.assert_close(terms[key.removeprefix("loss_")][None], golden[key])
    for steps, key in ((None, "sampled_actions"), (1, "sampled_actions_one_step")):
        actions = policy.predict(batch, {"noise": noise}, num_steps=steps)
        golden_vectors.assert_close(actions[..., : policy.config.mode.real], golden[key])
