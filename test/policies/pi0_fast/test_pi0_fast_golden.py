"""Agreement with LeRobot 0.6.1: network, decoding, prompts and action tokens."""

import json
from dataclasses import replace

import golden_vectors
import numpy as np
import pytest
import tokenizers
import torch

from vla_ros.core.errors import InputError
from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.meta import without_numbers
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.pi0.processor import prompt_ids
from vla_ros.policies.pi0_fast.config import Pi0FastConfig
from vla_ros.policies.pi0_fast.model import Pi0Fast
from vla_ros.policies.pi0_fast.names import rename
from vla_ros.policies.pi0_fast.tokens import ActionTokens, FastSettings

NEVER = -9  # no token


def case(**changes):
    """The policy, its batch, and what the published code gave."""
    golden, said, shapes = golden_vectors.load("pi0_fast")
    vision = said["vision"]
    config = Pi0FastConfig(
        vision=SiglipSize(vision["hidden"], vision["layers"], vision["heads"], vision["mlp"], 14, 28),
        prefix=GemmaSize(**said["prefix"]), vocabulary=said["vocab"], max_decoding_steps=said["max_decoding_steps"],
    )
    with without_numbers():
        policy = Pi0Fast(replace(config, **changes))
    load_weights(policy, golden_vectors.Filled(shapes), "golden", rename(policy.config, shapes))
    batch = {name: torch.stack([golden[f"{name[:5]}{name[6:]}_{i}"] for i in range(3)], dim=1)
             for name in ("images", "images_mask")}
    batch = {"images": batch["images"], "image_mask": batch["images_mask"]}
    batch |= {name: golden[name] for name in ("tokens", "token_mask", "action_tokens", "action_token_mask")}
    batch |= {"start": torch.tensor([said["bos"]] * 2), "end": torch.tensor([NEVER] * 2),
              "opening": torch.tensor([[5, 6]] * 2), "span": torch.tensor([[100, 140]] * 2)}
    return policy.eval(), batch, golden, said


@torch.no_grad()
def test_logits_and_loss_agree():
    policy, batch, golden, _ = case()
    logits, mask = policy.training_logits(batch), batch["action_token_mask"]
    golden_vectors.assert_close(logits[mask], golden["training_logits"][mask])
    golden_vectors.assert_close(policy.loss(batch)["loss"][None], golden["loss"])


@torch.no_grad()
def test_decoded_tokens_are_the_published_ones(monkeypatch):
    policy, batch, golden, said = case()
    seen, logits = [], policy.logits
    monkeypatch.setattr(policy, "logits", lambda x: (seen.append(logits(x)), seen[-1])[1])
    assert torch.equal(policy.predict(batch), golden["greedy_tokens_cache"])
    golden_vectors.assert_close(torch.stack(seen, dim=1), golden["greedy_logits_cache"])
    one = {name: value[:1] for name, value in batch.items()} | {"end": torch.tensor([said["stop_token_of_stopped"]])}
    assert torch.equal(policy.predict(one), golden["greedy_tokens_stopped"])


@torch.no_grad()
def test_a_row_that_has_ended_writes_no_more_and_disturbs_no_other():
    policy, batch, golden, said = case()
    batch["end"][0] = said["stop_token_of_stopped"]
    expected = torch.cat([golden["greedy_tokens_stopped"], golden["greedy_tokens_cache"][1:]])
    assert torch.equal(policy.predict(batch), expected)


@torch.no_grad()
def test_decoding_of_actions_begins_as_told_and_writes_nothing_else():
    policy, batch, _, _ = case(decoding="actions")
    batch["end"][:] = 7
    tokens = policy.predict(batch)
    assert tokens[:, :2].tolist() == [[5, 6]] * 2
    body = tokens[:, 2:]
    assert ((body >= 100) & (body <= 140) | (body == 7) | (body == 0)).all() and (body[:, 0] >= 100).all()


@torch.no_grad()
def test_a_temperature_draws_with_the_probabilities_of_the_logits():
    policy, batch, golden, _ = case(temperature=0.7)
    context = policy.encode(batch)
    logits = golden["greedy_logits_cache"][:1, 0].expand(20_000, -1)
    chance = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    counts = policy.choose(logits, context, 0, chance).bincount(minlength=300) / 20_000
    expected = torch.softmax(logits[0] / 0.7, dim=-1)
    assert (counts - expected).abs().max() < 0.01 and expected.max() > 0.05
    drawn = {"chance": torch.zeros(2, 8)}
    assert torch.equal(policy.predict(batch, drawn), policy.predict(batch, drawn))


@torch.no_grad()
def test_logits_that_are_not_finite_are_no_token():
    policy, batch, _, _ = case()
    policy.head.weight[3] = float("nan")
    assert (policy.predict(batch) == -1).all()


def fast():
    golden, said, _ = golden_vectors.load("pi0_fast_tokens")
    inner = tokenizers.Tokenizer.from_str(json.dumps(said["bpe"]))
    return ActionTokens(inner, FastSettings(said["scale"], said["min_token"])), golden, said


def test_prompts_are_the_published_ones():
    _, golden, said = fast()

    class Text:
        bos, special = 2, frozenset()

        def encode(self, text):
            return [text]

    for task, state, expected in zip(said["tasks"], golden["state"].numpy(), said["prompts"], strict=True):
        assert prompt_ids(Text(), task, "fast", state) == [2, expected]


def test_action_tokens_are_the_published_ones_and_read_back():
    actions, golden, said = fast()
    last, opening = said["vocab"] - 1 - said["fast_skip_tokens"], len(said["action_prefix"])
    rows = [row[opening : row.index(said["bar"])] for row in golden["tokens"].tolist()]
    for row, chunk in zip(rows[:2], golden["actions"].numpy(), strict=True):
        assert [last - token for token in actions.encode(chunk)] == row
    shape = said["horizon"], said["action_dim"]  # the third row is too short, the fourth too long
    decoded = np.stack([actions.decode([last - token for token in row], *shape) for row in rows])
    golden_vectors.assert_close(torch.from_numpy(decoded).float(), golden["decoded_actions"])


def test_what_is_no_chunk_is_refused_not_made_zero():
    actions, _, _ = fast()
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    inner.pre_tokenizer, inner.decoder = tokenizers.pre_tokenizers.ByteLevel(False), tokenizers.decoders.ByteLevel()
    whole = ActionTokens(inner, actions.settings)
    first = whole.encode(np.full((1, 1), 20.0))[:1]  # of the two bytes of a character
    for tokenizer, ids in ((actions, []), (whole, first)):
        with pytest.raises(InputError, match=rf"{len(ids)} action tokens .*not coefficients"):
            tokenizer.decode(ids, 4, 3)
    for value, said in ((1e4, "2e"), (np.nan, "nan")):
        with pytest.raises(InputError, match=f"a coefficient of {said}"):
            actions.encode(np.full((4, 3), value))
