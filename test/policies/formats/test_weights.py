"""Numbers of weights: of every type that safetensors knows, and finite."""

import math

import pytest
import torch
from safetensors.torch import _TYPES, save_file

from vla_ros.core.errors import InputError
from vla_ros.policies.formats.weights import NUMBERS, TensorFolder, load_weights


def module(**shapes):
    with torch.device("meta"):
        return torch.nn.ParameterDict({name: torch.zeros(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("kind", NUMBERS)
def test_weights_of_every_real_type_are_read(tmp_path, kind):
    dtype = _TYPES.get(kind, torch.float8_e8m0fnu)
    right = torch.tensor([[0.0, 1.0], [1.0, 1.0]] if kind == "BOOL" else [[1.0, 2.0], [4.0, 8.0]])
    data = right.to(dtype)
    if kind == "F8_E8M0":  # safetensors reads it and does not write it
        save_file({"w": data.view(torch.uint8)}, tmp_path / "model.safetensors")
        file = tmp_path / "model.safetensors"
        text = file.read_bytes()
        length, header = int.from_bytes(text[:8], "little"), text[8:]
        header = header[:length].replace(b'"U8"', b'"F8_E8M0"').rstrip() + header[length:]
        file.write_bytes((len(header) - data.numel()).to_bytes(8, "little") + header)
    else:
        save_file({"w": data}, tmp_path / "model.safetensors")
    made, tensors = module(w=(2, 2)), TensorFolder(tmp_path)
    assert tensors.dtypes == {"w": kind}
    load_weights(made, tensors, "here")
    assert made["w"].dtype == torch.float32 and torch.equal(made["w"], right)


def test_others_are_refused(tmp_path):
    assert set(_TYPES) - set(NUMBERS) == {"C64"}
    save_file({"w": torch.zeros(2, 2, dtype=torch.complex64)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="checkpoint here: w is C64, expected one of"):
        load_weights(module(w=(2, 2)), TensorFolder(tmp_path), "here")


@pytest.mark.parametrize(("bad", "stored", "dtype"), [
    (math.nan, torch.float32, torch.float32), (math.inf, torch.float32, torch.float32),
    (-math.inf, torch.bfloat16, torch.float32), (math.nan, torch.float8_e4m3fn, torch.bfloat16),
    (1e6, torch.float32, torch.float16), (1e300, torch.float64, torch.float32),
])  # fmt: skip
@pytest.mark.parametrize("row", [0, 299])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path, bad, stored, dtype, row):
    values = torch.ones(300, 7, dtype=torch.float64)
    values[row, 3] = bad
    save_file({"a": torch.zeros(2), "w": values.to(stored)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="checkpoint here: w: NaN or infinite numbers in .*, expected finite ones"):
        load_weights(module(a=(2,), w=(300, 7)), TensorFolder(tmp_path), "here", dtype=dtype)
