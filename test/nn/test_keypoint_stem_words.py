"""What the stem is told of a long prompt."""

import numpy as np
import pytest
import torch

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.nn.keypoint_stem import KeypointStem, KeypointStemSize, text_summary
from vla_ros.policies import registry
from vla_ros.training.config import TrainConfig

WIDTH, WORDS = 32, 40


def summaries(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of prompts of 40 words that differ in one, (count, width), and which of three words it is, (count,)."""
    words = torch.randn(WORDS + 3, WIDTH, generator=torch.Generator().manual_seed(0))
    which = torch.randint(0, 3, (count,), generator=torch.Generator().manual_seed(seed))
    text = words[:WORDS].repeat(count, 1, 1)
    text[:, 7] = words[WORDS + which]
    return text_summary(text, torch.ones(count, WORDS, dtype=torch.bool)), which


def test_one_word_among_many_is_heard_and_an_answer_changes_nothing():
    torch.manual_seed(0)
    stem = KeypointStem(KeypointStemSize(image=48, grid=3), 1, WIDTH, 16, long_prompts=True)
    images = torch.zeros(32, 1, 3, 48, 48)
    for seed in range(100):
        stem(images, summaries(32, seed)[0])
    stem.eval()
    said = {name: value.clone() for name, value in stem.state_dict().items()}
    text, which = summaries(32, 1000)
    heard = stem.standardised(text)
    red, green = heard[which == 0][0], heard[which == 1][0]
    assert (text[which == 0][0] - text[which == 1][0]).square().mean().sqrt() < 0.05
    assert (red - green).square().mean().sqrt() > 0.5
    stem(images, text)
    stem.train()(images[:1], text[:1])  # one alone says nothing of a spread
    assert all(torch.equal(value, said[name]) for name, value in stem.state_dict().items())


def test_prompts_that_are_all_the_same_are_no_noise():
    stem = KeypointStem(KeypointStemSize(image=48, grid=3), 1, WIDTH, 16, long_prompts=True)
    text = summaries(1, 0)[0].expand(8, -1)
    for _ in range(200):
        heard = stem.standardised(text)
    assert heard.abs().max() < 1e-3 and stem.eval().standardised(text).abs().max() < 0.1


def test_an_ordered_summary_tells_which_word_came_first():
    red, on, blue, padding = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0))
    rows = ([red, on, blue, padding], [blue, on, red, padding], [padding, red, on, blue])
    text = torch.stack([torch.stack(row) for row in rows])
    valid = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 1, 1]], dtype=torch.bool)
    plain, ordered = text_summary(text, valid), text_summary(text, valid, ordered=True)
    torch.testing.assert_close(plain[0], plain[1])
    torch.testing.assert_close(ordered[:, :WIDTH], plain)
    torch.testing.assert_close(ordered[0, WIDTH:], (blue - red) * 2 / 9)  # places -2/3, 0 and 2/3, each a third
    torch.testing.assert_close(ordered[1, WIDTH:], -ordered[0, WIDTH:])
    torch.testing.assert_close(ordered[2], ordered[0])  # wherever the padding is
    with pytest.raises(InputError, match="ordered true, but the text that this policy gives to it has no order"):
        KeypointStem(KeypointStemSize(image=48, ordered=True), 1, WIDTH, 16, summarised=False)


def test_the_stem_of_the_workbench_s_policy_hears_the_order():
    """The towers see the same words, but look for another cube."""
    config = TrainConfig.load("config/train/bench_tiny.yaml", dataset="d", output="o")
    row = {"mean": np.zeros(6), "std": np.full(6, 0.3), "min": np.full(6, -0.6), "max": np.full(6, 0.6)}
    sentences = [f"stack the {one} cube on the {other} cube" for one, other in (("red", "blue"), ("blue", "red"))]
    data = registry.TrainingData(
        tuple("abcdef"), ("front", "wrist"), 0.1, {"observation.state": row, "action": row}, tuple(sentences)
    )
    torch.manual_seed(0)
    made = registry.build(config.family, config.policy, data)
    heard = []
    made.policy.backbone.vision.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[1]))
    images = {camera: np.zeros((1, 72, 96, 3), np.uint8) for camera in ("front", "wrist")}
    samples = [Sample(images=images, state=np.zeros((1, 6)), instruction=text) for text in sentences]
    batch = made.processor.inputs(samples)
    made.policy.eval().encode(batch)
    width = heard[0].shape[1] // 2
    torch.testing.assert_close(heard[0][0, :width], heard[0][1, :width])
    assert (heard[0][0, width:] - heard[0][1, width:]).abs().max() > 1e-3
