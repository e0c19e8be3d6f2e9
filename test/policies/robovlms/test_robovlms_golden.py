"""RoboVLMs' networks against outputs of the published code."""

import pytest
import torch
from robovlms_golden import actions_of, batch_of, error, golden

HEADS = ("kosmos_lstm", "kosmos_lstm_pre_pool", "kosmos_fc", "kosmos_gpt", "kosmos_resampler",
         "kosmos_downsample_text", "kosmos_downsample_vision", "kosmos_downsample_all", "paligemma_lstm", "llava_lstm")
STEPS = ("kosmos_lstm", "kosmos_lstm_pre_pool", "kosmos_gpt", "kosmos_downsample_text", "paligemma_lstm", "llava_lstm")
BEFORE, AFTER = 3e-5, 2e-4  # the head; measured 1.3e-6 and 7e-6


def window_of(vectors):
    return {"images": batch_of(vectors), "tokens": vectors["lang_x"], "token_mask": vectors["lang_mask"]}


def step_of(vectors, t, elapsed=1):
    ids = vectors["step_lang_x"]
    images = batch_of({name: value[t] for name, value in vectors.items() if name.startswith("step_vision")}, "step_")
    return {"images": images, "tokens": ids, "token_mask": torch.ones_like(ids, dtype=torch.bool),
            "elapsed": torch.tensor([min(t, elapsed)])}


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_a_window_of_padded_texts(name):
    policy, vectors, _ = golden(name)
    batch = window_of(vectors)
    seen = policy.see(batch["images"].flatten(0, 1), vectors["multimodal_embeds"], None)
    cameras = [vectors[f"image_features_{name}"][:, 0] for name in ("hand", "static")
               if f"image_features_{name}" in vectors]
    assert error(seen, torch.cat(cameras, dim=1)) < BEFORE
    x, valid = policy.embedded(batch)
    assert error(x, vectors["multimodal_embeds"]) < BEFORE and torch.equal(valid, vectors["multimodal_mask"])
    assert error(policy.tokens_read(batch), vectors["head_input"]) < BEFORE
    pose, logits = policy.head.decode(policy.head.body(policy.features(batch)))
    assert error(pose, vectors["actions"]) < AFTER
    assert error(logits, vectors["gripper_logits"][..., 0]) < AFTER


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_losses_of_all_rows_and_of_those_that_are_kept(name):
    policy, vectors, said = golden(name)
    pose, logits = vectors["actions"], vectors["gripper_logits"][..., 0]
    for kept, end in ((vectors["chunk_mask"], ""), (torch.ones_like(vectors["chunk_mask"]), "_nomask")):
        losses = policy.losses(pose, logits, actions_of(vectors), kept)
        for part in ("arm", "gripper"):
            torch.testing.assert_close(losses[part], vectors[f"loss_{part}{end}"], rtol=1e-5, atol=1e-6)
        if not end:
            torch.testing.assert_close(losses["loss"], vectors["trainer_loss"], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_the_loss_of_a_batch_takes_each_steps_own_chunk():
    """`actions` are rows from the window's first step on; here every chunk of the labels is such rows."""
    policy, vectors, _ = golden("kosmos_lstm")
    batch, length = window_of(vectors), policy.config.window - 1 + policy.config.chunk
    rows = torch.rand(2, length, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pad = torch.arange(length) >= torch.tensor([length, 4])[:, None]
    stacked = torch.stack([rows[:, i : i + 3] for i in range(4)], dim=1)
    kept = torch.stack([~pad[:, i : i + 3] for i in range(4)], dim=1)
    ours = policy.loss(batch | {"actions": rows, "action_is_pad": pad})
    theirs = policy.losses(vectors["actions"], vectors["gripper_logits"][..., 0], stacked, kept)
    assert all(ours[name].item() == pytest.approx(theirs[name].item(), abs=1e-4) for name in theirs)


@pytest.mark.parametrize("name", STEPS)
@torch.no_grad()
def test_step_by_step_beyond_the_window(name):
    policy, vectors, _ = golden(name)
    memory, count = policy.begin(1), len(vectors["step_vision_x"])
    assert count > policy.config.window
    for t in range(count):
        batch = step_of(vectors, t)
        assert error(policy.tokens_read(batch), vectors["step_head_input"][t]) < BEFORE
        answer = policy.act(policy.encode(batch, memory))
        memory = answer.memory
        assert error(answer.actions[0, :, :6], vectors["step_actions"][t, 0, 0]) < AFTER
        logits = vectors["step_gripper_logits"][t, 0, 0, :, 0]
        assert torch.equal(answer.actions[0, :, 6] > 0, logits > 0) and (answer.actions[0, :, 6].abs() == 1).all()
        if t == 0:
            executed = torch.cat([answer.actions[0, 0, :6], (answer.actions[0, 0, 6:] + 1) / 2])
            assert error(executed, vectors["step0_executed"]) < AFTER


@torch.no_grad()
def test_a_gap_as_long_as_the_window_makes_the_memory_void():
    policy, vectors, _ = golden("kosmos_lstm")
    first, memory = policy.act(policy.encode(step_of(vectors, 0), policy.begin(1))), policy.begin(1)
    for t in (1, 2, 0):
        batch = step_of(vectors, t) | {"elapsed": torch.tensor([policy.config.window + 1 if t == 0 else 1])}
        answer = policy.act(policy.encode(batch, memory))
        memory = answer.memory
    torch.testing.assert_close(answer.actions, first.actions)
    assert memory.steps.tolist() == [1]


@torch.no_grad()
def test_action_tokens_in_training():
    policy, vectors, _ = golden("kosmos_discrete")
    length = 7
    batch = {"images": batch_of(vectors), "tokens": vectors["ids"][:, 0, :length],
             "token_mask": vectors["mask"][:, 0, :length]}
    ids = vectors["action_ids"].view(2, 2, 2, 7)
    kept = torch.ones(2, 2, 2, dtype=torch.bool)
    assert policy.token_loss(batch, ids, kept).item() == pytest.approx(vectors["loss_arm"].item(), abs=3e-5)
    assert torch.equal(policy.config.tokens.ids(vectors["actions_raw"]), ids)
    x = vectors["multimodal_embeds"]
    logits = policy.backbone.words(policy.read(x, torch.ones(x.shape[:2], dtype=torch.bool), (2, 2)))
    assert error(logits.reshape(2, 60, -1), vectors["logits"]) < AFTER


@torch.no_grad()
def test_padding_stands_behind_the_answer_in_training():
    """A row of a shorter prompt has the loss that it has alone."""
    policy, vectors, _ = golden("kosmos_discrete")
    ids, images = vectors["action_ids"].view(2, 2, 2, 7)[:, :1], batch_of(vectors)[:, :1]
    prompts, kept = vectors["ids"][:, 0, :7], torch.ones(1, 1, 2, dtype=torch.bool)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    alone = [policy.token_loss({"images": images[i : i + 1], "tokens": prompts[i : i + 1, :n],
                                "token_mask": mask[i : i + 1, :n]}, ids[i : i + 1], kept) for i, n in enumerate((7, 4))]
    both = policy.token_loss({"images": images, "tokens": prompts, "token_mask": mask}, ids, kept.expand(2, 1, 2))
    torch.testing.assert_close(both, sum(alone) / 2)


@torch.no_grad()
def test_action_tokens_are_decoded_one_after_the_other():
    policy, vectors, _ = golden("kosmos_discrete")
    prompt = vectors["infer_prompt_ids"]
    batch = {"images": batch_of(vectors, "infer_"), "tokens": prompt,
             "token_mask": torch.ones_like(prompt, dtype=torch.bool)}
    ids = policy.predict(batch)
    assert torch.equal(ids, vectors["infer_token_ids"])
    # The cache changes nothing: all tokens read at once give the published logits, too.
    told = batch | {"tokens": torch.cat([prompt, ids], 1), "token_mask": torch.ones(1, 14, dtype=torch.bool)}
    logits = policy.backbone.words(policy.backbone.read(*policy.embedded(told)))
    assert error(logits[:, -8:-1], vectors["infer_logits"]) < AFTER
    values = torch.from_numpy(policy.config.tokens.values(ids))
    assert error(values[:, :6], vectors["infer_actions"][:, :6]) < 1e-12
    assert torch.equal(values[:, 6].sign(), vectors["infer_actions"][:, 6])
