"""LoRA adapters over their base. The folders of `test/data/lerobot_061` were written by LeRobot 0.6.1 and PEFT."""

import json
import shutil
from contextlib import suppress

import lerobot_folders
import pytest
import real_families
import torch
from golden_vectors import assert_close
from real_families import LEROBOT, ROBOT
from safetensors.torch import load_file, save_file

from vla_ros.core.errors import InputError
from vla_ros.policies import describe, load
from vla_ros.policies.formats.adapter import PREFIX, open_tensors
from vla_ros.policies.registry import REFUSED


@pytest.fixture
def base(tmp_path):
    return lerobot_folders.write(tmp_path / "smolvla", "smolvla")


def lerobots_adapter(base, name):
    """PEFT's two files and LeRobot's config.json; the processors are the base's."""
    folder = shutil.copytree(lerobot_folders.FOLDER / name, base.parent / name)
    for file in [*base.glob("policy_*"), base / "vlm"]:
        (shutil.copytree if file.is_dir() else shutil.copy)(file, folder / file.name)
    return folder


@pytest.mark.parametrize("name", ["smolvla_lora", "smolvla_rslora"])
def test_the_actions_are_lerobots(base, name):
    theirs, sample = lerobot_folders.expected("smolvla")
    wanted = load_file(lerobot_folders.FOLDER / name / "expected.safetensors")["actions"]
    loaded = load(lerobots_adapter(base, name), robot=ROBOT, base=base)
    answer = loaded.policy.predict(loaded.processor.inputs([sample]), {"noise": theirs["noise"]})
    [part] = loaded.processor.outputs(answer, [sample])[0].parts
    assert_close(torch.from_numpy(part.data)[None].float(), wanted)
    assert (wanted - theirs["actions"]).abs().max() > 0.1  # the adapter does something


def test_the_adapter_is_named_before_what_else_is_missing(base):
    folder = lerobots_adapter(base, "smolvla_lora")
    shutil.rmtree(folder / "vlm")
    for function in (load, describe):
        with pytest.raises(InputError, match="a PEFT adapter of 'lerobot/smolvla_base', no whole policy; name"):
            function(folder)


def test_a_base_of_another_family_is_refused_and_told_alike(base):
    folder = lerobots_adapter(base, "smolvla_lora")
    other = real_families.make(base.parent / "act", "act")
    with pytest.raises(InputError, match="is not among the tensors of .*act; expected the base") as error:
        load(folder, base=other)
    assert describe(folder, base=other)[REFUSED] == str(error.value)


def test_a_policy_file_names_the_base(base):
    folder = lerobots_adapter(base, "smolvla_lora")
    path = base.parent / "policy.yaml"
    path.write_text(f"checkpoint: {folder.name}\nbase: {base.name}\nstep_dt: 0.1\n")
    assert describe(path)["family"] == "smolvla"
    assert load(path, robot=ROBOT).processor.step_dt == 0.1


def test_without_its_base_it_is_named(base):
    folder = lerobots_adapter(base, "smolvla_lora")
    for function in (load, describe):
        with pytest.raises(InputError, match="a PEFT adapter of 'lerobot/smolvla_base', no whole policy; name"):
            function(folder)
    with pytest.raises(InputError, match="it is not an adapter; remove it"):
        load(base, base=base)


def made(folder, family, rank=2):
    """A base of a real family and an adapter over its largest matrices, and what the merged matrices are."""
    base = real_families.make(folder / "base", family)
    adapter = shutil.copytree(base, folder / "adapter", ignore=shutil.ignore_patterns("model*.safetensors*"))
    tensors = {key: value for file in base.glob("model*.safetensors") for key, value in load_file(file).items()}
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


@pytest.mark.parametrize("family", (*LEROBOT, "go1", "openvla"))
def test_of_every_family(tmp_path, family):
    base, adapter, merged = made(tmp_path, family)
    found = load(adapter, robot=ROBOT, base=base).policy.state_dict()
    for file in base.glob("model*.safetensors*"):
        file.unlink()
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


def twice(key):
    """The factors of the second layer for the first one, by the name that openpi gives it."""
    return key.replace("layers.1.", "layers.0.").replace("model.model.", "model.", 1) if "layers.1." in key else key


@pytest.mark.parametrize(("rename", "message"), [
    (lambda key: key.replace(".lora_B.", ".lora_embedding_B."), "tensor .*lora_embedding_B.*, expected base_model"),
    (lambda key: "x" + key, "tensor 'xbase_model.*, expected base_model"),
    (twice, "several of its tensors change one of"),
    (lambda key: key if "lora_A" in key else None, "only lora_A, expected lora_A and lora_B"),
    (lambda key: key.replace("self_attn", "other_attn"), "is not among the tensors of .*base; expected the base it"),
])  # fmt: skip
def test_tensors_that_fit_no_base(tmp_path, rename, message):
    base, adapter, _ = made(tmp_path, "pi05")
    file = adapter / "adapter_model.safetensors"
    save_file({rename(key): value for key, value in load_file(file).items() if rename(key)}, file)
    with pytest.raises(InputError, match=message):
        load(adapter, robot=ROBOT, base=base)


def test_fields_of_any_kind_are_read_or_refused(base):
    folder = lerobots_adapter(base, "smolvla_rslora")
    right = (folder / "adapter_config.json").read_text()
    for field in json.loads(right):
        for value in (None, [], {}, [1], {"x": []}, "x", "", -1, 0, 1.5, True):
            change(folder, **{field: value})
            with suppress(InputError):
                open_tensors(folder, base)
            (folder / "adapter_config.json").write_text(right)
