"""What a RoboVLM remembers: in a session, beside training, and of backbones that are not ours."""

from dataclasses import dataclass, replace

import families
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.policies import load, save
from vla_ros.policies.robovlms.backbone import Backbone
from vla_ros.policies.robovlms.config import BACKBONES
from vla_ros.runtime.session import PolicySession

STEP = 100_000_000  # ns


def seen(loaded, k, text=families.INSTRUCTIONS[0]):
    return families.sample(loaded.processor, k, text, stamp_ns=k * STEP)


def actions(session, one):
    return session.infer([one])[0].targets.parts[0].data


@pytest.mark.parametrize("head", ["lstm", "gpt"])
def test_a_second_instruction_does_not_inherit_what_the_first_one_saw(head):
    loaded = families.fresh("robovlms", head=head)
    session, other = PolicySession(loaded), PolicySession(loaded)
    first = [actions(session, seen(loaded, k)) for k in range(6)]
    again = seen(loaded, 6, families.INSTRUCTIONS[1])
    inherited = PolicySession(loaded)
    for k in range(6):
        actions(inherited, seen(loaded, k))
    session.begin()
    fresh = actions(session, again)
    np.testing.assert_array_equal(fresh, actions(other, again))
    assert np.abs(fresh - actions(inherited, again)).max() > 1e-4
    other.begin()
    np.testing.assert_array_equal(actions(other, seen(loaded, 0)), first[0])


@torch.no_grad()
@pytest.mark.parametrize("head", ["lstm", "gpt"])
def test_serving_gives_what_a_window_gives_as_in_training(head):
    """Step by step within the window, and the last window afresh behind it."""
    loaded = families.fresh("robovlms", head=head)
    policy, processor = loaded.policy, loaded.processor
    window = policy.config.window
    steps = [processor.inputs([seen(loaded, k)]) for k in range(window + 3)]
    session = PolicySession(loaded)
    for k in range(window + 3):
        served = session.infer([seen(loaded, k)])[0].answer
        images = torch.cat([steps[i]["images"] for i in range(max(0, k + 1 - window), k + 1)], dim=1)
        hidden = policy.head.body(policy.features(steps[k] | {"images": images}))[:, -1]
        torch.testing.assert_close(served, policy.head.decode(hidden)[0][0], rtol=1e-4, atol=1e-5)


def test_training_leaves_what_is_remembered_as_it_is_windows_of_one_step_too():
    """The published code takes a batch of windows of one step for a robot's next frame; here nothing is kept."""
    loaded = families.fresh("robovlms", window=1)
    session, alone = PolicySession(loaded), PolicySession(loaded)
    rows = np.linspace(-0.5, 0.5, loaded.processor.horizon)[:, None].repeat(6, axis=1)
    known = replace(seen(loaded, 9), actions=rows, action_is_pad=np.zeros(len(rows), bool))
    for k in range(3):
        with torch.no_grad():
            loss = loaded.policy.loss(loaded.processor.inputs([known]))["loss"]
        assert loss > 0
        np.testing.assert_array_equal(actions(session, seen(loaded, k)), actions(alone, seen(loaded, k)))
    # Of one step nothing is remembered: the head begins with zeros at each.
    np.testing.assert_array_equal(actions(session, seen(loaded, 7)), actions(PolicySession(loaded), seen(loaded, 7)))


def test_steps_after_a_padded_end_do_not_count():
    loaded = families.fresh("robovlms")
    loaded.policy.train()
    count = loaded.processor.horizon - loaded.processor.first_action_step
    one = seen(loaded, 0)
    window = loaded.policy.config.window
    one = replace(one, images={n: v.repeat(window, 0) for n, v in one.images.items()},
                  state=one.state.repeat(window, 0), action_is_pad=np.arange(count) >= 2)
    losses = []
    for value in (0.1, 0.4):
        rows = np.zeros((count, 6))
        rows[2:] = value
        losses.append(loaded.policy.loss(loaded.processor.inputs([replace(one, actions=rows)]))["loss"].item())
    assert losses[0] == losses[1]


def test_prompts_of_several_lengths_are_not_asked_together():
    loaded = families.fresh("robovlms")
    samples = [seen(loaded, 0, "touch"), seen(loaded, 0, "touch it")]
    with pytest.raises(InputError, match=r"prompts of \[1, 2\] tokens in one batch: padding would change"):
        loaded.processor.inputs(samples)


@torch.no_grad()
def test_training_reads_what_decoding_reads():
    """The loss of tokens is that of what is decoded when each is followed by the one of the data, however wrong."""
    loaded = families.fresh("robovlms_discrete", chunk=2, decoding="all")
    policy, config = loaded.policy, loaded.policy.config
    batch = loaded.processor.inputs([seen(loaded, 0)])
    ids = torch.randint(config.tokens.first, config.tokens.end, (1, 1, 2, 6), generator=torch.manual_seed(0))
    loss = policy.token_loss(batch, ids, torch.ones(1, 1, 2, dtype=torch.bool))
    x, valid = policy.embedded(batch)
    cache, losses = policy.backbone.cache(1, x.shape[1] + 12), []
    for token in [*ids.flatten(), torch.tensor(config.stop)]:
        logits = policy.backbone.words(policy.backbone.read(x, valid, cache)[:, -1])
        losses.append(functional.cross_entropy(logits, token[None]))
        x, valid = policy.backbone.embedding(token[None, None]), functional.pad(valid, (0, 1), value=True)
    torch.testing.assert_close(loss, torch.stack(losses).mean())


@dataclass(frozen=True)
class LookSize:
    width: int
    heads: int
    vocabulary: int
    image: int


class LookLayer(nn.TransformerEncoderLayer):
    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        qkv = functional.linear(self.norm1(x), self.self_attn.in_proj_weight, self.self_attn.in_proj_bias)
        return qkv.unflatten(-1, (3, self.self_attn.num_heads, -1)).permute(2, 0, 3, 1, 4)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.self_attn.out_proj(attended)
        return x + self.linear2(functional.gelu(self.linear1(self.norm2(x))))


class Look(Backbone):
    """A backbone of torch's own transformer, one token an image: all that a new one needs."""

    Size = LookSize

    def __init__(self, size: LookSize, cameras: int) -> None:
        super().__init__(size, cameras)
        self.look = nn.Conv2d(3, size.width, size.image)
        self.layers = nn.ModuleList(LookLayer(size.width, size.heads, 2 * size.width) for _ in range(2))
        self.norm = nn.LayerNorm(size.width)

    def see(self, images: Tensor, text: Tensor, valid: Tensor) -> Tensor:
        return self.look(images.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, images.shape[:2])


@pytest.mark.parametrize("head", ["lstm", "discrete"])
def test_a_backbone_of_ones_own(monkeypatch, tmp_path, head):
    monkeypatch.setitem(BACKBONES, "look", Look)
    size = {"kind": "look", "width": 16, "heads": 2, "image": families.SIDE}
    loaded = families.fresh("robovlms", backbone=size, head=head, text_length=14)
    count = loaded.processor.horizon - loaded.processor.first_action_step
    one = seen(loaded, 0)
    window = loaded.policy.config.window
    known = replace(one, images={n: v.repeat(window, 0) for n, v in one.images.items()},
                    state=one.state.repeat(window, 0), actions=np.full((count, 6), 0.2))
    loaded.policy.loss(loaded.processor.inputs([known]))["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loaded.policy.parameters())
    save(tmp_path / "ours", loaded)
    again = load(tmp_path / "ours")
    session, other = PolicySession(loaded), PolicySession(again)
    for k in range(3):
        np.testing.assert_array_equal(actions(session, seen(loaded, k)), actions(other, seen(loaded, k)))
