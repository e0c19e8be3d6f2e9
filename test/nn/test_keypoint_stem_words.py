"""What the stem is told of the text."""

import pytest
import torch

from vla_ros.core.errors import InputError
from vla_ros.nn.keypoint_stem import KeypointStem, KeypointStemSize, text_summary

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


def test_the_order_of_words_is_heard_only_with_phrases():
    torch.manual_seed(0)
    words = torch.randn(1, 6, WIDTH)
    swapped, mask = words[:, [0, 4, 2, 3, 1, 5]], torch.ones(1, 6, dtype=torch.bool)
    plain = KeypointStem(KeypointStemSize(image=48), 1, WIDTH, 16, phrases=True)
    assert torch.allclose(plain.summary(words, mask), plain.summary(swapped, mask), atol=1e-6)
    stem = KeypointStem(KeypointStemSize(image=48, phrase=3), 1, WIDTH, 16, phrases=True)
    assert torch.equal(stem.summary(words, mask), plain.summary(words, mask))  # so that older weights still fit
    torch.nn.init.normal_(stem.phrases.change.weight)
    assert not torch.allclose(stem.summary(words, mask), stem.summary(swapped, mask), atol=0.1)
    padded = torch.cat([words, torch.randn(1, 3, WIDTH)], dim=1), torch.nn.functional.pad(mask, (0, 3))
    assert torch.allclose(stem.summary(*padded), stem.summary(words, mask), atol=1e-6)


def test_phrases_are_refused_where_a_family_has_no_order():
    with pytest.raises(InputError, match="phrase 5, which only the π0 families and SmolVLA have; expected 0"):
        KeypointStem(KeypointStemSize(phrase=5), 1, WIDTH, 16)
    with pytest.raises(InputError, match="phrase 4, expected an odd number of words, or 0"):
        KeypointStemSize(phrase=4)
