"""Prompts and pictures of RoboVLMs."""

import numpy as np
import pytest
import tokenizers

from vla_ros.core.errors import InputError
from vla_ros.policies.images import FITS
from vla_ros.policies.robovlms import prompts
from vla_ros.policies.tokenizer import JsonTokenizer

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "pick", "up", "the", "cup", "An", "image", "of", "a", "robot", "Input", ":",
         "Output", "What", "action", "step", "actions", "should", "take", "to", "?", "2", "\n"]  # fmt: skip
ADDED = ["<grounding>", "<image>", "<|endoftext|>", "<|endofchunk|>"]


@pytest.fixture(scope="module")
def tokenizer():
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\n"), "isolated")
    space = tokenizers.pre_tokenizers.Split(" ", "removed")
    signs = tokenizers.pre_tokenizers.Punctuation()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, space, signs])
    inner.add_special_tokens(WORDS[:4])
    inner.add_tokens([tokenizers.AddedToken(word) for word in ADDED])  # Kosmos-2 does not call its own ones special
    return JsonTokenizer(inner, "words")


def words(ids):
    return [(WORDS + ADDED)[number] for number in ids]


@pytest.mark.parametrize(("kind", "expected"), [
    ("kosmos", ["<s>", "<grounding>", *"An image of a robot pick up the cup".split(), "</s>"]),
    ("paligemma", ["</s>", "pick", "up", "the", "cup", "\n"]),
    ("llava", ["pick", "up", "the", "cup"]),
    ("qwen", ["pick", "up", "the", "cup"]),
    ("moondream", ["<|endoftext|>", "pick", "up", "the", "cup"]),
    ("default", ["<|endoftext|>", "pick", "up", "the", "cup"]),
    ("uform", ["<image>", "pick", "up", "the", "cup"]),
    ("flamingo", ["<image>", "pick", "up", "the", "cup", "<|endofchunk|>", "</s>"]),
])
def test_what_each_model_is_told(tokenizer, kind, expected):
    assert words(prompts.ids(kind, tokenizer, " pick up the cup ")) == expected


@pytest.mark.parametrize(("kind", "start", "end"), [
    ("kosmos", ["<s>"], ["\n", "</s>"]), ("paligemma", ["<s>"], ["\n"]), ("llava", [], []), ("default", [], []),
    ("qwen", [], []),
])  # fmt: skip
def test_what_the_discrete_decoder_is_asked(tokenizer, kind, start, end):
    asked = "What 2 step actions should the robot take to pick up the cup ?".split()
    said = ["Input", ":", *asked, "\n", "Output", ":"]
    assert words(prompts.question_ids(kind, tokenizer, "pick up the cup", 2)) == start + said + end


def test_one_step_is_asked_for_in_other_words():
    assert prompts.question("llava", "go", 1) == "Input: What action should the robot take to go?\nOutput:"
    assert prompts.question("kosmos", "go", 9) == "Input: What 9 step actions should the robot take to go?\nOutput: \n"


@pytest.mark.parametrize("instruction", ["go </s>", "<image> cup", "the <grounding> cup"])
@pytest.mark.parametrize("asked", [False, True])
def test_an_instruction_is_words(tokenizer, instruction, asked):
    with pytest.raises(InputError, match="expected words"):
        if asked:
            prompts.question_ids("kosmos", tokenizer, instruction, 1)
        else:
            prompts.ids("kosmos", tokenizer, instruction)


def test_a_long_instruction_keeps_the_marks(tokenizer):
    ids = prompts.ids("kosmos", tokenizer, "cup " * 2000)
    assert len(ids) == 512 and words(ids[:2]) == ["<s>", "<grounding>"] and words(ids[-2:]) == ["cup", "</s>"]


def test_a_tokenizer_without_an_end(tokenizer):
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(InputError, match="no token </s> or <eos>, expected one that ends a prompt"):
        prompts.ids("kosmos", JsonTokenizer(inner, "words"), "go")


@pytest.mark.parametrize("call", [prompts.images, lambda kind: prompts.text(kind, "go")])
def test_an_unknown_model(call):
    with pytest.raises(InputError, match="model 'gpt', expected one of"):
        call("gpt")


def test_pictures_are_whole_squares():
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for kind in prompts.PROMPTS:
        said = prompts.images(kind)
        assert said.size == (448 if kind == "qwen" else 224)
        shown = FITS[said.fit].resize(image, 32, 32)
        assert shown.shape == (32, 32, 3) and shown[:, 0].std() > 0  # nothing was padded
        assert (said.mean[0] == 0.5) == (kind == "paligemma") and len(said.std) == 3
