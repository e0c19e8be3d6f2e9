"""Weights taken from a checkpoint whose instructions had other words."""

import re
from dataclasses import replace

import pytest
import torch
from families import BUILT, FAMILIES, config, data, fresh

from vla_ros.core.errors import InputError
from vla_ros.nn.words import WordEncoder
from vla_ros.policies import registry
from vla_ros.training.adapt import take_weights, whole_words

COUNTERS = ("act", "diffusion", "world_model")  # of words
READERS = [family for family in FAMILIES if family not in COUNTERS]
NEW = ("touch the red cube", "push the big red button")


def built(family, instructions):
    torch.manual_seed(1)
    return registry.build(BUILT.get(family, family), config(family), replace(data(), instructions=instructions))


@pytest.mark.parametrize("family", READERS)
def test_words_keep_their_embeddings_and_new_words_are_fresh(family):
    """The words of both are read as before; everything else that has the same shape is taken too."""
    other, mine, untouched = fresh(family), built(family, NEW), built(family, NEW)
    said = take_weights(mine, other, NEW)
    words = [one.processor.tokenizer.whole_words for one in (mine, other)]
    assert words[0] != words[1] and "button" not in words[1]
    own, given, before = (one.policy.state_dict() for one in (mine, other, untouched))
    tables = [name for name in own if own[name].shape != given[name].shape]
    assert tables
    for name in tables:
        for word in words[0]:
            expected = given[name][words[1][word]] if word in words[1] else before[name][words[0][word]]
            assert torch.equal(own[name][words[0][word]], expected), (name, word)
        assert torch.equal(own[name][len(words[0]):], given[name][len(words[1]):])  # such as tokens of actions
    assert all(torch.equal(own[name], given[name]) for name in own if name not in tables)
    both = len(words[0].keys() & words[1].keys())
    assert said == (f"{len(own)} of {len(own)} tensors taken, {len(tables)} of them for the {both} of {len(words[0])} "
                    "words that both know; 0 stayed fresh")


@pytest.mark.parametrize("instructions", [NEW, ("push it", "lift it", "stop")])
@pytest.mark.parametrize("family", COUNTERS)
def test_words_that_are_counted_keep_their_weights(family, instructions):
    other, mine, untouched = fresh(family), built(family, instructions), built(family, instructions)
    said = take_weights(mine, other, instructions)
    words = [list(whole_words(one)) for one in (mine, other)]
    own, given, before = (one.policy.state_dict() for one in (mine, other, untouched))
    (name,) = [name for name in own if name.endswith(WordEncoder.TABLE)]
    for k, word in enumerate(words[0]):
        expected = given[name][:, words[1].index(word)] if word in words[1] else before[name][:, k]
        assert torch.equal(own[name][:, k], expected), word
    assert all(torch.equal(own[one], given[one]) for one in own if one != name)
    assert f"1 of them for the {len({*words[0]} & {*words[1]})} of {len(words[0])} words that both know" in said


def test_what_stays_fresh_is_said():
    mine, other = (registry.build("act", config("act") | {"chunk_size": rows}, data()) for rows in (6, 5))
    said = take_weights(mine, other, ())
    assert re.fullmatch(r"\d+ of \d+ tensors taken; \d stayed fresh: .*decoder_pos_embed.*", said)


def test_other_words_of_a_vocabulary_of_the_same_size_are_refused():
    """Nothing then tells the table of words from other matrices."""
    with pytest.raises(InputError, match="whose vocabulary is not that of the dataset's instructions"):
        take_weights(built("pi0", ("lift the lid",)), built("pi0", ("lift the jar",)), ("lift the lid",))
