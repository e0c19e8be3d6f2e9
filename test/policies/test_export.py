"""Policies written as LeRobot 0.6.1 has them: the files are those that it wrote itself, the actions are the same."""

import json
from dataclasses import replace

import families
import lerobot_checkpoints
import lerobot_folders
import lerobot_python
import numpy as np
import pytest
import real_families
import tokenizers
import torch
from real_families import FAMILIES, ROBOT
from safetensors.torch import load_file

from vla_ros.cli.main import main as vla_ros
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Sample
from vla_ros.policies import load, save
from vla_ros.policies.embodiment import Dimension, Embodiment
from vla_ros.policies.pi0 import config as pi0_config
from vla_ros.policies.pi0 import export as pi0_export
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0_fast.config import Pi0FastConfig
from vla_ros.policies.pi0_fast.tokens import ActionTokens, FastSettings, is_published
from vla_ros.policies.registry import export

THEIRS = ("pi0", "pi05", "pi05_relative", "smolvla", "xvla")  # folders that LeRobot wrote
UNREAD = ("lm_head.weight", "text_model.norm.weight", "pos_idx_to_embed")
NOT_THERE = ("go1", "openvla", "robovlms")  # families that LeRobot has not
# What says how it was trained, or where it ran; and sizes that are no published ones.
APART = ("optimizer_", "scheduler_", "compile_", "use_peft", "repo_id", "private", "tags", "license", "pretrained_",
         "gradient_checkpointing", "push_to_hub", "_variant", "vlm_model_name", "action_feature_names",
         "relative_exclude_joints", "freeze_vision_encoder", "train_expert_only", "input_features", "tokenizer_name",
         "florence_config")  # fmt: skip


def published_sizes(monkeypatch, config):
    """The small π0 counts as the published one: LeRobot has no other."""
    if isinstance(config, Pi0Config | Pi0FastConfig):
        monkeypatch.setitem(pi0_config.GEMMA, "gemma_2b", config.prefix)
        monkeypatch.setitem(pi0_config.GEMMA, "gemma_300m", getattr(config, "expert", config.prefix))
        monkeypatch.setitem(pi0_config.VISION, "siglip_so400m", config.vision)
        monkeypatch.setattr(pi0_export, "VOCABULARY", config.vocabulary)


def answer(loaded, one):
    torch.manual_seed(0)
    with torch.no_grad():
        actions = loaded.policy.predict(loaded.processor.inputs([one]))
    return loaded.processor.outputs(actions, [one])[0].parts[0].data


def steps(folder, which):
    rows = json.loads((folder / f"policy_{which}.json").read_text())["steps"]
    return [(row["registry_name"], row.get("state_file")) for row in rows]


@pytest.mark.parametrize("name", THEIRS)
def test_the_files_are_lerobots(tmp_path, monkeypatch, name):
    theirs = lerobot_folders.write(tmp_path / "theirs", name)
    loaded = load(theirs, robot=ROBOT)
    published_sizes(monkeypatch, loaded.policy.config)
    ours = tmp_path / "ours"
    said = export(ours, loaded, "lerobot")
    assert bool(said) == (name in ("smolvla", "xvla"))  # whose tokenizers are not published ones
    first, second = (load_file(folder / "model.safetensors") for folder in (theirs, ours))
    assert second.keys() == first.keys()
    for key, value in first.items():
        assert key.endswith(UNREAD) or torch.equal(second[key], value), key
        assert key.endswith(UNREAD[2]) or second[key].shape == value.shape, key
    said, written = (json.loads((folder / "config.json").read_text()) for folder in (theirs, ours))
    assert written.keys() <= said.keys()
    assert list(written["input_features"]) == list(said["input_features"])  # images have the size that it looks at
    for part, row in said.get("florence_config", {}).items():
        row = row | ({"max_temporal_embeddings": 100} if part == "vision_config" else {})
        assert written["florence_config"][part].items() >= row.items()
    same = {key for key in said if not any(part in key for part in APART)}
    assert {key: written.get(key) for key in same} == {key: said[key] for key in same}
    for which in ("preprocessor", "postprocessor"):
        assert steps(ours, which) == steps(theirs, which)
        for file in theirs.glob(f"policy_{which}_*"):
            rows, copied = load_file(file), load_file(ours / file.name)
            assert copied and all(torch.equal(rows[key], value) for key, value in copied.items())
    _, sample = lerobot_folders.expected(name)
    np.testing.assert_allclose(answer(load(ours), sample), answer(loaded, sample), rtol=1e-6)


def narrow(normalisation):
    """As our own checkpoints have it, and so narrow for one joint that the way to avoid a division by zero shows."""
    rows = {name: np.array(values, np.float64) for name, values in normalisation.statistics.items()}
    rows["std"][1] = 1e-3
    for low, high in (("min", "max"), ("q01", "q99")):
        if high in rows:
            rows[high][1] = rows[low][1] + 1e-3
    return replace(normalisation, statistics=rows, style="openpi")


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in NOT_THERE])
def test_of_every_family(tmp_path, monkeypatch, family):
    """From our own layout, whose normalisation avoids a division by zero in another way."""
    loaded = load(real_families.make(tmp_path / "theirs", family), robot=ROBOT)
    published_sizes(monkeypatch, loaded.policy.config)
    processor = loaded.processor
    modes = ["delta"] * 5 + ["absolute"]
    rows = tuple(Dimension(name, mode=mode) for name, mode in zip(ROBOT.joint_names, modes, strict=True))
    processor = replace(
        processor, embodiment=replace(processor.embodiment, actions=rows),
        state=narrow(processor.state), actions=narrow(processor.actions),
    )
    save(tmp_path / "own", replace(loaded, processor=processor))
    assert vla_ros(["export", str(tmp_path / "own"), "--to", "lerobot", "--output", str(tmp_path / "out")]) == 0
    own, out = (load(tmp_path / name) for name in ("own", "out"))
    assert (own.layout, out.layout) == ("vla_ros", "lerobot")
    assert [d.mode for d in out.processor.embodiment.actions] == modes
    if family in ("act", "diffusion"):
        before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "out"))
        assert before.keys() == after.keys() and all(torch.equal(after[key], value) for key, value in before.items())
    one = real_families.sample(own)
    np.testing.assert_allclose(answer(out, one), answer(own, one), rtol=1e-5, atol=1e-5)
    values = np.linspace(-1, 1, 60).reshape(10, 6)
    for first, second in ((own.processor, out.processor), (out.processor, own.processor)):
        ours, theirs = (processor.state.normalise(values) for processor in (first, second))
        np.testing.assert_allclose(ours, theirs, rtol=3e-4, atol=1e-6)
        ours, theirs = (processor.actions.restore(values) for processor in (first, second))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    with pytest.raises(InputError, match="exists already, expected a new folder"):
        export(tmp_path / "out", own, "lerobot")


def test_florences_embedding_of_time_is_written_as_it_is_computed(tmp_path):
    from transformers.models.florence2.modeling_florence2 import Florence2VisionPositionalEmbeddingCosine1D as Embedding

    export(tmp_path / "out", load(lerobot_folders.write(tmp_path / "theirs", "xvla"), robot=ROBOT), "lerobot")
    written = load_file(tmp_path / "out/model.safetensors")
    expected = torch.stack(Embedding.get_sinusoid_embeddings(100, 48), dim=-1).flatten(1)
    torch.testing.assert_close(written[f"model.vlm.multi_modal_projector.visual_temporal_embed.{UNREAD[2]}"], expected)


@pytest.mark.parametrize("family", ["pi0", "pi0_fast", "smolvla", "act", "diffusion", "groot"])
def test_what_lerobot_has_not_is_named(tmp_path, family):
    """The small configurations read text through a tower of ours, or are of an older generation."""
    with pytest.raises(InputError, match=r"export: (prefix|vision|vocab|generation|it reads instructions).*LeRobot"):
        export(tmp_path / "out", families.fresh(family), "lerobot")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", NOT_THERE)
def test_a_family_that_lerobot_has_not_says_so(tmp_path, family):
    with pytest.raises(InputError, match=r"export: .* to 'lerobot', expected another family"):
        export(tmp_path / "out", families.fresh(family), "lerobot")


@pytest.mark.parametrize(("name", "field", "hub"), [
    ("xvla", "tokenizer_name", "facebook/bart-large"),
    ("pi0_fast", "action_tokenizer_name", "lerobot/fast-action-tokenizer"),
])  # fmt: skip
def test_published_tokenizers_are_named_as_lerobot_does(tmp_path, monkeypatch, name, field, hub):
    loaded = load(real_families.make(tmp_path / "theirs", name), robot=ROBOT)
    published_sizes(monkeypatch, loaded.policy.config)
    tokenizer = loaded.processor.tokenizer
    monkeypatch.setattr("vla_ros.policies.xvla.export.BART_WORDS", tokenizer.words)
    if name == "pi0_fast":
        actions = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(n): n for n in range(2048)}, unk_token="0"))
        assert not is_published(tokenizer.actions)
        assert is_published(published := ActionTokens(actions, FastSettings(10.0, -354)))
        tokenizer.actions = published
    assert export(tmp_path / "out", loaded, "lerobot") == ()
    steps = json.loads((tmp_path / "out/policy_preprocessor.json").read_text())["steps"]
    said = [json.loads((tmp_path / "out/config.json").read_text()), *(step["config"] for step in steps)]
    assert [row[field] for row in said if field in row] == [hub, hub]
    assert not (tmp_path / "out/tokenizer_config.json").exists()


def test_chunks_that_are_held_to_be_chunks_are_named(tmp_path, monkeypatch):
    folder = real_families.make(tmp_path / "theirs", "pi0_fast")
    loaded = load(folder, robot=ROBOT, overrides={"decoding": "actions"})
    published_sizes(monkeypatch, loaded.policy.config)
    with pytest.raises(InputError, match="export: decoding 'actions', LeRobot has 'free' alone; overrides.decoding"):
        export(tmp_path / "out", loaded, "lerobot")


def test_a_policy_of_no_domain_is_named(tmp_path):
    folder = lerobot_folders.write(tmp_path / "theirs", "xvla")
    file = folder / "policy_preprocessor.json"
    data = json.loads(file.read_text())
    data["steps"] = [step for step in data["steps"] if step["registry_name"] != "xvla_add_domain_id"]
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match="export: it does not contain the domain it was trained for; set overrides"):
        export(tmp_path / "out", load(folder), "lerobot")


def change(processor, **fields):
    action = replace(processor.embodiment.actions[2], **fields)
    actions = (*processor.embodiment.actions[:2], action, *processor.embodiment.actions[3:])
    return replace(processor, embodiment=replace(processor.embodiment, actions=actions))


@pytest.mark.parametrize(("fields", "message"), [
    ({"mode": "rate"}, r"action 2 \(elbow_flex\) is a difference to the row before, which LeRobot has no step for"),
    ({"mode": "delta", "scale": 2.0}, r"action 2 \(elbow_flex\) is a difference, but not to number 2 of the state"),
])  # fmt: skip
def test_actions_that_lerobot_has_not_are_named(tmp_path, fields, message):
    loaded = load(real_families.make(tmp_path / "theirs", "act"), robot=ROBOT)
    with pytest.raises(InputError, match=message):
        export(tmp_path / "out", replace(loaded, processor=change(loaded.processor, **fields)), "lerobot")
    with pytest.raises(InputError, match=r"ACT to 'openpi', expected one of \['lerobot'\]"):
        export(tmp_path / "out", loaded, "openpi")


def test_names_of_joints_that_are_parts_of_others(tmp_path):
    """LeRobot leaves absolute what has an excluded word anywhere in its name."""
    joints = ("joint_1", "joint_10", "joint_2", "joint_3", "joint_4", "joint_5")
    loaded = load(real_families.make(tmp_path / "theirs", "act"), robot=ROBOT)
    rows = tuple(Dimension(name, mode="absolute" if name == "joint_1" else "delta") for name in joints)
    embodiment = Embodiment(loaded.processor.embodiment.cameras, tuple(map(Dimension, joints)), rows, 0.1)
    export(tmp_path / "out", replace(loaded, processor=replace(loaded.processor, embodiment=embodiment)), "lerobot")
    assert load(tmp_path / "out").processor.embodiment == embodiment


@lerobot_python.needed
@pytest.mark.parametrize("name", [*THEIRS, "pi0_fast", "act", "diffusion", "groot"])
def test_lerobot_gives_our_actions(tmp_path, monkeypatch, name):
    if name == "act":
        theirs = lerobot_checkpoints.make(tmp_path / "theirs", name)
    elif name == "diffusion":  # DDPM draws noise at every step
        theirs = lerobot_checkpoints.make(tmp_path / "theirs", name, noise_scheduler_type="DDIM")
    elif name in ("pi0_fast", "groot"):  # whose folders of LeRobot have no answers
        theirs = real_families.make(tmp_path / "theirs", name)
    else:
        theirs = lerobot_folders.write(tmp_path / "theirs", name)
    loaded = load(theirs, robot=ROBOT)
    published_sizes(monkeypatch, loaded.policy.config)
    export(tmp_path / "ours", loaded, "lerobot")
    one = real_families.sample(loaded, seed=3)
    one = Sample(one.images, one.state, lerobot_folders.INSTRUCTION)
    # Ten steps of denoising add up.
    lerobot_python.check_actions(tmp_path / "ours", loaded, one, 5e-5 if name == "diffusion" else 1e-5)
