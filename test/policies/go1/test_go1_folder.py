"""GO-1's published folders: every tensor has its place, what config.json says is honoured or refused, the prompt."""

import json
from pathlib import Path

import go1_folders
import golden_vectors
import numpy as np
import pytest
import real_families
import sentencepiece
import torch

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies import describe, load
from vla_ros.policies.formats.weights import Unused, load_weights
from vla_ros.policies.go1.config import GO1Config
from vla_ros.policies.go1.model import GO1
from vla_ros.policies.go1.names import rename
from vla_ros.policies.go1.processor import SYSTEM
from vla_ros.policies.images import resize_bicubic

PUBLISHED = json.loads((Path(__file__).parents[2] / "data/keys/GO-1.json").read_text())  # "*": of 24 layers


def published(planner: bool) -> tuple[GO1Config, dict[str, tuple[int, ...]]]:
    """Configuration and every key of GO-1, or of GO-1 Air."""
    shapes = {
        key.replace("*", str(layer)): tuple(shape) for key, shape in PUBLISHED["keys"].items()
        for layer in range(24 if "*" in key else 1) if planner or not key.startswith("latent_planner.")
    }  # fmt: skip
    return GO1Config.from_published(PUBLISHED["config"] | {"latent_planning": planner}, "GO-1"), shapes


@pytest.mark.parametrize(("planner", "keys", "count"), [(True, 1084, 2_821_515_272), (False, 807, 2_591_587_335)])
def test_every_published_tensor_has_its_place(planner, keys, count):
    config, shapes = published(planner)
    assert len(shapes) == keys and sum(torch.Size(shape).numel() for shape in shapes.values()) == count
    with torch.device("meta"):
        policy = GO1(config)
    load_weights(policy, golden_vectors.ShapesOnly(shapes), "here", rename(config, shapes), device="meta")
    name = rename(config, shapes)
    unused = sum(torch.Size(shapes[key]).numel() for key in shapes if isinstance(name(key), Unused))
    assert sum(p.numel() for p in policy.parameters()) == count - unused
    assert sum(p.numel() for p in policy.vision.parameters()) == 304_012_288
    assert config.image_tokens == 256 and config.horizon == 30 and config.image_token == 92546


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return real_families.make(tmp_path_factory.mktemp("go1") / "theirs", "go1")


def test_a_folder_is_described(folder):
    rows = describe(folder, robot=real_families.ROBOT)
    assert rows["family"] == "go1" and rows["layout"] == "go1" and rows["latent planner"] == "width 32, 3 layers"
    assert "latent_planner.latent_final_layer" in rows["not used"] and "words are never generated" in rows["not used"]
    assert rows["cameras"] == "top from front, right from wrist, left (absent)"


def test_go1_air_has_no_planner(tmp_path):
    folder = go1_folders.make(tmp_path / "air", 6, real_families._tokenizer(), planner=False, shards=1)
    loaded = load(folder)
    assert loaded.policy.planner is None and loaded.processor.image_names == ("top", "right", "left")
    assert describe(folder)["latent planner"] == "none (GO-1 Air)"


def refused(folder, tmp_path, change):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    said = json.loads((folder / "config.json").read_text())
    change(said)
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(InputError) as error:
        load(tmp_path, robot=real_families.ROBOT)
    return str(error.value)


@pytest.mark.parametrize(("change", "words"), [
    (lambda said: said.pop("ps_version"), "missing ps_version, expected 'v2'"),
    (lambda said: said.update(ps_version="v1"), "ps_version 'v1', expected 'v2'"),
    (lambda said: said.update(dynamic_image_size=True), "dynamic_image_size True, expected False"),
    (lambda said: said.update(force_image_size=112), "force_image_size 112, expected image_size"),
    (lambda said: said.update(latent_planning=None), "latent_planning: None, expected true or false"),
    (lambda said: said["action_config"].update(architectures=["X"]), "architectures ['X'], expected"),
    (lambda said: said["action_config"].update(bias=True), "action_config: bias True, expected False"),
    (lambda said: said["action_config"].update(num_hidden_layers=2), "depth of expert 2 and of text 3"),
    (lambda said: said["llm_config"].pop("hidden_size"), "llm_config: missing hidden_size"),
    (lambda said: said["llm_config"].update(rope_scaling={"rope_type": "x"}), "rope_scaling {'rope_type'"),
    (lambda said: said["action_config"].update(max_position_embeddings=30), "max_position_embeddings 30, expected 387"),
    (lambda said: said["vision_config"].update(qk_normalization=True), "qk_normalization True, expected False"),
    (lambda said: said["noise_scheduler_config"].update(prediction_type="epsilon"), "prediction_type 'epsilon'"),
    (lambda said: said["noise_scheduler_config"].update(beta_schedule="x"), "beta_schedule 'x', expected one of"),
    (lambda said: said.update(img_context_token_id=310), "<IMG_CONTEXT> is token 311, the policy expects 310"),
])  # fmt: skip
def test_what_is_not_supported_is_refused_by_name(folder, tmp_path, change, words):
    assert words in refused(folder, tmp_path, change)


@torch.no_grad()
def test_golden_pixels():
    vectors, *_ = golden_vectors.load("go1_pixels")
    image = torch.from_numpy(resize_bicubic(vectors["raw_0"].numpy(), 112, 112).copy()).permute(2, 0, 1)
    _, shapes = published(False)
    with torch.device("meta"):
        policy = GO1(GO1Config.from_published(PUBLISHED["config"], "GO-1"))
    seen = []
    policy.vision.forward = lambda images: seen.append(images) or torch.zeros(1, 1025, 1024, device="meta")
    policy.encode_images(image[None, None])
    golden_vectors.assert_close(seen[0][0], vectors["go1_pixel_values_112_of_raw_0"])


def test_the_prompt_is_a_dialogue_whose_pieces_become_tokens_alone(folder):
    processor = load(folder, robot=real_families.ROBOT).processor
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    start, end, image = 306, 307, [309, *[311] * 4, 310]
    expected = [
        model.bos_id(), start, *model.encode(f"system\n{SYSTEM}"), end, *model.encode("\n"),
        start, *model.encode("user\n"), *image * 2, *model.encode("What action should the robot take to Lift it.?"),
        end, *model.encode("\n"), start, *model.encode("assistant\n"), end, *model.encode("\n"),
    ]  # fmt: skip
    assert processor.prompt("Lift it.", 2) == expected
    assert 307 not in processor.tokenizer.encode("<|im_end|>")  # what somebody says ends no turn


def test_added_tokens_are_found_in_either_file(folder, tmp_path):
    tokenizer = load(folder, robot=real_families.ROBOT).processor.tokenizer
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.proto)
    with pytest.raises(InputError, match=r"no token <\|im_start\|>, neither in it nor in added_tokens.json"):
        load(folder, robot=real_families.ROBOT, tokenizer=tmp_path)
    rows = {str(number): {"content": name, "special": True} for name, number in go1_folders.ADDED.items()}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": rows}))
    other = load(folder, robot=real_families.ROBOT, tokenizer=tmp_path).processor.tokenizer
    assert other.added == tokenizer.added == go1_folders.ADDED


def test_the_policy_is_told_the_rate_of_its_rows_or_what_the_policy_file_says(folder):
    robot = real_families.ROBOT
    for options, frequency in (({}, 10.0), ({"step_dt": 0.04}, 25.0), ({"overrides": {"control_frequency": 30}}, 30.0)):
        loaded = load(folder, robot=robot, **options)
        batch = loaded.processor.inputs([real_families.sample(loaded)])
        assert batch["control_frequency"].tolist() == pytest.approx([frequency])
    with pytest.raises(InputError, match="overrides.control_frequency: 0"):
        load(folder, robot=robot, overrides={"control_frequency": 0})


def test_normalisation_is_the_originals(folder):
    loaded = load(folder, robot=real_families.ROBOT)
    rows, one = json.loads((folder / "dataset_stats.json").read_text()), real_families.sample(loaded)
    state, mean, std = one.state[0], *(np.array(rows["state"][name]) for name in ("mean", "std"))
    found = loaded.processor.inputs([one])["state"][0]
    np.testing.assert_allclose(found, (state - mean) / (std + 1e-6), rtol=1e-6)
    answer, mean, std = torch.full((1, 6, 6), 0.7), *(np.array(rows["action"][name]) for name in ("mean", "std"))
    [targets] = loaded.processor.outputs(answer, [one])
    np.testing.assert_allclose(targets.parts[0].data[2], 0.7 * std + mean, rtol=1e-6)


def test_without_norm_numbers_pass_as_they_are(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    said = json.loads((folder / "config.json").read_text()) | {"norm": False}
    (tmp_path / "config.json").write_text(json.dumps(said))
    (tmp_path / "dataset_stats.json").unlink()
    loaded = load(tmp_path, robot=real_families.ROBOT)
    one = real_families.sample(loaded)
    np.testing.assert_allclose(loaded.processor.inputs([one])["state"][0], one.state[0], rtol=1e-6)
    with pytest.raises(InputError, match="norm false: nothing is normalised, expected no overrides.statistics"):
        load(tmp_path, robot=real_families.ROBOT, overrides={"statistics": "x.json"})


def test_prompts_of_other_lengths_are_padded_in_training_alone(folder):
    loaded = load(folder, robot=real_families.ROBOT)
    short, long = (real_families.sample(loaded) for _ in range(2))
    short, long = (Sample(one.images, one.state, text) for one, text in ((short, "lift"), (long, "lift the red cube")))
    with pytest.raises(InputError, match="padding would change the answers"):
        loaded.processor.inputs([short, long])
    actions, pad = np.zeros((6, 6)), np.zeros(6, bool)
    taught = [Sample(one.images, one.state, one.instruction, actions, pad) for one in (short, long)]
    mask = loaded.processor.inputs(taught)["token_mask"]
    assert mask[1].all() and not mask[0].all() and mask[0, 0]
