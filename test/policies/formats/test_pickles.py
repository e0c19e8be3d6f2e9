"""Files that torch.save wrote: read, converted or refused, and nothing in them runs."""

import argparse
import decimal
import functools
import io
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import openvla_folders
import pytest
import torch
from safetensors.torch import load_file

from vla_ros.cli.main import main
from vla_ros.core.errors import InputError
from vla_ros.policies import load
from vla_ros.policies.formats import pickles, unpickling
from vla_ros.policies.formats.convert import convert
from vla_ros.policies.formats.pickles import TorchFile
from vla_ros.policies.formats.weights import TensorFolder


class Own:
    """A class of the program that trained; `made` counts who constructs it."""

    made = 0

    def __init__(self, *_):
        type(self).made += 1

    def __setstate__(self, state):
        type(self).made += 1


class Calls:
    """What a hostile file holds: unpickled, it is `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def weights() -> dict[str, torch.Tensor]:
    rows = torch.arange(24, dtype=torch.float32).view(4, 6)
    return OrderedDict({
        "a.weight": rows, "a.part": rows[1:3, 2:], "a.turned": rows.t(), "tied.weight": rows,
        "b": torch.nn.Parameter(torch.randn(3)), "half": torch.randn(2, 2).half(), "brain": torch.randn(5).bfloat16(),
        "double": torch.randn(2, dtype=torch.float64), "counts": torch.arange(3), "flag": torch.tensor(True),
        "bytes": torch.arange(4, dtype=torch.uint8), "nothing": torch.zeros(0, 3), "one": torch.tensor(2.5),
        "small": torch.arange(3, dtype=torch.int8), "short": torch.arange(3, dtype=torch.int16),
    })  # fmt: skip


def beside() -> dict:
    """What a trainer keeps besides, as Lightning does."""
    return {
        "epoch": 3, "global_step": 10**9, "pytorch-lightning_version": "2.2", "loops": {"fit_loop": {"state_dict": {}}},
        "hyper_parameters": argparse.Namespace(path=Path("/data"), own=Own(), kind=Own, more={1, 2}, z=1j, b=b"x"),
        "callbacks": {Own: {"best": torch.tensor(1.0), (1, 2): [None, True, -5, 2**70, 0.5]}},
        "rng": np.random.default_rng(0).integers(0, 9, 3), "own": Own(1),
        "schedule": functools.partial(len, "x"), "more": types.SimpleNamespace(a=1), "left": decimal.Decimal("0.1"),
        "signal": signal.SIGTERM, "why": ValueError("x"), "spectrum": torch.ones(2, dtype=torch.complex64),
        "turned": torch.ones(2).cfloat().conj(), "buffer": io.BytesIO(b"x"),
    }  # fmt: skip


def same(file: TorchFile, expected: dict[str, torch.Tensor]) -> None:
    assert file.shapes == {key: tuple(tensor.shape) for key, tensor in expected.items()}
    for key, tensor in expected.items():
        ours = file.read(key)
        assert ours.dtype == tensor.dtype and torch.equal(ours, tensor.detach()) and ours.is_contiguous(), key


def written(path: Path, value, **options) -> Path:
    torch.save(value, path, **options)
    return path


FORMATS = [{"pickle_protocol": protocol, "_use_new_zipfile_serialization": new}
           for protocol in (2, 4, 5) for new in (True, False)]  # fmt: skip


@pytest.mark.parametrize("options", FORMATS, ids=str)
@pytest.mark.parametrize("under", [None, "state_dict", "model_state_dict"])
def test_tensors_of_every_format(tmp_path, options, under):
    tensors = weights()
    if under is None:
        file = TorchFile(written(tmp_path / "x.pt", tensors, **options))
        assert not file.foreign
    else:
        path = written(tmp_path / "x.pt", {under: tensors, **beside()}, **options)
        before = Own.made
        file = TorchFile(path)
        assert Own.made == before
        assert {"argparse.Namespace", f"{__name__}.Own", "functools.partial", "types.SimpleNamespace",
                "decimal.Decimal"} <= set(file.foreign)  # fmt: skip
        assert any(name.startswith("pathlib.") for name in file.foreign)
    same(file, tensors)


def test_torchs_own_eight_bit_floats(tmp_path):
    tensors = {"x": torch.ones(3).to(torch.float8_e4m3fn)}
    file = TorchFile(written(tmp_path / "x.pt", tensors))
    assert file.dtypes == {"x": "F8_E4M3"} and torch.equal(file.read("x").float(), torch.ones(3))


@pytest.mark.parametrize("options", FORMATS[:2], ids=str)
def test_numbers_that_are_not_as_they_are_stored(tmp_path, options):
    """torch notes a sign beside the tensor: the imaginary part of a conjugate number is stored with the other one."""
    turned = torch.complex(torch.ones(3), torch.arange(3.0)).conj()
    path = written(tmp_path / "x.pt", {"state_dict": {"x": turned.imag}}, **options)
    with pytest.raises(InputError, match=r"'x' has torch's bit 'neg' and other numbers than are stored, .*resolve_neg"):
        TorchFile(path)
    plain = {"x": turned.imag.resolve_neg()}
    same(TorchFile(written(tmp_path / "x.pt", {"state_dict": plain, "beside": turned}, **options)), plain)
    with pytest.raises(InputError, match="'x' is torch.complex64, expected one of"):
        TorchFile(written(tmp_path / "x.pt", {"x": turned}, **options))


@pytest.mark.parametrize(("kind", "name"), [
    (torch.ones(2, dtype=torch.complex64), "torch.ComplexFloatStorage"),
    (torch.ones(2, dtype=torch.uint16), "torch.uint16"),
])  # fmt: skip
def test_kinds_of_storages_and_numbers_that_are_unknown(tmp_path, monkeypatch, kind, name):
    """As a newer torch may write them."""
    monkeypatch.delitem(unpickling.STORAGES, "ComplexFloatStorage")
    monkeypatch.setattr(unpickling, "TYPES", {})
    tensors = weights()
    path = written(tmp_path / "x.pt", {"state_dict": tensors, "beside": kind})
    file = TorchFile(path)
    same(file, tensors)
    assert file.foreign == (name,)
    with pytest.raises(InputError, match=f"'a': 'would construct {name}', expected the name of a tensor"):
        TorchFile(written(tmp_path / "x.pt", {"a": kind}))


def test_a_networks_own_state(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    same(TorchFile(written(tmp_path / "x.pt", net.state_dict())), net.state_dict())
    with pytest.raises(InputError, match=r"would construct 'torch.nn.modules.container.Sequential', .*state_dict\(\)"):
        TorchFile(written(tmp_path / "y.pt", net))


def test_names_lose_what_distributed_training_puts_in_front_and_nothing_else(tmp_path):
    ones = torch.ones(2)
    said = {"_forward_module.module.model.a": ones, "module.b": ones * 2, "model.module.c": ones * 3, "modules.d": ones}
    file = TorchFile(written(tmp_path / "x.pt", said))
    assert [*file.shapes] == ["model.a", "b", "model.module.c", "modules.d"]
    with pytest.raises(InputError, match="two tensors 'b', expected one"):
        TorchFile(written(tmp_path / "y.pt", {"module.b": ones, "b": ones}))


HOSTILE = {
    "system": (Calls(os.system, "touch {0}"), "would call 'posix.system'"),
    "eval": (Calls(eval, "open('{0}', 'w')"), "would call 'builtins.eval'"),
    "exec": (Calls(exec, "open('{0}', 'w')"), "would call 'builtins.exec'"),
    "open": (Calls(open, "{0}", "w"), r"would call '_?io.open'"),
    "popen": (Calls(subprocess.check_call, ["touch", "{0}"]), "would call 'subprocess.check_call'"),
    "getattr": (Calls(getattr, os, "system"), "would call 'builtins.getattr'"),
    "import": (Calls(__import__, "os"), "would call 'builtins.__import__'"),
    "nested": (Calls(os.path.join, Calls(os.system, "touch {0}")), "would call 'posix"),
    "deep in the trainer's things": ({"a": [{"b": (Calls(os.system, "touch {0}"),)}]}, "would call 'posix.system'"),
    "code": (Calls(bytearray, 10**12), None),  # plain data, but not made either
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["state_dict", "callbacks", ""])
@pytest.mark.parametrize("options", [FORMATS[0], FORMATS[5]], ids=str)
def test_nothing_in_a_file_runs(tmp_path, name, place, options):
    mark = tmp_path / "it ran"

    def aimed(value):
        if isinstance(value, Calls):
            return Calls(value.call[0], *(aimed(argument) for argument in value.call[1]))
        if isinstance(value, dict | list | tuple):
            inner = [aimed(one) for one in (value.values() if isinstance(value, dict) else value)]
            return dict(zip(value, inner, strict=True)) if isinstance(value, dict) else type(value)(inner)
        return value.replace("{0}", str(mark)) if isinstance(value, str) else value

    value, words = HOSTILE[name]
    value = aimed(value) if name != "getattr" else Calls(getattr, "x", "upper")
    said = {"state_dict": weights()} | ({place: value} if place != "state_dict" else {})
    if place == "state_dict":
        said["state_dict"]["bad"] = value
    path = written(tmp_path / "x.pt", value if place == "" else said, **options)
    if words is None and place == "callbacks":
        same(TorchFile(path), weights_of(said))
    else:
        with pytest.raises(InputError, match=words or "would construct .?builtins.bytearray") as error:
            TorchFile(path)
        assert "\n" not in str(error.value)
    assert not mark.exists()


def weights_of(said):
    return said["state_dict"]


def zipped(path: Path, data: bytes, members=(), compression=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", data)
        for name, content in members:
            archive.writestr(name, content)
    return path


def tensor_of(size, stride, offset=0, count=4, key="0") -> bytes:
    """The pickle of {"a": a tensor} with these numbers, as torch writes them."""

    class Storage:
        pass

    class Writer(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, key, "cpu", count) if isinstance(value, Storage) else None

    buffer = io.BytesIO()
    call = Calls(torch._utils._rebuild_tensor_v2, Storage(), offset, size, stride, False, OrderedDict())
    Writer(buffer, 2).dump({"a": call})
    return buffer.getvalue()


def test_what_the_helper_writes_can_be_read(tmp_path):
    data = np.arange(4, dtype=np.float32).tobytes()
    file = TorchFile(zipped(tmp_path / "x.pt", tensor_of((2, 2), (1, 2)), [("x/data/0", data)]))
    assert file.read("a").tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(("pickled", "words"), [
    (tensor_of((10**9, 10**9), (0, 0)), "expected at most 8 dimensions and"),
    (tensor_of((10**9,), (0,)), "its tensors take more than 4 times the file's"),
    (tensor_of((0, 2**31, 2**31), (1, 1, 1)), "expected at most 8 dimensions and"),
    (tensor_of((1,) * 1000, (1,) * 1000), "expected at most 8 dimensions"),
    (tensor_of((5,), (1,)), "lies beyond the 16 bytes of its storage"),
    (tensor_of((2,), (1,), offset=3), "lies beyond the 16 bytes"),
    (tensor_of((4,), (1,), count=10**15), "lies beyond the 16 bytes"),
    (tensor_of((4,), (1,), key="1"), "lies beyond the 0 bytes"),
    (tensor_of((-4,), (1,)), "a damaged pickle: a tensor without storage, or with invalid sizes"),
    (tensor_of((4,), (-1,)), "a damaged pickle"), (tensor_of((4.0,), (1,)), "a damaged pickle"),
    (tensor_of((4,), (1,), count=-1), "-1 numbers"), (tensor_of("4", (1,)), "a damaged pickle"),
    (b"\x80\x02}.", "'dict', expected names and tensors"), (b"\x80\x02N.", "'NoneType', expected"),
    (b"", "a damaged pickle"), (b"\x80\x02}", "a damaged pickle"), (b"q\x01.", "a damaged pickle"),
    (b"h\x07.", "a damaged pickle"), (b"tttt.", "a damaged pickle"), (b"(]R.", "a damaged pickle|would construct"),
    (b"\x80\x02]\x8a\x7f.", "a damaged pickle"),  # a number that is not all there
    (b"\x8b\xff\xff\xff\x7f.", "a damaged pickle"), (b"I" + b"9" * 100_000 + b"\n.", "a damaged pickle"),
    (b"\x8b" + struct.pack("<i", 9_000_000) + b"\x7f" * 9_000_000 + b".", "'int', expected names and tensors"),
    (b"\x8e" + struct.pack("<Q", 2**62) + b"x.", "a damaged pickle"),
    (b"]r\xff\xff\xff\x7f.", "'list', expected"),  # a place in the memo that Python's reader makes room for
    (b"\x82\x01.", "step EXT1 of a pickle"), (b"\x97.", "step NEXT_BUFFER"), (b"P0\n.", "step PERSID"),
    (b"(" * 100_000 + b"N" + b"t" * 100_000 + b".", "'tuple', expected names and tensors"),
    (b"]" * 100_000 + b"a" * 99_999 + b".", "'list', expected"),
    (b"}(" + b"N" + b"\x85" * 100_000 + b"Nu.", "expected names and tensors"),  # a key so deep that its hash recurses
], ids=range(33))  # fmt: skip
def test_pickles_that_ask_for_too_much_or_make_no_sense(tmp_path, pickled, words):
    path = zipped(tmp_path / "x.pt", pickled, [("x/data/0", bytes(16))])
    with pytest.raises(InputError, match=words) as error:
        TorchFile(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["a" * 501, "a\nb", "\ud800", "\x1b[2J"])
def test_names_that_no_tensor_has(tmp_path, key):
    with pytest.raises(InputError, match="expected a name of at most 500 printable characters") as error:
        TorchFile(written(tmp_path / "x.pt", {key: torch.ones(1)}))
    assert "\n" not in str(error.value)


def test_steps_and_bytes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickling, "MOST_STEPS", 100)
    with pytest.raises(InputError, match="more than 100 steps"):
        TorchFile(zipped(tmp_path / "x.pt", b"]" * 200))
    monkeypatch.setattr(pickles, "MOST_BYTES", 100)
    with pytest.raises(InputError, match="has 200 bytes, expected at most 100"):
        TorchFile(zipped(tmp_path / "x.pt", b"]" * 200))
    monkeypatch.setattr(pickles, "MOST_DIRECTORY", 100)
    with pytest.raises(InputError, match="list of members has .* expected at most 100"):
        TorchFile(zipped(tmp_path / "x.pt", b"}.", [(f"x/data/{k}", b"") for k in range(9)]))


def test_zips_that_torch_does_not_write(tmp_path):
    data = tensor_of((4,), (1,))
    for compression, members, words in (
        (zipfile.ZIP_DEFLATED, [], "data.pkl' has .* not compressed"),
        (zipfile.ZIP_STORED, [("y/data.pkl", b"")], "a zip with 2 data.pkl"),
        (zipfile.ZIP_STORED, [("x/constants.pkl", b"")], "a TorchScript program"),
        (zipfile.ZIP_STORED, [("x/byteorder", b"big")], "byte order b'big', expected little"),
    ):
        with pytest.raises(InputError, match=words):
            TorchFile(zipped(tmp_path / "x.pt", data, members, compression))
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w") as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/data/0", bytes(10_000_000), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="x/data/0': 10000000 bytes that are compressed, or not all there"):
        TorchFile(tmp_path / "bomb.pt")
    with zipfile.ZipFile(tmp_path / "none.pt", "w") as archive:
        archive.writestr("x/version", b"3")
    with pytest.raises(InputError, match="a zip with 0 data.pkl"):
        TorchFile(tmp_path / "none.pt")


@pytest.mark.parametrize("new", [True, False])
def test_a_file_that_is_cut_or_spoilt_anywhere(tmp_path, new):
    path = written(tmp_path / "x.pt", {"state_dict": weights(), **beside()}, _use_new_zipfile_serialization=new)
    data = path.read_bytes()
    rng = np.random.default_rng(0)

    def tried(content: bytes) -> dict[str, torch.Tensor] | None:
        path.write_bytes(content)
        try:
            file = TorchFile(path)
            return {key: file.read(key) for key in file.shapes}
        except InputError as error:
            assert "\n" not in str(error)
            return None

    whole = tried(data)
    assert whole
    for length in rng.integers(0, len(data), 60):
        read = tried(data[:length])  # the old format ends with the numbers of any tensor, one beside the weights too
        assert read is None or not new and read.keys() == whole.keys()
        assert read is None or all(torch.equal(read[key], whole[key]) for key in whole)
    for _ in range(150):
        spoilt = bytearray(data)
        for place in rng.integers(0, min(len(data), 3000), 3):
            spoilt[place] = rng.integers(256)
        tried(bytes(spoilt))  # reads or refuses


@pytest.mark.parametrize(("data", "words"), [
    (b"", "begins with nothing"), (b"\x7fELF" + bytes(100), "begins with 7f454c46"),
    (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
    (struct.pack("<Q", 2) + b"{}", "begins with 02000000"),
])  # fmt: skip
def test_what_torch_did_not_write(tmp_path, data, words):
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(InputError, match=words):
        TorchFile(tmp_path / "x.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(InputError, match="not a regular file"):
        TorchFile(tmp_path / "pipe.pt")


def test_converted_by_the_command(tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/kosmos.json").write_text('{"robovlm_name": "RoboKosMos"}')
    tensors = {f"module.{key}": tensor for key, tensor in weights().items()}
    path = written(tmp_path / "checkpoints/kosmos.pt", {"state_dict": tensors, **beside()})
    assert main(["convert", str(path), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "note: kosmos.pt: left out, and not constructed: " in said and "Own" in said
    assert json.loads((tmp_path / "out/config.json").read_text()) == {"robovlm_name": "RoboKosMos"}
    found = load_file(tmp_path / "out/model.safetensors")
    assert found.keys() == weights().keys()
    for key, tensor in found.items():  # tied ones too
        assert torch.equal(tensor, tensors[f"module.{key}"].detach()) and tensor.dtype == tensors[f"module.{key}"].dtype
    assert main(["convert", str(path), "--output", str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err
    bad = written(tmp_path / "bad.pt", {"state_dict": {"a": Calls(os.system, "true")}})
    assert main(["convert", str(bad), "--output", str(tmp_path / "bad")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "bad.pt: would call 'posix.system', expected weights" in error
    assert not (tmp_path / "bad").exists()


def test_a_configuration_is_found_from_the_files_own_folder(tmp_path, monkeypatch):
    for name in ("checkpoints", "configs"):
        (tmp_path / name).mkdir()
    (tmp_path / "configs/kosmos.json").write_text('{"x": 1}')
    written(tmp_path / "checkpoints/kosmos.pt", weights())
    monkeypatch.chdir(tmp_path / "checkpoints")
    assert convert([Path("kosmos.pt")], Path("out")) == ()
    assert json.loads(Path("out/config.json").read_text()) == {"x": 1}
    (tmp_path / "link.pt").symlink_to("checkpoints/kosmos.pt")  # its own place counts, not that of what it names
    [note] = convert([tmp_path / "link.pt"], Path("linked"))
    assert "no config.json was found" in note


def test_shards_come_and_go(tmp_path):
    rows = weights()
    one = written(tmp_path / "pytorch_model-00001-of-00002.bin", {key: rows[key] for key in list(rows)[:5]})
    two = written(tmp_path / "pytorch_model-00002-of-00002.bin", {key: rows[key] for key in list(rows)[5:]})
    assert convert([one, two], tmp_path / "plain") == ("no config.json was found: a checkpoint folder needs it",)
    (tmp_path / "config.json").write_text("{}")
    assert convert([one, two], tmp_path / "out", shard=100) == ()
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 2
    folder = TensorFolder(tmp_path / "out")
    assert folder.shapes == {key: tuple(tensor.shape) for key, tensor in rows.items()}
    for key, tensor in rows.items():
        assert torch.equal(folder.read(key), tensor.detach())
    with pytest.raises(InputError, match="'a.part' is in .*00001-of-00002.bin too"):
        convert([one, one], tmp_path / "twice")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match="broken.json: not JSON"):
        convert([one, two], tmp_path / "broken", tmp_path / "broken.json")
    (tmp_path / "adapter_config.json").write_text("{}")
    adapter = written(tmp_path / "adapter_model.bin", {"x": torch.ones(2)})
    convert([adapter], tmp_path / "lora")
    assert {file.name for file in (tmp_path / "lora").iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}


def test_a_checkpoint_goes_there_and_back(tmp_path):
    folder = openvla_folders.write(tmp_path / "theirs")
    expected = load(folder).policy.state_dict()
    shards = sorted(folder.glob("*.safetensors"))
    files = []
    for shard in shards:
        tensors = {f"module.{key}": tensor for key, tensor in load_file(shard).items()}
        files.append(written(folder / f"pytorch_{shard.stem}.bin", {"state_dict": tensors, **beside()}))
        shard.unlink()
    for index in folder.glob("*.index.json"):
        index.unlink()
    with pytest.raises(InputError, match="is a pickle: vla-ros convert"):
        load(folder)
    assert main(["convert", *map(str, files), "--output", str(tmp_path / "ours")]) == 0
    for file in folder.glob("*.json"):
        shutil.copyfile(file, tmp_path / "ours" / file.name)
    for key, tensor in load(tmp_path / "ours").policy.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


def test_where_such_a_file_is_met_the_command_is_named(tmp_path, capsys):
    path = written(tmp_path / "pytorch_model.bin", {"x": torch.ones(2)})
    (tmp_path / "policy.yaml").write_text(f"checkpoint: {path.name}\n")
    for given in (path, tmp_path / "policy.yaml"):
        with pytest.raises(InputError, match=r"pytorch_model.bin: a pickle, .*vla-ros convert \S+model.bin --output"):
            load(given)
    assert main(["info", str(path)]) == 2
    assert "a pickle, expected a folder of safetensors" in capsys.readouterr().err
    written(tmp_path / "action_head--100_checkpoint.pt", {"x": torch.ones(2)})
    with pytest.raises(InputError, match=r"; pytorch_model.bin is a pickle: vla-ros convert \S+model.bin --output"):
        TensorFolder(tmp_path)
    (tmp_path / "policy.yaml").write_text("checkpoint: .\n")
    said = r"config.json is missing; pytorch_model.bin is a pickle: vla-ros convert \S+model.bin --output"
    for given in (tmp_path, tmp_path / "policy.yaml"):
        with pytest.raises(InputError, match=said):
            load(given)
    assert main(["info", str(tmp_path)]) == 2
    assert "; pytorch_model.bin is a pickle" in capsys.readouterr().err
    path.unlink()
    with pytest.raises(InputError, match=r"config.json is missing$"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"exists$"):
        TensorFolder(tmp_path)
