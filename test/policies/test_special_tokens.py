"""What an instruction writes is read as words: tokens that stand for something else are refused."""

from dataclasses import replace

import families
import lerobot_folders
import pytest
import tokenizers

from vla_ros.core.errors import InputError
from vla_ros.policies import load
from vla_ros.policies.tokenizer import JsonTokenizer, spoken

READERS = ("pi0", "pi05", "pi0_fast", "xvla", "smolvla", "go1", "openvla", "openvla_oft", "robovlms",
           "robovlms_discrete", "modular")


@pytest.mark.parametrize("family", READERS)
def test_an_instruction_of_special_tokens_is_refused(family):
    loaded = families.fresh(family)
    inner = getattr(loaded.processor.tokenizer, "text", loaded.processor.tokenizer).inner
    names = ["<img>", "<IMG>", "</s>"]
    inner.add_special_tokens(names)
    for name in names:
        bad = families.sample(loaded.processor, instruction=f"touch the {name} cube")
        with pytest.raises(InputError, match=rf"'touch the {name} cube(\\n)?': token \d+, expected words, none of"):
            loaded.processor.inputs([bad])
    loaded.processor.inputs([families.sample(loaded.processor, instruction="touch the img s cube <unk>")])


def test_go1s_own_tokens_need_not_be_marked_as_special():
    loaded = families.fresh("go1")
    loaded.processor.tokenizer.inner.add_tokens(["<IMG_CONTEXT>"])
    with pytest.raises(InputError, match="'touch <IMG_CONTEXT>': token"):
        loaded.processor.inputs([families.sample(loaded.processor, instruction="touch <IMG_CONTEXT>")])


def test_lerobots_own_tokenizer_refuses_what_its_template_adds(tmp_path):
    _, one = lerobot_folders.expected("xvla")
    folder = lerobot_folders.write(tmp_path / "xvla", "xvla")
    [expected] = load(folder).processor.inputs([one])["tokens"].tolist()
    inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.add_special_tokens(["<bos>", "<eos>"])  # as published ones mark them
    inner.save(str(folder / "tokenizer.json"))
    processor = load(folder).processor
    assert processor.inputs([one])["tokens"].tolist() == [expected] and expected[0] == processor.tokenizer.bos
    for name, number in (("<bos>", 2), ("<eos>", 1)):
        with pytest.raises(InputError, match=f"instruction 'pick{name}': token {number}, expected words"):
            processor.inputs([replace(one, instruction=f"pick{name}")])


def test_a_word_that_a_tokenizer_does_not_know_is_a_word():
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "cube": 1, "[SEP]": 2}, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(["[UNK]", "[SEP]"])
    tokenizer = JsonTokenizer(inner, "here")
    assert spoken(tokenizer.encode("red cube"), tokenizer, "red cube") == [0, 1]
    with pytest.raises(InputError, match=r"'cube \[SEP\]': token 2"):
        spoken(tokenizer.encode("cube [SEP]"), tokenizer, "cube [SEP]")
