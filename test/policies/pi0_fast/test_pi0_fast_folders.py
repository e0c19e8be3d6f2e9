"""π0-FAST's folders: prompts as LeRobot's, chunks there and back, tokenizers, what is refused."""

import math
from dataclasses import replace

import golden_vectors
import lerobot_folders
import numpy as np
import pi0_folders
import pytest
import real_families
import torch
import yaml
from lerobot_folders import write_actions, write_fast
from real_families import ROBOT
from safetensors.torch import load_file, save_file

from vla_ros.core.errors import InputError
from vla_ros.nn.meta import without_numbers
from vla_ros.policies import describe, load, save
from vla_ros.policies.formats.weights import load_weights
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0_fast.checkpoint import FAMILY
from vla_ros.policies.pi0_fast.config import Pi0FastConfig
from vla_ros.policies.pi0_fast.names import rename
from vla_ros.policies.pi0_fast.tokens import SETTINGS

ROWS = np.linspace(-0.3, 0.3, 30).reshape(5, 6)


def test_every_tensor_of_the_published_size_has_its_place():
    shapes = pi0_folders.openpi_shapes(Pi0Config(), False)
    published = {key: shape for key, shape in shapes.items() if key.startswith(pi0_folders.P)}
    config = Pi0FastConfig()
    assert FAMILY.parameters(config) == sum(math.prod(shape) for shape in published.values()) == 3_449_982_704
    with without_numbers():
        policy = FAMILY.policy(config)
    tensors = golden_vectors.ShapesOnly({f"model.{key}": shape for key, shape in published.items()})
    load_weights(policy, tensors, "published", rename(config, published), device="meta")


@pytest.fixture
def folder(tmp_path):
    return real_families.make(tmp_path / "theirs", "pi0_fast")


def test_lerobots_folder_sees_what_lerobot_sees_and_its_zero_chunk_is_refused(tmp_path):
    theirs, sample = lerobot_folders.expected("pi0_fast")
    loaded = load(write_fast(tmp_path / "theirs"))
    batch = loaded.processor.inputs([sample])
    mask = theirs["batch/observation.language.attention_mask"]
    assert torch.equal(batch["tokens"][batch["token_mask"]], theirs["batch/observation.language.tokens"][mask])
    golden_vectors.assert_close(batch["state"], theirs["batch/observation.state"])
    answer = loaded.policy.predict(batch)
    assert not theirs["normalised"].any()  # LeRobot could not decode the tokens: the mean pose
    with pytest.raises(InputError, match=r"policy: 12 tokens \[14, .*token 14 at 0, expected actions, 54 to 143, then"):
        loaded.processor.outputs(answer, [sample])


def test_chunks_are_written_and_read_back(folder):
    loaded = load(folder, robot=ROBOT)
    processor = loaded.processor
    processor = replace(processor, config=replace(processor.config, check_opening=True))
    one = replace(real_families.sample(loaded), actions=ROWS, action_is_pad=np.zeros(5, bool))
    batch = processor.inputs([one])
    tokens = batch["action_tokens"][0][batch["action_token_mask"][0]].tolist()
    assert tokens[0] == processor.tokenizer.bos and tokens[1:3] == processor.tokenizer.opening
    assert tokens[-1] == processor.tokenizer.end and len(tokens) == 1 + 2 + 30 + 1
    answer = torch.tensor([tokens[1:] + [0] * 7])
    targets = processor.outputs(answer, [replace(one, actions=None)])[0].parts[0].data
    for whole in (tokens[1:-1], tokens[1:20] + tokens[-1:]):  # complete without an end, and ended early
        processor.outputs(torch.tensor([whole]), [one])
    step = processor.actions.statistics["std"].max() / processor.tokenizer.actions.settings.scale
    assert np.abs(targets - ROWS).max() < step * 1.5  # what rounding the coefficients loses
    low, high = processor.span
    for change, message in (
        (tokens[3:], "expected a chunk that begins with 'Action: '"),
        ([*tokens[1:9], low - 1, *tokens[9:]], rf"token {low - 1} at 6, expected actions, {low} to {high}"),
        (tokens[1:3], r"0 action tokens \[\], which are not coefficients; expected a chunk of 5 rows of 6"),
        ([-1] * 8, "policy: 8 tokens"),
        (tokens[1:20], "17 coefficients and no end in 17 action tokens; raise max_decoding_steps"),
    ):
        with pytest.raises(InputError, match=message):
            processor.outputs(torch.tensor([change]), [one])


def test_a_chunk_that_is_too_long_for_training_is_cut_and_said(folder, caplog):
    loaded = load(folder, robot=ROBOT)
    processor = replace(loaded.processor, config=replace(loaded.policy.config, max_action_tokens=10))
    batch = processor.inputs([replace(real_families.sample(loaded), actions=ROWS, action_is_pad=np.zeros(5, bool))])
    assert batch["action_tokens"].shape == (1, 10) and "cut to 10" in caplog.text


def test_the_action_tokenizer_is_the_folders_or_the_policy_files(tmp_path):
    folder = write_fast(tmp_path / "theirs", tokens=False)
    assert "no action tokenizer in it, expected the files of 'lerobot/fast-action" in describe(folder)["notes"]
    with pytest.raises(InputError, match=r"no action tokenizer .*folder fast, or name theirs as overrides\.action_tok"):
        load(folder, robot=ROBOT)
    (tmp_path / "tokens").mkdir()
    write_actions(tmp_path / "tokens")
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"checkpoint": "theirs", "overrides": {"action_tokenizer": "tokens"}}))
    assert load(path, robot=ROBOT).processor.tokenizer.actions.size == 90
    for spoilt, message in (("{}", None), ('{"scale": 0}', "scale"), ('{"min_token": 1}', "min_token"), ("[", "JSON")):
        (tmp_path / "tokens" / SETTINGS).write_text(spoilt)
        if message is None:
            load(path, robot=ROBOT)
        else:
            with pytest.raises(InputError, match=message):
                load(path, robot=ROBOT)


def test_our_own_folder_brings_both_tokenizers(folder, tmp_path):
    loaded = load(folder, robot=ROBOT)
    save(tmp_path / "ours", loaded)
    again, one = load(tmp_path / "ours", robot=ROBOT), real_families.sample(loaded)
    first, second = (x.policy.predict(x.processor.inputs([one])) for x in (loaded, again))
    assert torch.equal(first, second) and len(first.unique()) > 5
    positions = [x.processor.outputs(first, [one])[0].parts[0].data for x in (loaded, again)]
    np.testing.assert_array_equal(*positions)


def test_rows_that_are_trained_and_rows_that_are_decoded_are_the_same(folder):
    lerobot_folders.change(folder / "config.json", chunk_size=10)
    with pytest.raises(InputError, match=r"n_action_steps 5, chunk_size 10: .*overrides\.horizon"):
        load(folder, robot=ROBOT)
    assert load(folder, robot=ROBOT, overrides={"horizon": 10}).processor.horizon == 10


def test_a_file_that_holds_the_head_alone_embeds_with_it(folder):
    expected = load(folder, robot=ROBOT)
    tensors = load_file(folder / "model.safetensors")
    head = next(key for key in tensors if key.endswith("lm_head.weight"))
    embedding = next(key for key in tensors if key.endswith("embed_tokens.weight"))
    tensors[embedding] = tensors[head].clone()
    save_file(tensors, folder / "model.safetensors")
    both = load(folder, robot=ROBOT)
    tensors.pop(embedding)
    save_file(tensors, folder / "model.safetensors")
    alone, one = load(folder, robot=ROBOT), real_families.sample(expected)
    answers = [x.policy.predict(x.processor.inputs([one])) for x in (both, alone)]
    assert torch.equal(*answers) and alone.policy.config.tied
    tensors.pop(head)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match="missing"):
        load(folder, robot=ROBOT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fast_skip_tokens": 600}, r"fast_skip_tokens 600: expected place for \d+ action tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"max_decoding_steps": 0}, "max_decoding_steps"),
        ({"image_resolution": [56, 56]}, r"image_resolution \[56, 56\], its weights are for 28"),
        ({"new_field": 1}, r"unknown fields \['new_field'\]"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused(folder, change, message):
    lerobot_folders.change(folder / "config.json", **change)
    with pytest.raises(InputError, match=message):
        load(folder, robot=ROBOT)
