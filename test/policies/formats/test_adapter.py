"""LoRA adapters over their base. The folders of `test/data/lerobot` were written by LeRobot 0.6.1 and PEFT."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import real_families
import torch
from real_families import FAMILIES, ROBOT
from safetensors.torch import load_file, save_file

from vla_ros.core.errors import InputError
from vla_ros.policies import describe, load
from vla_ros.policies.formats.adapter import PREFIX

DATA = Path(__file__).parents[2] / "data/lerobot"
BASE = DATA / "smolvla"


def lerobots_adapter(tmp_path, name):
    """PEFT's two files and LeRobot's config.json; the processors are the base's."""
    folder = shutil.copytree(DATA / name, tmp_path / name)
    for file in [*BASE.glob("policy_*"), BASE / "vlm"]:
        (shutil.copytree if file.is_dir() else shutil.copy)(file, folder / file.name)
    return folder


def actions(loaded, expected):
    """Of the batch that LeRobot's preprocessor made, in the dataset's units."""
    batch = {
        "images": torch.stack([expected[f"0/observation.images.{name}"] for name in ("front", "wrist")])[None],
        "image_mask": torch.ones(1, 2, dtype=torch.bool), "tokens": expected["batch/observation.language.tokens"],
        "token_mask": expected["batch/observation.language.attention_mask"],
        "state": torch.nn.functional.pad(expected["batch/observation.state"], (0, 26)),
    }  # fmt: skip
    # 48x64 pixels of 64x64: padded at the top, nothing is scaled
    batch["images"] = torch.nn.functional.pad(batch["images"].permute(0, 1, 4, 2, 3), (0, 0, 16, 0))
    answer = loaded.policy.predict(batch, {"noise": expected["noise"]})[..., :6]
    return loaded.processor.actions.restore(answer.double().numpy())


@pytest.mark.parametrize("name", ["smolvla", "smolvla_lora", "smolvla_rslora"])
def test_the_actions_are_lerobots(tmp_path, name):
    folder, base = (BASE, None) if name == "smolvla" else (lerobots_adapter(tmp_path, name), BASE)
    wanted = load_file(BASE / "expected.safetensors") | load_file(DATA / name / "expected.safetensors")
    found = actions(load(folder, robot=ROBOT, base=base), wanted)
    scale = wanted["actions"].abs().max().item()
    assert np.abs(found - wanted["actions"].numpy()).max() < 1e-5 * scale


def test_a_policy_file_names_the_base(tmp_path):
    folder = lerobots_adapter(tmp_path, "smolvla_lora")
    path = tmp_path / "policy.yaml"
    path.write_text(f"checkpoint: {folder.name}\nbase: {BASE}\nstep_dt: 0.1\n")
    assert describe(path)["family"] == "smolvla"
    assert load(path, robot=ROBOT).processor.step_dt == 0.1


def test_without_its_base_it_is_named(tmp_path):
    folder = lerobots_adapter(tmp_path, "smolvla_lora")
    for function in (load, describe):
        with pytest.raises(InputError, match="a PEFT adapter of 'lerobot/smolvla_base', no whole policy; name"):
            function(folder)
    with pytest.raises(InputError, match="it is no adapter; leave it out"):
        load(BASE, base=BASE)


def made(folder, family, rank=2):
    """A base of a real family and an adapter over its largest matrices, and what the merged matrices are."""
    base = real_families.make(folder / "base", family)
    adapter = shutil.copytree(base, folder / "adapter", ignore=shutil.ignore_patterns("model.safetensors"))
    tensors = load_file(base / "model.safetensors")
    torch.manual_seed(0)
    file, merged = {}, {}
    for key in sorted(key for key, value in tensors.items() if value.ndim == 2 and key.endswith(".weight"))[::3]:
        a, b = torch.randn(rank, tensors[key].shape[1]), torch.randn(len(tensors[key]), rank)
        stem = f"{PREFIX}{key.removesuffix('.weight')}"
        file |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
        merged[key] = tensors[key] + 3.0 / rank * (b @ a)
    save_file(file, adapter / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": 3, "base_model_name_or_path": "someone/base"}
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    save_file(tensors | merged, folder / "merged.safetensors")
    return base, adapter, folder / "merged.safetensors"


@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_family(tmp_path, family):
    base, adapter, merged = made(tmp_path, family)
    found = load(adapter, robot=ROBOT, base=base).policy.state_dict()
    shutil.copy(merged, base / "model.safetensors")
    for key, value in load(base, robot=ROBOT).policy.state_dict().items():
        torch.testing.assert_close(found[key], value, msg=key)


def change(folder, **fields):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(("fields", "message"), [
    ({"peft_type": "LOHA"}, "peft_type 'LOHA', expected LORA; merge it into 'someone/base' with peft"),
    ({"use_dora": True}, "use_dora True, expected False; merge it"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa', expected True; merge it"),
    ({"some_new_config": {"x": 1}}, "some_new_config {'x': 1}, expected False"),
    ({"r": 3}, "r 3 of .*, whose tensors have 2; expected the same"),
    ({"alpha_pattern": {"(": 2}}, r"pattern '\(', expected a regular expression"),
    ({"lora_alpha": "much"}, "lora_alpha: 'much', expected a number"),
])  # fmt: skip
def test_what_is_no_plain_lora(tmp_path, fields, message):
    base, adapter, _ = made(tmp_path, "pi05")
    change(adapter, **fields)
    with pytest.raises(InputError, match=message):
        load(adapter, robot=ROBOT, base=base)


@pytest.mark.parametrize(("rename", "message"), [
    (lambda key: key.replace(".lora_B.", ".lora_embedding_B."), "tensor .*lora_embedding_B.*, expected base_model"),
    (lambda key: "x" + key, "tensor 'xbase_model.*, expected base_model"),
    (lambda key: key if "lora_A" in key else None, "only lora_A, expected lora_A and lora_B"),
    (lambda key: key.replace("self_attn", "other_attn"), "is not among the tensors of .*base; expected the base it"),
])  # fmt: skip
def test_tensors_that_fit_no_base(tmp_path, rename, message):
    base, adapter, _ = made(tmp_path, "pi05")
    file = adapter / "adapter_model.safetensors"
    save_file({rename(key): value for key, value in load_file(file).items() if rename(key)}, file)
    with pytest.raises(InputError, match=message):
        load(adapter, robot=ROBOT, base=base)
