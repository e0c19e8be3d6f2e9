"""Policies composed of parts: what is trained, what is remembered, what is read, and what a checkpoint says."""

import re
from dataclasses import replace
from pathlib import Path

import families
import numpy as np
import pytest
import torch
import yaml
from torch.overrides import TorchFunctionMode
from training_data import write_dataset

from vla_ros.cli.main import main as vla_ros
from vla_ros.core.errors import InputError
from vla_ros.policies import describe, load, registry, save
from vla_ros.policies.modular.config import ModularConfig
from vla_ros.policies.modular.model import remembering
from vla_ros.runtime.session import PolicySession
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer

LANGUAGE = {"kind": "llama", "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
TOWER = {"kind": "siglip", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
         "patch_size": 12, "image_size": 24}
SMALL = {"vision": TOWER, "language": LANGUAGE, "head": {"kind": "mlp", "hidden": 16}, "horizon": 4, "text_length": 16}


def build(data=None, **changes):
    torch.manual_seed(0)
    loaded = registry.build("modular", SMALL | changes, data or families.data())
    loaded.policy.eval()
    return loaded


def batch_of(loaded, texts=families.INSTRUCTIONS):
    return loaded.processor.inputs([families.sample(loaded.processor, k, text) for k, text in enumerate(texts)])


def test_a_frozen_part_is_not_trained_and_what_is_said_of_it_is_kept(tmp_path, capsys):
    loaded = build(vision=TOWER | {"frozen": True}, language=LANGUAGE | {"frozen": True})
    policy = loaded.policy.train()
    assert not policy.vision[0].training and not policy.language.training and policy.head.training
    assert {name.split(".")[0] for name, p in policy.named_parameters() if p.requires_grad} == {
        "projectors", "state", "head"
    }
    save(tmp_path / "x", loaded)
    assert not any(p.requires_grad for p in load(tmp_path / "x").policy.language.parameters())
    rows = describe(tmp_path / "x")
    assert rows["vision"].endswith("parameters, frozen") and rows["head"].endswith("parameters, trained")
    assert rows["sequence"] == "8 of images + 1 of the joints + 16 of the instruction = 25 tokens at most"
    assert vla_ros(["info", str(tmp_path / "x")]) == 0
    assert "siglip: 2 x 4 tokens of 32" in " ".join(capsys.readouterr().out.split())


def test_lora_beside_a_head_in_full_with_less_memory(tmp_path):
    data = write_dataset(tmp_path / "data", episodes=4)
    settings = {
        "dataset": str(data), "output": str(tmp_path / "run"), "family": "modular", "steps": 3, "batch_size": 4,
        "policy": SMALL | {"language": LANGUAGE | {"frozen": True}}, "precision": "bfloat16", "save_every": 3,
        "gradient_checkpointing": r"language\.model\.layers\.\d+", "held_out": 0.25, "evaluate_samples": 4,
        "lora": {"rank": 2, "target": r"language\.model\.layers\.\d+\.self_attn\.(q|v)_proj",
                 "full": ["^head", "^projectors"]},
    }  # fmt: skip
    trainer = Trainer(TrainConfig.from_dict(settings))
    trained = {name for name, p in trainer.policy.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"language", "head", "projectors"}
    assert all("lora" in name for name in trained if name.startswith("language"))
    before = {name: p.detach().clone() for name, p in trainer.policy.named_parameters()}
    trainer.run()
    moved = {name for name, p in trainer.policy.named_parameters() if not torch.equal(p, before[name])}
    assert moved == trained
    served = load(tmp_path / "run/checkpoints/last")
    assert served.policy.language.model.layers[0].self_attn.q_proj.weight.shape == (32, 32)
    settings |= {"output": str(tmp_path / "other"), "lora": settings["lora"] | {"full": ["^language.*norm"]}}
    with pytest.raises(InputError, match="lora.full '\\^language.\\*norm' matches no trained parameter"):  # frozen
        Trainer(TrainConfig.from_dict(settings))


@pytest.mark.parametrize("head", ["lstm", "gpt"])
def test_a_robot_is_answered_as_windows_are_in_training(head):
    with pytest.raises(InputError, match=f"head '{head}' answers within \\[-1, 1\\], .* by mean_std"):
        build(head=head)
    loaded = build(head={"kind": head, "hidden": 16, "window": 3}, normalisation="quantiles")
    policy, processor = loaded.policy, loaded.processor
    assert policy.traits.paced and processor.steps(True)["front"] == (-2, -1, 0) and processor.first_action_step == -2
    samples = [families.sample(processor, k, stamp_ns=k * 100_000_000) for k in range(5)]
    session = PolicySession(loaded)
    answers = [session.infer([one])[0].answer for one in samples]
    with torch.no_grad():
        steps = [processor.inputs([one]) for one in samples[2:]]
        window = steps[0] | {name: torch.cat([one[name] for one in steps], dim=1) for name in ("images", "state")}
        hidden = policy.head.read(policy.features(window).summary[None])
        torch.testing.assert_close(policy.head.decode(hidden[:, -1])[0], answers[-1], rtol=1e-4, atol=1e-5)
    rows = np.zeros((6, 6))
    wide = replace(samples[0], images={n: np.repeat(v, 3, 0) for n, v in samples[0].images.items()},
                   state=np.repeat(samples[0].state, 3, 0), actions=rows, action_is_pad=np.arange(6) > 3)
    losses = policy.loss(processor.inputs([wide]))
    other = replace(wide, actions=np.where(np.arange(6)[:, None] > 3, 9.0, rows))
    assert losses["loss"] > 0 and losses["loss"] == policy.loss(processor.inputs([other]))["loss"]  # padding


@pytest.mark.parametrize("kind", ["transformer", "lstm", "working"])
def test_a_head_that_remembers_nothing_reads_what_is_remembered(kind):
    size = {"hidden": 16, "layers": 1} if kind != "working" else {}
    head = {"kind": "flow", "hidden": 16, "layers": 1, "heads": 2, "mlp": 16, "num_steps": 2}
    loaded = build(temporal={"kind": kind, "window": 3, **size}, head=head if kind == "transformer" else "mlp")
    policy, processor = loaded.policy, loaded.processor
    samples = [families.sample(processor, k, stamp_ns=k * 100_000_000) for k in range(5)]
    noise = {name: torch.randn(shape) for name, shape in policy.draws(1).items()}
    session, other = PolicySession(loaded), PolicySession(loaded)
    answers = [session.infer([one], draws=noise)[0].answer for one in samples]
    batches = [processor.inputs([one]) for one in samples[2:]]
    window = batches[0] | {name: torch.cat([one[name] for one in batches], dim=1) for name in ("images", "state")}
    with torch.no_grad():
        features = policy.features(window)
        read = policy.temporal(features.summary[None])[0]
        whole = policy.head.act(remembering(features, read), {n: v.expand(3, -1, -1) for n, v in noise.items()})
        torch.testing.assert_close(whole[-1], answers[-1], rtol=1e-4, atol=1e-5)
        changed = features.summary[None].clone()
        changed[:, -1] += 1
        torch.testing.assert_close(policy.temporal(changed)[0, :-1], read[:-1])  # the future
    assert not torch.allclose(other.infer(samples[4:], draws=noise)[0].answer, answers[-1], atol=1e-6)
    wide = replace(samples[0], images={n: np.repeat(v, 3, 0) for n, v in samples[0].images.items()},
                   state=np.repeat(samples[0].state, 3, 0), actions=np.zeros((6, 6)), action_is_pad=np.arange(6) > 3)
    policy.loss(processor.inputs([wide]))["loss"].backward()
    assert all(p.grad is not None for p in policy.temporal.parameters())


def test_padding_of_an_instruction_changes_no_answer():
    loaded = build(head="mlp")
    texts = ("touch the red cube", "go to the red cube and touch it now please")
    both, alone = batch_of(loaded, texts), batch_of(loaded, texts[:1])
    assert both["tokens"].shape[1] > alone["tokens"].shape[1]
    torch.testing.assert_close(loaded.policy.predict(both)[:1], loaded.policy.predict(alone), rtol=1e-4, atol=1e-5)
    other = batch_of(loaded, ("pick the red cube", texts[1]))
    assert not torch.allclose(loaded.policy.predict(other)[0], loaded.policy.predict(both)[0], atol=1e-5)


def test_pretrained_folders_bring_sizes_weights_and_tokenizer(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

    from vla_ros.policies.tokenizer import word_tokenizer

    words = word_tokenizer(["touch the red cube", "and much besides"])
    torch.manual_seed(1)
    text = LlamaForCausalLM(LlamaConfig(
        vocab_size=words.size + 5, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        num_key_value_heads=2, pad_token_id=None, bos_token_id=None, eos_token_id=None))
    text.save_pretrained(tmp_path / "text")
    words.save(tmp_path / "text")
    row = {name: value for name, value in TOWER.items() if name != "kind"}
    SiglipVisionModel(SiglipVisionConfig(**row)).save_pretrained(tmp_path / "tower")
    loaded = build(vision={"kind": "siglip", "folder": str(tmp_path / "tower")},
                   language={"kind": "llama", "folder": str(tmp_path / "text"), "frozen": True})
    assert torch.equal(loaded.policy.language.model.embed_tokens.weight, text.model.embed_tokens.weight)
    assert loaded.processor.tokenizer.encode("besides") == words.encode("besides")
    save(tmp_path / "x", loaded)
    for path in (tmp_path / "text", tmp_path / "tower"):  # a checkpoint holds all that it needs
        path.rename(path.with_name(f"{path.name}_away"))
    served = load(tmp_path / "x")
    batch = batch_of(loaded)
    assert torch.equal(served.policy.predict(batch), loaded.policy.predict(batch))


def test_sensors_are_read_as_they_are_measured():
    data = replace(families.data(), streams={"lidar": (12, 3), "imu": (20, 6), "depth": (24, 24, 1)})
    loaded = build(data, fusion={"kind": "hierarchical", "late": ["imu"], "heads": 4}, encoders={
        "lidar": {"kind": "points", "queries": 4}, "imu": "imu", "depth": {"kind": "depth", "scale": 0.001}})
    assert loaded.processor.streams == ("lidar", "imu", "depth") and loaded.policy.prefix == 8 + 4 + 8 + 16 + 1
    rng = np.random.default_rng(0)
    values = {
        "lidar": rng.normal(size=(1, 12, 3)), "lidar_count": np.array([5]), "imu": rng.normal(size=(1, 20, 6)),
        "depth": rng.integers(0, 4000, (1, 24, 24, 1), np.uint16),
    }  # fmt: skip
    one = replace(families.sample(loaded.processor), values=values)

    def answer(**changes):
        return loaded.policy.predict(loaded.processor.inputs([replace(one, values=values | changes)]))

    behind = values["lidar"].copy()
    behind[:, 5:] = 7
    torch.testing.assert_close(answer(lidar=behind), answer())
    for name, value in (("lidar", behind[:, ::-1]), ("imu", values["imu"] + 1), ("depth", values["depth"] // 2)):
        assert not torch.allclose(answer(**{name: value}), answer(), atol=1e-6), name
    with pytest.raises(InputError, match="stream 'imu': a number that is not finite"):
        answer(imu=np.full((1, 20, 6), np.nan))
    with pytest.raises(InputError, match="stream 'lidar': .*13.* of its rows are said to be real, expected 0 to 12"):
        answer(lidar_count=np.array([13]))


def test_depth_is_read_beside_the_image_of_its_camera():
    data = replace(families.data(), streams={"depth": (24, 24, 1), "lidar": (12, 3)})
    encoders = {"depth": {"kind": "rgbd", "camera": "front"}, "lidar": {"kind": "bev", "cells": [8, 8, 2]}}
    loaded = build(data, encoders=encoders)
    values = {"depth": np.full((1, 24, 24, 1), 7, np.uint16), "lidar": np.ones((1, 12, 3))}
    one = replace(families.sample(loaded.processor), values=values)
    batch, (front, wrist) = loaded.processor.inputs([one]), [0, 1]
    text, there = torch.zeros(1, 1, 32), torch.ones(1, 1, dtype=torch.bool)

    def read(camera: int | None = None) -> torch.Tensor:
        images = batch["images"].clone()
        if camera is not None:
            images[:, :, camera] = 255 - images[:, :, camera]
        with torch.no_grad():
            return loaded.policy.read(batch | {"images": images}, text, there)[1]

    assert loaded.processor.cameras == ("front", "wrist") and torch.equal(read(wrist), read())
    assert not torch.allclose(read(front), read(), atol=1e-5)
    rows = loaded.processor.inputs([replace(one, actions=np.zeros((4, 6)))] * 2)
    loaded.policy.train().loss(rows)["loss"].backward()
    assert all(p.grad is not None for p in loaded.policy.encoders.parameters())
    with pytest.raises(InputError, match=r"encoder 'rgbd' of stream 'depth': camera 'top', expected one of .*'front'"):
        build(data, encoders={**encoders, "depth": {"kind": "rgbd", "camera": "top"}})


def test_the_file_of_the_page_is_a_policy():
    """Without its folders, on shapes alone."""
    page = (Path(__file__).parents[3] / "docs/modular.md").read_text()
    row = yaml.safe_load(re.search(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1])
    config = TrainConfig.from_dict(row | {"dataset": "d", "output": "o"})
    values = dict(config.policy)
    for part in (values["vision"][0], values["language"]):
        part.pop("folder")
    sizes = {"action_dim": 6, "state_dim": 6, "cameras": ["front", "wrist"],
             "shapes": {"front_depth": [96, 128, 1], "lidar": [512, 3], "imu": [50, 6]}}
    policy = ModularConfig.from_dict(values | sizes, "policy").summary_network
    assert policy.prefix == 2 * (64 + 17) + 16 + 32 + 8 + 1
    linear = [name for name, module in policy.named_modules() if isinstance(module, torch.nn.Linear)]
    assert any(re.fullmatch(config.lora.target, name) for name in linear)
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert all(any(re.search(pattern, name) for name in trained) for pattern in config.lora.full)
    assert any(re.fullmatch(config.gradient_checkpointing, name) for name, _ in policy.named_modules())


def test_the_page_s_file_of_many_sensors_is_a_policy():
    page = (Path(__file__).parents[3] / "docs/modular.md").read_text()
    text = next(block for block in re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S) if "\npath:" in block)
    config = TrainConfig.from_dict(yaml.safe_load(text) | {"dataset": "d", "output": "o"})
    values = dict(config.policy)
    for part in (values["vision"], values["language"]):
        part.pop("folder")
        part["num_hidden_layers"] = 1
    shapes = {"lidar": [4096, 4], "front_lidar": [2048, 3], "radar": [64, 5], "front_depth": [96, 128, 1],
              "imu": [50, 6]}  # fmt: skip
    sizes = {"action_dim": 9, "state_dim": 9, "cameras": ["front", "left", "right", "back"], "shapes": shapes}
    policy = ModularConfig.from_dict(values | sizes, "policy").summary_network
    assert policy.prefix == 4 * 16 + 16 + 32 + 16 + 16 + 8 + 1 and config.path.keys() == {"x", "y", "yaw"}


class NothingFromTheHost(TorchFunctionMode):
    """A tensor of Python's numbers is a copy from the host, which CUDA refuses while a graph is recorded."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert getattr(function, "__name__", "") not in ("tensor", "as_tensor", "new_tensor"), function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("head", ["flow", "diffusion", "transformer"])
def test_the_stages_make_no_tensor_on_the_host(head):
    small = {"flow": {"heads": 2, "mlp": 16, "num_steps": 2}, "diffusion": {"num_steps": 2},
             "transformer": {"heads": 2, "mlp": 16}}  # fmt: skip
    loaded = build(head={"kind": head, "hidden": 16, "layers": 1, **small[head]})
    policy, batch = loaded.policy, batch_of(loaded)
    draws = {name: torch.randn(shape) for name, shape in policy.draws(len(batch["images"])).items()}
    with torch.no_grad():
        fixed = policy.prepare()
        with NothingFromTheHost():
            policy.act(policy.encode(batch, None, draws), draws, fixed)


@pytest.mark.parametrize("name", ["images", "values"])  # the cameras' own tokens, and what torch's mapping has
def test_a_stream_of_a_name_that_is_taken_is_refused(name):
    values = SMALL | {"action_dim": 6, "state_dim": 6, "cameras": ["front"], "encoders": {name: "imu"},
                      "shapes": {name: [20, 6]}, "language": LANGUAGE | {"vocabulary": 9}}
    with pytest.raises(InputError, match=f"stream '{name}', a name that the policy uses for something else"):
        ModularConfig.from_dict(values, "policy")


@pytest.mark.parametrize("changes, said", [
    ({"vision": []}, "0 vision towers; expected one or more"),
    ({"projector": ["mlp", "mlp"]}, "1 vision towers, 2 projectors"),
    ({"vison": "siglip"}, "policy.vison: unknown field"),
    ({"head": {"kind": "flow", "heads": 3}}, "policy.head: 3 heads of attention"),
    ({"projector": {"kind": "attention", "heads": 5}}, "projector 'attention': 5 heads of attention, expected a number "
                                                       "that divides the width 32"),
    ({"vision": [TOWER, TOWER | {"image_size": 48}]}, "sees images of 24 pixels, vision tower 'siglip' of 48"),
    ({"language": "gpt-5"}, "policy.language: language model 'gpt-5', expected one of .*'qwen2-1.5b'"),
    ({"temporal": "lstm", "head": "gpt"}, "temporal part 'lstm', head 'gpt' of a window of 8; expected one"),
    ({"encoders": ["imu"]}, "policy.encoders: .*expected a mapping"),
    ({"encoders": {"lidar": "numbers"}}, "policy.encoders.lidar: encoder 'numbers' reads no number of rows"),
    ({"fusion": {"kind": "hierarchical", "heads": 4, "late": ["gyro"]}}, "late \\['gyro'\\], expected some of"),
    ({"language": LANGUAGE | {"vocabulary": 3}}, "tokenizer of .* tokens, the policy has 3 embeddings"),
    ({"vision": {"kind": "resnet", "channels": 7, "image_size": 24}},
     "policy: vision tower 'resnet' cannot be made as .*'channels': 7.*: ValueError: num_channels"),
])  # fmt: skip
def test_a_composition_that_cannot_be_is_refused(changes, said):
    data = replace(families.data(), streams={"lidar": (12, 3), "lidar_count": (1,)})
    with pytest.raises(InputError, match=said):
        build(data, **changes)
