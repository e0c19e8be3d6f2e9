"""GR00T's published folders: every key and count, sizes, embodiments, prompts, and what is refused."""

import json
import re
import shutil
from dataclasses import replace

import golden_vectors
import groot_folders
import numpy as np
import pytest
import torch
import yaml
from groot_folders import POLICY_FILE, make_lerobot, make_nvidia, published
from groot_golden import batch, pictures
from real_families import ROBOT

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.core.statistics import of_rows
from vla_ros.nn.meta import without_numbers
from vla_ros.policies import describe, load, save
from vla_ros.policies.formats.weights import Unused, load_weights
from vla_ros.policies.groot.config import GENERATIONS, GrootConfig
from vla_ros.policies.groot.model import Groot
from vla_ros.policies.groot.names import rename
from vla_ros.policies.groot.prompts import prompt
from vla_ros.policies.groot.sizes import PUBLISHED, head_fields, vlm_fields
from vla_ros.policies.options import TrainingData
from vla_ros.policies.rows import Rows

EVERY = pytest.mark.parametrize("generation", GENERATIONS)
TAGS = {"n1.5": "so100"}


def full_size(generation):
    said, shapes = published(generation)
    fields = GENERATIONS[generation] | vlm_fields(generation, PUBLISHED[generation], "published")
    fields |= head_fields(generation, said["config"], "published")
    side = 224 if generation in ("n1", "n1.5") else 256
    config = GrootConfig.from_dict(
        fields | {"cameras": ("a",), "state_dim": 6, "real_action_dim": 6, "image_size": (side, side)}
    )
    return config, said, shapes


@EVERY
def test_every_published_key_has_its_place_and_every_parameter_its_count(generation):
    config, said, shapes = full_size(generation)
    with without_numbers():
        policy = Groot(config)
    unique = {key: shape for key, shape in shapes.items() if not key.endswith("lm_head.weight")}
    unread = 0
    for kept in (shapes, unique, {key: shape for key, shape in shapes.items() if "embed_tokens" not in key}):
        if not any("embed_tokens" in key or "lm_head" in key for key in kept):
            continue
        names = rename(policy.config, kept)
        load_weights(policy, golden_vectors.ShapesOnly(kept), "here", names, device="meta")
        unread = sum(torch.Size(shape).numel() for key, shape in unique.items() if isinstance(names(key), Unused))
    assert sum(p.numel() for p in policy.parameters()) + unread == said["parameters"]
    head = policy.head
    dit = (head.layers, head.time_1, head.time_2, head.modulation, head.out)
    assert sum(p.numel() for part in dit for p in part.parameters()) == said["blocks"]["action_head.model"]
    if "action_head.vl_self_attention" in said["blocks"]:
        assert sum(p.numel() for p in policy.vl_layers.parameters()) == said["blocks"]["action_head.vl_self_attention"]


def policy_file(path, folder, **changes):
    path.write_text(yaml.safe_dump(POLICY_FILE | {"checkpoint": str(folder)} | changes))
    return path


def seen(loaded, seed=0, instruction="Touch the RED cube!"):
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 256, (1, 48, 64, 3), np.uint8) for name in ("front", "wrist")}
    return Sample(images, rng.normal(0, 0.2, (len(loaded.policy.config.state_steps), 6)), instruction)


@EVERY
@torch.no_grad()
def test_a_sharded_folder_runs_from_frames_to_joints_and_survives_our_own_layout(generation, tmp_path):
    folder = make_nvidia(tmp_path / "theirs", generation, TAGS.get(generation, "new_embodiment"))
    path = policy_file(tmp_path / "policy.yaml", folder)
    loaded = load(path, robot=ROBOT)
    one = seen(loaded)
    inputs = loaded.processor.inputs([one])
    torch.manual_seed(0)
    answer = loaded.policy.predict(inputs)
    [part] = loaded.processor.outputs(answer, [one])[0].parts
    valid = 6 if generation in ("n1", "n1.5") else 5
    assert part.data.shape == (valid, 5) and np.isfinite(part.data).all() and "wrist_roll" not in part.names
    assert inputs["token_mask"].all() or generation == "n1.6"  # one robot's prompt is padded where that is masked alone
    save(tmp_path / "ours", loaded)
    again = load(tmp_path / "ours", robot=ROBOT)
    torch.manual_seed(0)
    ours = again.policy.predict(again.processor.inputs([one]))
    torch.testing.assert_close(ours, answer, rtol=0, atol=1e-6)
    np.testing.assert_allclose(again.processor.outputs(ours, [one])[0].parts[0].data, part.data, atol=1e-6)
    said = describe(path, robot=ROBOT)
    assert generation.upper() in said["generation"]
    assert said["images"].endswith(f"pixels, centre crop 0.95 (image_path {loaded.policy.config.image_path})")


@pytest.mark.parametrize("generation", ["n1.5", "n1.6", "n1.7"])
@torch.no_grad()
def test_a_folder_gives_the_actions_of_the_original(generation, tmp_path):
    """The same weights and inputs as the golden vectors', through files instead of a dictionary."""
    name = groot_folders.VECTORS[generation]
    vectors, _, _ = golden_vectors.load(name)
    folder = make_nvidia(tmp_path / "theirs", generation, TAGS.get(generation, "new_embodiment"))
    policy = load(policy_file(tmp_path / "policy.yaml", folder), robot=ROBOT).policy
    inputs = batch(name, vectors)
    for row in range(2):  # images of several sizes: a row by itself
        one = {key: value[row : row + 1] for key, value in inputs.items()}
        images = pictures(name, vectors)[2 * row : 2 * row + 2]
        one |= {"images": images[0][None, None], "images_1": images[1][None, None]}
        got = policy.predict(one, {"noise": vectors["noise"][row : row + 1]})
        torch.testing.assert_close(got, vectors["action_pred"][row : row + 1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_lerobots_n1_7_folder_and_the_base_model_that_it_names(tmp_path):
    """A folder as LeRobot 0.6.1 saved it: its config.json has no sizes, the vector's original has them."""
    name = "lerobot_groot_n17"
    vectors, said, shapes = golden_vectors.load(name)
    folder = make_lerobot(tmp_path / "theirs")
    groot_folders.write_weights(folder, shapes, 1, "_groot_model.")
    groot_folders.write_tokenizer(folder, "<|image_pad|>", said["image_token_id"], 200)
    vlm = {key: value for key, value in said.items() if key.endswith("_id")}
    vlm |= {"text_config": said["text"], "vision_config": said["vision"]}
    (folder / "vlm" / "config.json").write_text(json.dumps(vlm))
    with pytest.raises(InputError, match=r"width 24 over features of 32.*overrides\.base_model_path"):
        load(folder, robot=ROBOT)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "config.json").write_text(json.dumps({"model_type": "Gr00tN1d7"} | said["head"]))
    overrides = {"base_model_path": str(tmp_path / "raw"), "embodiment_tag": "libero_sim"}
    loaded = load(folder, robot=ROBOT, overrides=overrides)
    assert loaded.policy.config.embodiment == 2
    with pytest.raises(InputError, match="'new_embodiment' is number 10, the network has weights of 3"):
        load(folder, robot=ROBOT, overrides=overrides | {"embodiment_tag": "new_embodiment"})
    ready = loaded.policy.attend(
        vectors["backbone_features"], vectors["image_mask"].bool(), vectors["attention_mask"].bool(),
        {"state": vectors["state"], "embodiment": vectors["embodiment_id"].long()},
    )
    got = loaded.policy.act(ready, {"noise": vectors["noise"]}).actions
    torch.testing.assert_close(got, vectors["sampled_actions"], rtol=0, atol=1e-5)
    one = replace(seen(loaded))
    rows = groot_folders.statistics({"observation.state": 6, "action": 6})
    state = loaded.processor.inputs([one])["state"][0, 0, :6].numpy()
    low, high = (np.array(rows["observation.state"][key]) for key in ("min", "max"))
    np.testing.assert_allclose(state, np.clip(2 * (one.state[-1] - low) / (high - low) - 1, -1, 1), atol=1e-6)
    answer = torch.linspace(-1.5, 1.5, 48).view(1, 6, 8)
    low, high = (np.array(rows["action"][key]) for key in ("min", "max"))
    expected = (np.clip(answer[0, :, :6].numpy(), -1, 1) + 1) / 2 * (high - low) + low
    np.testing.assert_allclose(loaded.processor.outputs(answer, [one])[0].parts[0].data, expected, atol=1e-6)


@torch.no_grad()
def test_lerobots_n1_5_folder(tmp_path):
    """As LeRobot 0.4 and 0.5 wrote it: the embedding stored as the language head, no sizes of the network."""
    vectors, said, shapes = golden_vectors.load("groot_n15")
    folder = make_lerobot(tmp_path / "theirs")
    swapped = {key.replace("model.embed_tokens", "lm_head"): shape for key, shape in shapes.items()}
    groot_folders.write_weights(folder, swapped, 1, "_groot_model.")
    groot_folders.write_tokenizer(folder, "<IMG_CONTEXT>", 311, 320)
    (folder / "vlm" / "config.json").write_text(json.dumps(said["eagle"]))
    pack = {"state_horizon": 1, "action_horizon": 6, "max_state_dim": 7, "max_action_dim": 5, "language_key": "task",
            "formalize_language": False, "embodiment_tag": "so100", "embodiment_mapping": {"so100": 2},
            "normalize_min_max": True}
    config = json.loads((folder / "config.json").read_text())
    config |= {"embodiment_tag": "so100", "chunk_size": 50}
    for name in ("rtc_ramp_rate", "use_relative_actions"):
        config.pop(name)
    for features, feature in (("input_features", "observation.state"), ("output_features", "action")):
        config[features][feature]["shape"] = [5]
    (folder / "config.json").write_text(json.dumps(config))
    groot_folders.write_processors(
        folder, [("groot_pack_inputs_v3", pack, True), ("groot_eagle_encode_v3", {}, False),
                 ("groot_eagle_collate_v3", {}, False)],
        [("groot_action_unpack_unnormalize_v1", {"env_action_dim": 5, "normalize_min_max": True}, True)], 5,
    )
    (tmp_path / "raw").mkdir()
    base = {key: value for key, value in said.items() if key != "eagle"}
    (tmp_path / "raw" / "config.json").write_text(json.dumps(base))
    path = policy_file(tmp_path / "policy.yaml", folder, overrides={"base_model_path": "nvidia/raw"})
    with pytest.raises(InputError, match="nvidia/raw: no such folder.*hf download nvidia/raw"):
        load(path, robot=ROBOT)
    policy_file(path, folder, overrides={"base_model_path": "raw"})  # counts from the policy file
    loaded = load(path, robot=ROBOT)
    config = loaded.policy.config
    assert (config.generation, config.image_path, config.listed, config.embodiment) == ("n1.5", "lerobot", True, 2)
    assert loaded.processor.horizon == 6
    words = prompt(config, "pick up the cube", 2)
    assert words.endswith("<img><IMG_CONTEXT></img>['pick up the cube']<|im_end|>\n<|im_start|>assistant\n")
    embedding = loaded.policy.backbone.embedding.weight
    key = "backbone.eagle_model.language_model.lm_head.weight"
    assert torch.equal(embedding, golden_vectors.fill(key, tuple(embedding.shape)))
    one, answer = seen(loaded), loaded.policy.predict(loaded.processor.inputs([seen(loaded)]))
    rows = groot_folders.statistics({"observation.state": 5, "action": 5})["action"]
    low, high = (np.array(rows[name]) for name in ("min", "max"))
    [part] = loaded.processor.outputs(answer, [one])[0].parts
    np.testing.assert_allclose(part.data, (answer[0, :, :5].numpy() + 1) / 2 * (high - low) + low, atol=1e-6)


def test_prompts_are_those_of_the_original():
    tensors, said, _ = golden_vectors.load("groot_go1_preprocessing")

    def config(generation, **changes):
        return replace(full_size(generation)[0], **changes)

    first, second = said["instructions"]
    bare = {name: re.sub(r"<image-(\d+)>", r"<image \1><img><IMG_CONTEXT></img>", text)
            for name in ("n15_prompts", "n15_lerobot_prompts", "n16_prompts") for text in [said[name][0]]}
    assert prompt(config("n1.5", listed=True), first, 2) == bare["n15_prompts"]
    assert prompt(config("n1.5", listed=True), first, 1) == bare["n15_lerobot_prompts"]
    plain = re.sub(r"<image-(\d+)>", r"<image \1><img><IMG_CONTEXT></img>", said["n15_prompts"][1])
    assert prompt(config("n1.5"), second, 1) == plain
    assert prompt(config("n1.6"), first, 2) == bare["n16_prompts"]
    assert [prompt(config("n1"), first, 2), prompt(config("n1"), second, 1)] == said["n1_prompts"]
    for generation, most in (("n1", 64), ("n1.5", 256)):
        side = config(generation).image_size[0] // config(generation).image_unit
        assert side**2 == most
        ids = tensors[f"{generation.replace('.', '')}_input_ids"][0]
        assert int((ids == config(generation).image_token).sum()) == 2 * most
    assert int((tensors["n16_input_ids"][0] == config("n1.6").image_token).sum()) == 2 * (252 // 28) ** 2
    _, said, _ = golden_vectors.load("lerobot_groot_n17_processor")
    for given, expected in zip(said["language_in"], said["language_out"], strict=True):
        text = prompt(config("n1.7"), given, 1)
        assert text == (f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{expected}<|im_end|>\n")


@torch.no_grad()
def test_prompts_of_few_lengths_where_padding_is_masked(tmp_path):
    loaded = load(policy_file(tmp_path / "p.yaml", make_nvidia(tmp_path / "n", "n1.6")), robot=ROBOT)
    one, draws = seen(loaded), {name: torch.randn(shape) for name, shape in loaded.policy.draws(1).items()}
    inputs = loaded.processor.inputs([one])
    kept = inputs["token_mask"][0]
    assert kept[-1] and not kept.all() and len(kept) % 32 == 0
    bare = inputs | {name: inputs[name][:, kept] for name in ("tokens", "token_mask")}
    torch.testing.assert_close(loaded.policy.predict(inputs, draws), loaded.policy.predict(bare, draws))


def test_batches_are_padded_on_the_left_and_images_of_two_aspects_stay_apart(tmp_path):
    loaded = load(policy_file(tmp_path / "p.yaml", make_nvidia(tmp_path / "n", "n1.7")), robot=ROBOT)
    long = replace(seen(loaded), instruction="pick up the red cube")
    short = replace(seen(loaded, 1), instruction="pick")
    inputs = loaded.processor.inputs([long, short])
    assert inputs["token_mask"][0].all() and not inputs["token_mask"][1][:4].any() and inputs["token_mask"][1][4:].all()
    alone = loaded.processor.inputs([short])
    assert torch.equal(inputs["tokens"][1][4:], alone["tokens"][0])
    assert torch.equal(inputs["positions"][1][:, 4:], alone["positions"][0])
    wide = replace(long, images=long.images | {"wrist": np.zeros((1, 40, 80, 3), np.uint8)})
    inputs = loaded.processor.inputs([wide])
    assert inputs["images"].shape[3:] == (64, 96) and inputs["images_1"].shape[3:] == (64, 128)
    assert loaded.policy.predict(inputs).isfinite().all()


def test_a_new_embodiment_takes_everything_from_the_robot(tmp_path):
    folder = make_nvidia(tmp_path / "n", "n1.6", "robocasa_panda_omron")
    path = policy_file(tmp_path / "policy.yaml", folder, overrides={"embodiment_tag": "oxe_widowx"})
    with pytest.raises(InputError, match=r"have no 'oxe_widowx'.*overrides\.statistics"):
        load(path, robot=ROBOT)
    loaded = load(path, robot=ROBOT, without_statistics=True)
    assert loaded.policy.config.embodiment == 1 and not loaded.policy.config.state_groups
    path = policy_file(tmp_path / "policy.yaml", folder)
    loaded = load(path, robot=ROBOT)
    assert loaded.policy.config.embodiment == 3  # of its own table


def edited(folder, change):
    """The folder with its processor_config.json changed."""
    file = folder / "processor_config.json"
    data = json.loads(file.read_text())
    change(next(iter(data["processor_kwargs"]["modality_configs"].values())))
    file.write_text(json.dumps(data))
    return folder


def test_relative_joints_with_statistics_of_each_row(tmp_path):
    folder = make_nvidia(tmp_path / "n", "n1.7", use_relative_action=True, use_percentiles=True)
    kind = {"type": "NON_EEF", "format": "DEFAULT", "state_key": None}
    configs = [{"rep": "RELATIVE", **kind}, {"rep": "ABSOLUTE", **kind}]
    edited(folder, lambda modality: modality["action"].update(action_configs=configs))
    file = folder / "statistics.json"
    rows = json.loads(file.read_text())
    with pytest.raises(InputError, match="'single_arm': no statistics in relative_action"):
        load(policy_file(tmp_path / "policy.yaml", folder), robot=ROBOT)
    low = -np.linspace(0.1, 0.5, 5)[:, None].repeat(4, 1)  # the reach grows with the rows
    rows["new_embodiment"]["relative_action"] = {"single_arm": {
        name: value.tolist() for name, value in (("min", low), ("max", -low), ("mean", 0 * low), ("std", -low))}}
    file.write_text(json.dumps(rows))
    loaded = load(policy_file(tmp_path / "policy.yaml", folder), robot=ROBOT)
    arm, gripper = loaded.policy.config.action_groups
    assert (arm.relative, arm.mode, arm.rows, gripper.mode) == ("joints", "min_max", 5, "percentiles")
    one, answer = seen(loaded), torch.full((1, 6, 5), 0.5)
    [targets] = loaded.processor.outputs(answer, [one])
    [part] = targets.parts
    np.testing.assert_allclose(part.data[:, :4], one.state[-1][:4] - 0.5 * low, atol=1e-9)
    back, survives = loaded.processor.normalise([targets], [one])
    torch.testing.assert_close(back[:, :5], answer[:, :5], rtol=0, atol=1e-6)
    assert survives[0].tolist() == [True] * 5 + [False]
    # The data's own: of each row of all whole chunks, as Isaac GR00T has them; the gripper's are those of all rows.
    rng, joints = np.random.default_rng(0), loaded.processor.joints
    states = rng.normal(0, 0.3, (30, 6))
    targets = states + rng.normal(0, 0.1, (30, 6))
    statistics = {"observation.state": of_rows(states), "action": of_rows(targets)}
    data = TrainingData(joints, ("front",), 0.1, statistics, ("go",), rows=Rows(joints, states, targets, (18, 12), 0.1))
    own = replace(loaded.processor, embodiment=replace(loaded.processor.embodiment, step_dt=0.1)).with_statistics(data)
    starts = [*range(14), *range(18, 26)]
    low = np.array([[(targets[t + k] - states[t])[:4] for t in starts] for k in range(5)]).min(axis=1)
    np.testing.assert_allclose(own.actions.statistics["min"], [*low.ravel(), targets[:, 5].min()])
    values = own.normalise_actions(np.stack([targets[3:8]]), states[3:4])
    back = own._restored(values, states[3:4])
    np.testing.assert_allclose(back[0][:, :4], targets[3:8, :4], atol=1e-6)
    save(tmp_path / "ours", loaded)
    again = load(tmp_path / "ours", robot=ROBOT).processor.outputs(answer, [one])[0]
    np.testing.assert_allclose(again.parts[0].data, part.data)


def test_lerobots_n1_7_with_relative_actions(tmp_path):
    """Its statistics and groups stand in the JSON of the step that decodes actions."""
    folder = make_lerobot(tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"use_relative_actions": True}))
    with pytest.raises(InputError, match="use_relative_actions, but no step groot_n1_7_action_decode_v1"):
        load(folder, robot=ROBOT)
    sizes, kind = {"arm": 5, "gripper": 1}, {"type": "NON_EEF", "format": "DEFAULT", "state_key": None}
    raw = {name: groot_folders.statistics(sizes, seed) for seed, name in enumerate(("state", "action"))}
    raw["relative_action"] = {"arm": {name: [[value] * 5] * 4 for name, value in
                                      (("min", -0.2), ("max", 0.2), ("mean", 0.0), ("std", 0.1))}}
    modality = {"state": {"modality_keys": [*sizes]}, "action": {
        "modality_keys": [*sizes], "delta_indices": [0, 1, 2, 3],
        "action_configs": [{"rep": "RELATIVE", **kind}, {"rep": "ABSOLUTE", **kind}]}}
    decode = {"raw_stats": raw, "modality_config": modality, "use_percentiles": False, "use_relative_action": True}
    pack = groot_folders.PROCESSOR | {"raw_stats": raw, "modality_config": modality, "valid_action_horizon": 4,
                                      "video_modality_keys": ["wrist", "front"]}
    groot_folders.write_processors(
        folder, [("groot_n1_7_pack_inputs_v1", pack, False), ("groot_n1_7_vlm_encode_v1", groot_folders.IMAGES, False)],
        [("groot_n1_7_action_decode_v1", decode, False)],
    )
    loaded = load(folder, robot=ROBOT)
    assert [name.rpartition(".")[2] for name in loaded.policy.config.cameras] == ["wrist", "front"]
    one = seen(loaded)
    [part] = loaded.processor.outputs(torch.full((1, 6, 8), 0.5), [one])[0].parts
    assert part.data.shape == (4, 6)
    np.testing.assert_allclose(part.data[:, :5], np.tile(one.state[-1][:5] + 0.1, (4, 1)), atol=1e-9)


def test_frames_of_two_instants_stand_time_by_time(tmp_path):
    folder = edited(make_nvidia(tmp_path / "n", "n1.7"), lambda m: m["video"].update(delta_indices=[-15, 0]))
    loaded = load(policy_file(tmp_path / "policy.yaml", folder), robot=ROBOT)
    assert loaded.processor.steps() == {"front": (-15, 0), "wrist": (-15, 0), "joint_states": (-1, 0)}
    levels = {"front": (10, 20), "wrist": (30, 40)}
    images = {name: np.stack([np.full((48, 64, 3), level, np.uint8) for level in pair])
              for name, pair in levels.items()}
    inputs = loaded.processor.inputs([replace(seen(loaded), images=images)])
    assert inputs["images"][0, :, 0, 0, 0].tolist() == [10, 30, 20, 40]
    assert loaded.policy.predict(inputs).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(num_inference_steps=3), "num_inference_steps: unknown field"),
        (dict(strict_action_padding_mask=True), "strict_action_padding_mask true|True, expected False"),
        (dict(diffusion_model_cfg={"norm_type": "layer_norm"}), "norm_type 'layer_norm', expected 'ada_norm'"),
        (dict(diffusion_model_cfg={"num_attention_heads": 3}), "3 heads of 48, input_embedding_dim is 32"),
        (dict(action_horizon=17), "horizon of 17, expected at most 16"),
        (dict(select_layer=3), "missing: backbone.layers.2"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(changes, message, tmp_path):
    folder = make_nvidia(tmp_path / "n", "n1.6")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=message) as error:
        load(policy_file(tmp_path / "policy.yaml", folder), robot=ROBOT)
    assert "\n" not in str(error.value)


def test_a_variant_of_n1_7_without_attention_over_the_features(tmp_path):
    folder = make_nvidia(tmp_path / "n", "n1.7")
    _, _, shapes = golden_vectors.load("groot_n17")
    shapes = {key: shape for key, shape in shapes.items() if "vl_self_attention" not in key}
    groot_folders.write_weights(folder, shapes | {"action_head.dropout_prob_by_embodiment": (4,)}, 2)
    config = json.loads((folder / "config.json").read_text())
    config |= {"use_vl_self_attention": False, "vl_self_attention_cfg": None, "use_soft_prompts": False,
               "soft_prompt_num_tokens": 32}
    (folder / "config.json").write_text(json.dumps(config))
    path = policy_file(tmp_path / "policy.yaml", folder)
    loaded = load(path, robot=ROBOT)
    assert not loaded.policy.vl_layers and loaded.policy.traits.pads
    assert "dropout_prob_by_embodiment: how often" in describe(path, robot=ROBOT)["not used"]
    kwargs = json.loads((folder / "processor_config.json").read_text())
    kwargs["processor_kwargs"]["exclude_state"] = True
    (folder / "processor_config.json").write_text(json.dumps(kwargs))
    with pytest.raises(InputError, match="exclude_state True, expected false"):
        load(path, robot=ROBOT)


def test_n1_5_without_future_tokens_is_refused(tmp_path):
    folder = make_nvidia(tmp_path / "n", "n1.5", "so100")
    _, _, shapes = golden_vectors.load("groot_n15")
    groot_folders.write_weights(folder, {key: s for key, s in shapes.items() if "future_tokens" not in key}, 2)
    with pytest.raises(InputError, match="no action_head.future_tokens.weight.*other actions"):
        load(policy_file(tmp_path / "policy.yaml", folder), robot=ROBOT)


def test_groups_tokens_and_tags_that_do_not_fit_are_named(tmp_path):
    folder = make_nvidia(tmp_path / "n", "n1.5", "so100")
    path = policy_file(tmp_path / "policy.yaml", folder)
    loaded = load(path, robot=ROBOT, overrides={"state_groups": {"single_arm": "min_max", "gripper": "sin_cos"}})
    one = seen(loaded)
    gripper = one.state[-1][5]
    state = loaded.processor.inputs([one])["state"][0, 0, 4:6]
    np.testing.assert_allclose(state, [np.sin(gripper), np.cos(gripper)], atol=1e-6)
    for overrides, message in (
        # the original cuts a state that is too long, in silence
        ({"state_groups": {"single_arm": "sin_cos", "gripper": "min_max"}}, "state of 9, expected at most 7"),
        ({"state_groups": {"legs": "min_max"}}, "no group ['legs'], expected some of ['single_arm', 'gripper']"),
        ({"action_groups": {"gripper": "sin_cos"}}, "action 'gripper': mode sin_cos, expected one with an inverse"),
        ({"action_groups": {"gripper": "loud"}}, "mode 'loud', expected one of"),
        ({"embodiment_tag": "so101"}, "embodiment_tag 'so101', expected one of ['agibot_genie1'"),
        ({"embodiment_tag": "gr1"}, "'gr1' is number 24, the network has weights of 4"),
        ({"image_path": "torch"}, "image_path 'torch', expected one of"),
        ({"image_path": "lerobot"}, "crop 0.95, but image_path 'lerobot' shows the whole frame: expected crop: 1"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            load(path, robot=ROBOT, overrides=overrides)
    groot_folders.write_tokenizer(folder, "<IMG_CONTEXT>", 310, 320)
    with pytest.raises(InputError, match=r"tokenizer: <IMG_CONTEXT> is \[310\], the policy expects \[311\]"):
        load(path, robot=ROBOT)
    groot_folders.write_tokenizer(folder, "<IMG_CONTEXT>", 311, 320)
    with pytest.raises(InputError, match=r"token \d+, expected words, none of"):
        loaded.processor.inputs([replace(one, instruction="pick <IMG_CONTEXT>")])
    shutil.rmtree(folder / "experiment_cfg")
    with pytest.raises(InputError, match=r"embodiment_tag.*is number 31|no normalisation"):
        load(path, robot=ROBOT)


def test_poses_are_not_taken_for_joints(tmp_path):
    """LIBERO's seven numbers are a pose and a gripper, whatever the robot's joints are called."""
    folder = make_nvidia(tmp_path / "n", "n1.6")
    file = folder / "processor_config.json"
    text = file.read_text().replace('"single_arm"', '"eef_pose"')
    file.write_text(text)
    rows = (folder / "statistics.json").read_text().replace('"single_arm"', '"eef_pose"')
    (folder / "statistics.json").write_text(rows)
    with pytest.raises(InputError, match=r"actions \['eef_pose'\] are poses of an end effector"):
        load(folder, robot=ROBOT)
    assert "eef_pose" in describe(folder)["groups"]
