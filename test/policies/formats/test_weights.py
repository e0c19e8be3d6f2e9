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
def test_weights_of_every_type_with_a_point_are_read(tmp_path, kind):
    right = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    save_file({"w": right.to(_TYPES[kind])}, tmp_path / "model.safetensors")
    made, tensors = module(w=(2, 2)), TensorFolder(tmp_path)
    assert tensors.dtypes == {"w": kind}
    load_weights(made, tensors, "here")
    assert made["w"].dtype == torch.float32 and torch.equal(made["w"], right)


@pytest.mark.parametrize(("dtype", "name"), [
    (torch.complex64, "C64"), (torch.int8, "I8"), (torch.uint8, "U8"), (torch.int64, "I64"), (torch.bool, "BOOL"),
])  # fmt: skip
def test_others_are_refused(tmp_path, dtype, name):
    save_file({"w": torch.zeros(2, 2, dtype=dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f"checkpoint here: w is {name}, expected one of"):
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
