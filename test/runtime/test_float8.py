"""Products of eight-bit numbers: torch's own on a CPU too, which is how this is tested; serving them takes a GPU."""

import json
import math

import families
import pytest
import torch
from torch import nn

from vla_ros.core.errors import InputError
from vla_ros.nn import float8 as layers
from vla_ros.nn.float8 import KIND, Float8Linear, large_products
from vla_ros.runtime import float8
from vla_ros.runtime.network import private_copy
from vla_ros.runtime.serving import resolve_dtype


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(layers, "LEAST", 1024)


def emulated(x, scale):
    return (x.double() / scale.double()).clamp(-448, 448).to(KIND).double() * scale.double()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_is_the_product_of_rounded_numbers(dtype, bias):
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 48, bias=bias).to(dtype), 3 * torch.randn(2, 5, 64).to(dtype)
    x[0, 0, 0] = 100.0  # more than was seen: it is cut off
    with torch.no_grad():
        layer = Float8Linear(linear, largest=12.0)
        expected = emulated(x, layer.scale) @ emulated(linear.weight, layer.weight_scale).t()
        expected = expected + (linear.bias.double() if bias else 0)
        found = layer(x)
    assert found.dtype == dtype and layer.weight.dtype == dtype and layer.numbers.dtype == KIND
    assert float((found - expected).abs().max() / expected.abs().max()) < (1e-5 if dtype == torch.float32 else 4e-3)
    assert expected[0, 0].abs().max() < 0.5 * (x[0, 0].double() @ linear.weight.double().t()).abs().max()


def opened(family="pi0"):
    loaded = families.fresh(family)
    loaded.policy.requires_grad_(False)
    return loaded, families.sample(loaded.processor)


def test_scales_are_measured_once_and_kept_beside_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(float8, "LEAST", 0.99)  # of a network this small
    loaded, sample = opened()
    exact, names = private_copy(loaded.policy), set(large_products(loaded.policy))
    cosine = float8.convert(loaded, tmp_path, sample)
    assert 0.99 <= cosine < 1
    assert {name for name, module in loaded.policy.named_modules() if isinstance(module, Float8Linear)} == names
    kept = json.loads((tmp_path / "float8.json").read_text())["largest"]
    assert set(kept) == names and min(kept.values()) > 0
    batch = loaded.processor.inputs([sample])
    draws = {name: torch.randn(shape) for name, shape in exact.draws(1).items()}
    found, expected = private_copy(loaded.policy).predict(batch, draws), exact.predict(batch, draws)
    assert 0 < (found - expected).abs().max() < 0.3 * expected.abs().max()

    def never(*_):
        raise AssertionError("they are kept")

    monkeypatch.setattr(float8, "measured", never)
    assert float8.convert(opened()[0], tmp_path, sample) == cosine
    other, _ = opened()
    other.policy.prefix.layers[0].qkv.weight.data *= 1.5
    with pytest.raises(AssertionError, match="they are kept"):
        float8.convert(other, tmp_path, sample)
    monkeypatch.undo()
    monkeypatch.setattr(layers, "LEAST", 1024)
    monkeypatch.setattr(float8, "LEAST", 0.99)
    file, first = tmp_path / "float8.json", min(kept)
    whole = {"digest": float8.digest(opened()[0]), "largest": kept}
    for said in ([], whole | {"largest": {first: 1.0}}, whole | {"largest": kept | {first: math.nan}}):
        file.write_text(json.dumps(said))  # what is no scales, or not of all products, is measured anew
        assert float8.convert(opened()[0], tmp_path, sample) == cosine


def test_a_chunk_that_is_not_the_same_is_refused_and_the_policy_left_as_it_was(tmp_path, monkeypatch):
    loaded, sample = opened()
    monkeypatch.setattr(float8, "measured", lambda policy, _: dict.fromkeys(large_products(policy), 1e-3))
    with pytest.raises(InputError, match=r"its chunk with that of float32 is -?0\.\d+, expected at least 0.999"):
        float8.convert(loaded, tmp_path, sample)
    assert not any(isinstance(module, Float8Linear) for module in loaded.policy.modules())


def test_where_there_are_none_they_are_refused(tmp_path):
    with pytest.raises(InputError, match="dtype float8: act has no large products of Gemma's or SigLIP's layers"):
        float8.convert(*opened("act")[:1], tmp_path, None)
    with pytest.raises(InputError, match="NVIDIA GPU of compute capability 8.9 .* the policy runs on cpu; expected"):
        resolve_dtype("float8", torch.device("cpu"))
