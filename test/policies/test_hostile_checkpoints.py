"""Sizes that no machine holds, and weights that are none: refused before memory is taken."""

import json
import os
import pickle
import struct
import types
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import families
import lerobot_checkpoints
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vla_ros.core.errors import InputError
from vla_ros.core.records import value_of
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies import registry
from vla_ros.policies.act.config import ACTConfig
from vla_ros.policies.diffusion.config import DiffusionConfig
from vla_ros.policies.go1.config import GO1Config
from vla_ros.policies.groot.config import GrootConfig
from vla_ros.policies.openvla.config import OpenVLAConfig
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0_fast.config import Pi0FastConfig
from vla_ros.policies.pi0_fast.tokens import FastSettings
from vla_ros.policies.robovlms.config import BACKBONES, RoboVLMConfig
from vla_ros.policies.smolvla.config import SmolVLAConfig
from vla_ros.policies.tokenizer import load_tokenizer
from vla_ros.policies.xvla.config import XvlaConfig

CONFIGS = (
    ACTConfig, DiffusionConfig, GO1Config, GrootConfig, OpenVLAConfig, Pi0Config, Pi0FastConfig, FastSettings,
    SmolVLAConfig, XvlaConfig, SiglipSize, KeypointStemSize, RoboVLMConfig, *(b.Size for b in BACKBONES.values()),
)  # fmt: skip


def sizes(kind: type, name: str) -> list[tuple[str, Any]]:
    """(path, type) of every integer of a configuration, and of what it contains."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        return [found for field in fields(kind) for found in sizes(hints[field.name], f"{name}.{field.name}")]
    if origin is Annotated:
        return [(name, kind)] if inner[0] is int else sizes(inner[0], name)
    if origin in (tuple, Union, types.UnionType):
        return [found for one in inner if one is not Ellipsis for found in sizes(one, name)]
    return [(name, kind)] if kind is int else []


SIZES = [found for config in CONFIGS for found in sizes(config, config.__name__)]


def test_there_are_sizes_of_every_family():
    assert len(SIZES) > 60


@pytest.mark.parametrize(("name", "kind"), SIZES)
def test_no_size_is_unbounded(name, kind):
    for value in (10**9, -(10**9)):
        with pytest.raises(InputError, match=rf"^{name}: {value}, expected "):
            value_of(kind, value, name)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "act"
    registry.save(path, families.fresh("act"))
    return path


def refused(checkpoint, weights: bytes | None, words: str) -> None:
    file = checkpoint / "model.safetensors"
    right = file.read_bytes()
    try:
        file.unlink()
        os.mkfifo(file) if weights is None else file.write_bytes(weights)
        with pytest.raises(InputError, match=words) as error:
            registry.load(checkpoint)
        assert "\n" not in str(error.value)
    finally:
        file.unlink()
        file.write_bytes(right)


def header(content: Any, data: bytes = b"\0" * 4) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(("weights", "words"), [
    (None, "not a regular file"),
    (b"", "begins with nothing"),
    (pickle.dumps({"a": 1}), "begins with 80"),
    (struct.pack("<Q", 2**63) + b"{}", "expected the length and the header"),
    (struct.pack("<Q", 33 << 20) + b"{" + b" " * (34 << 20), "expected the length and the header"),
    (header({"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 4]}}), "cannot be read"),
    (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}), "cannot be read"),
    (header({"a" * 600: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), "a name too long"),
    (header({"a[b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), "1 extra: a"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_no_safetensors_file(checkpoint, weights, words):
    refused(checkpoint, weights, words)


def test_integers_are_no_weights(checkpoint, tmp_path):
    tensors = load_file(checkpoint / "model.safetensors")
    save_file({key: value.astype(np.int8) for key, value in tensors.items()}, tmp_path / "x")
    refused(checkpoint, (tmp_path / "x").read_bytes(), "is I8, expected one of .*F32")


def test_an_index_names_shards_of_its_own_folder(tmp_path, checkpoint):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").unlink()
    said = {"weight_map": {"a": f"../{checkpoint.name}/model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match="weight_map: '../act/model.safetensors', expected a path inside"):
        registry.load(tmp_path)


@pytest.mark.parametrize("data", [b"", b"x" * 100])
def test_what_is_no_tokenizer(tmp_path, data):
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(InputError, match="not a SentencePiece model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("change", "words"), [
    (lambda said: said["model"].update(unk_token="<x>"), "not a tokenizer.json that can be used: .*UNK"),
    (lambda said: said["model"]["vocab"].update(x=10**9), "11 tokens with ids up to 1000000000, expected few gaps"),
    (lambda said: said.update(post_processor={
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}], "pair": [],
        "special_tokens": {},
    }), "not a tokenizer.json that can be used"),
])  # fmt: skip
def test_what_the_tokenizers_library_fails_on(tmp_path, change, words):
    lerobot_checkpoints.write_smolvlm(tmp_path)
    said = json.loads((tmp_path / "tokenizer.json").read_text())
    said["model"]["vocab"].pop("\n")
    change(said)
    (tmp_path / "tokenizer.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match=words):
        tokenizer = load_tokenizer(tmp_path)
        tokenizer.encode("nobody")
        tokenizer.prompts(["touch the red cube"], 5)


@pytest.mark.parametrize(("values", "words"), [
    ([1e308] * 6, "expected a list of finite numbers, none beyond 1e"), ([-1.0] * 6, "expected deviations of zero"),
    ([[1.0]] * 6, "expected a number"), ("x", "expected a list"),
])  # fmt: skip
def test_statistics_that_would_move_the_robot_wrongly(checkpoint, values, words):
    file = checkpoint / "statistics.json"
    right = file.read_text()
    said = json.loads(right)
    said["action"]["std"] = values
    try:
        file.write_text(json.dumps(said))
        with pytest.raises(InputError, match=words):
            registry.load(checkpoint)
    finally:
        file.write_text(right)


@pytest.mark.parametrize(("change", "words"), [
    (lambda said: said.pop("front"), "mean of the image 'front': 0 numbers, expected 3"),
    (lambda said: said["front"]["std"].pop(), "std of the image 'front': 2 numbers, expected 3"),
])  # fmt: skip
def test_statistics_of_images(tmp_path, change, words):
    registry.save(tmp_path / "c", families.fresh("diffusion"))
    said = json.loads((tmp_path / "c/statistics.json").read_text())
    change(said)
    (tmp_path / "c/statistics.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match=words):
        registry.load(tmp_path / "c")


@pytest.mark.parametrize("old", [False, True])
def test_statistics_of_images_in_a_lerobot_folder(tmp_path, old):
    folder = lerobot_checkpoints.make(tmp_path / "theirs", "act", old=old)
    for file in folder.glob("model*" if old else "policy_p*.safetensors"):
        tensors = load_file(file)
        del tensors[next(key for key in tensors if "images" in key and "wrist" in key and key.endswith("std"))]
        save_file(tensors, file)
    with pytest.raises(InputError, match=r"std of the image .*images\.wrist.*expected 3 that are finite"):
        registry.load(folder)
