"""Agreement with transformers' own π0, in the same process, from a folder that it saved."""

import pi0_folders
import pytest
import torch
from transformers import PI0Config, PI0ForConditionalGeneration

from vla_ros.policies import registry

TEXT = dict(num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=1, head_dim=16, vocab_size=301)


@pytest.fixture(scope="module")
def peer():
    """A tiny model with every weight drawn at random: fresh norms and biases would hide mistakes."""
    config = PI0Config(
        vlm_config=dict(
            model_type="paligemma",
            text_config=dict(model_type="gemma", hidden_size=64, intermediate_size=96, **TEXT),
            vision_config=dict(
                model_type="siglip_vision_model", hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=4, patch_size=14, image_size=28, vision_use_head=False,
            ),
            projection_dim=64,
            image_token_id=300,
        ),
        dit_config=dict(model_type="gemma", hidden_size=32, intermediate_size=48, **TEXT),
        chunk_size=5,
        max_state_dim=7,
        max_action_dim=7,
        loss_reduction="none",
    )  # fmt: skip
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = PI0ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return model


@pytest.fixture(scope="module")
def case(peer, tmp_path_factory):
    """Our policy from the peer's folder, the same inputs for both, with one camera masked and ragged text."""
    folder = tmp_path_factory.mktemp("transformers") / "checkpoint"
    peer.save_pretrained(folder)
    policy = registry.load(folder).policy
    g = torch.Generator().manual_seed(1)
    rows, cameras, tokens = 2, 3, 4
    images = torch.rand(rows, cameras, 3, 28, 28, generator=g) * 2 - 1
    image_mask = torch.tensor([[True, True, False]] * rows)
    text = torch.randint(1, 300, (rows, 6), generator=g)
    token_mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    state, actions, noise = (torch.randn(*shape, generator=g) for shape in ((rows, 7), (rows, 5, 7), (rows, 5, 7)))
    ours = {"images": images, "image_mask": image_mask, "tokens": text, "token_mask": token_mask, "state": state,
            "actions": actions}  # fmt: skip
    theirs = {
        "input_ids": torch.cat([torch.full((rows, 2 * tokens), 300), text], dim=1),
        "attention_mask": torch.cat([torch.ones(rows, 2 * tokens, dtype=torch.long), token_mask.long()], dim=1),
        "pixel_values": images,
        "pixel_attention_mask": image_mask,
        "state": state,
    }
    return policy, ours, theirs, actions, noise


def assert_near(ours, theirs, relative):
    """The largest difference in terms of the largest value; the peer computes its time features in float32."""
    assert (ours - theirs).abs().max() < relative * theirs.abs().max()


def test_the_names_are_those_of_the_peer(peer):
    expected = {
        pi0_folders.transformers_name(key)
        for key in pi0_folders.openpi_shapes(pi0_folders.TINY, adaptive=False)
        if "paligemma.lm_head" not in key
    }
    names = {name.replace("vision_tower.", "vision_tower.vision_model.") if "vision_model" not in name else name
             for name in peer.state_dict()}  # fmt: skip
    assert names == expected


def test_sampled_actions_agree(peer, case):
    policy, ours, theirs, _, noise = case
    assert_near(policy.predict(ours, {"noise": noise}), peer.sample_actions(**theirs, noise=noise.clone()), 1e-4)


def test_the_loss_agrees(peer, case):
    policy, ours, theirs, actions, noise = case
    time = torch.tensor([0.3, 0.8])
    with torch.no_grad():
        expected = peer(**theirs, actions=actions, noise=noise, timestep=time).loss
        error = policy.element_loss(ours, noise=noise, time=time)
    assert_near(error, expected, 1e-4)
