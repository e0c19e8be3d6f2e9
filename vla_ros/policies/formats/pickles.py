"""Tensors of a file written by torch.save (`.pt`, `.pth`, `.ckpt`, `.bin`), read without running any code from it."""

import io
import math
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import regular
from vla_ros.policies.formats.unpickling import MOST_BYTES, Foreign, Storage, Stored, unpickled

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
WEIGHTS = ("state_dict", "model_state_dict")  # where trainers store them among other things
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
LONGEST_KEY = 500  # characters of a tensor's name
MOST_DIRECTORY = 16 << 20  # bytes of a zip's list of members
MOST_DIMENSIONS, MOST_NUMBERS = 8, 1 << 40  # of one tensor
MOST_COPIES = 4  # largest ratio of the tensors' size to the file's: a tensor with two names is read as two
OLD_START = (0x1950A86A20F9469CFC6C, 1001)  # of torch's format before 1.6: magic number and version
_PREFIX = re.compile(r"^(?:_forward_module\.|module\.)+")  # added by wrappers of distributed training
# Other files beside weights: OFT's parts, training states, and files of transformers' trainer.
_BESIDE = re.compile(r".*--.*_checkpoint\.pt|(?:state|optimizer|scheduler|training_args|rng_state.*|scaler)\..*")
Place = tuple[int, int]  # bytes of the file: start, length


def not_loaded(path: Path) -> None:
    """Raises InputError, which says what to do, for a file of torch.save in place of a checkpoint folder."""
    if path.suffix in SUFFIXES and path.is_file():
        raise InputError(f"checkpoint {path}: a pickle, expected a folder of safetensors: vla-ros convert {path} "
                         "--output FOLDER makes one, nothing of it is run")


def hint(folder: Path) -> str:
    """What to do with a folder that contains a file of torch.save instead of safetensors; "" if it has none."""
    names = (file for suffix in SUFFIXES for file in folder.glob(f"*{suffix}"))
    found = next((file for file in sorted(names) if not _BESIDE.fullmatch(file.name)), None)
    return f"; {found.name} is a pickle: vla-ros convert {found} --output FOLDER" if found else ""


class TorchFile:
    """A state dict in a file of torch.save, zipped or in the format before 1.6: tensors and their names.

    Trainers (Lightning) store it under `state_dict` or `model_state_dict`, with other objects beside it: those that
    would have to be constructed are skipped and named in `foreign`. Among the weights themselves they are refused. The
    prefix that distributed training adds to names (`module.`) is removed. A tensor with two names is read as two.

    Attributes:
        shapes, dtypes, sizes: of each tensor, the last in bytes.

    Raises InputError that names the file and the reason: another format, damaged, contains something to call, larger
    in memory than in the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.where = regular(path, "checkpoint"), f"checkpoint {path}"
        self.bytes = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\3\4":
                value, foreign, self._places = _zipped(file, self.bytes, self.where)
            elif start[:1] == b"\x80":
                value, foreign, self._places = _before_zip(file, self.bytes, self.where)
            else:
                raise InputError(f"{self.where}: begins with {start.hex() or 'nothing'}, expected a file that "
                                 "torch.save wrote")
        self.foreign = tuple(sorted(foreign))
        self._tensors = {}
        for key, tensor in self._weights(value).items():
            name = _PREFIX.sub("", key)
            if name in self._tensors:
                raise InputError(f"{self.where}: two tensors {shown(name)}, expected one")
            self._tensors[name] = self._checked(key, tensor)
        self.sizes = {key: t.dtype.itemsize * math.prod(t.size) for key, t in self._tensors.items()}
        if sum(self.sizes.values()) > MOST_COPIES * self.bytes:
            raise InputError(f"{self.where}: its tensors take more than {MOST_COPIES} times the file's {self.bytes} "
                             "bytes, expected weights that lie in it")
        self.shapes = {key: tensor.size for key, tensor in self._tensors.items()}
        self.dtypes = {key: DTYPES[tensor.dtype] for key, tensor in self._tensors.items()}

    def _weights(self, value: Any) -> Mapping[str, Stored]:
        """Names and tensors in the pickle's value."""
        if isinstance(value, dict):
            value = next((value[name] for name in WEIGHTS if isinstance(value.get(name), dict)), value)
        if isinstance(value, Foreign):
            raise InputError(f"{self.where}: would construct {shown(value.name)}, expected names and tensors: save the "
                             "object's state_dict()")
        if not isinstance(value, dict) or not value:
            raise InputError(f"{self.where}: {shown(type(value).__name__)}, expected names and tensors")
        for key, tensor in value.items():
            if not isinstance(key, str) or not isinstance(tensor, Stored):
                what = f"would construct {tensor.name}" if isinstance(tensor, Foreign) else type(tensor).__name__
                raise InputError(f"{self.where}: {shown(key)}: {shown(what)}, expected the name of a tensor and the "
                                 f"tensor; of other things beside the weights, these under {' or '.join(WEIGHTS)}")
            if len(key) > LONGEST_KEY or not key.isprintable():
                raise InputError(f"{self.where}: tensor {shown(key)}: expected a name of at most {LONGEST_KEY} "
                                 "printable characters")
        return value

    def _checked(self, key: str, tensor: Stored) -> Stored:
        """Raises InputError for a tensor that reaches beyond the file."""
        size = tensor.storage.dtype.itemsize * tensor.storage.count
        shape = shown(list(tensor.size))
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
        held = self._places.get(tensor.storage.key, (0, -1))[1]
        if tensor.dtype not in DTYPES:
            raise InputError(f"{self.where}: {shown(key)} is {tensor.dtype}, expected one of {sorted(DTYPES.values())}")
        if tensor.bits:
            raise InputError(f"{self.where}: {shown(key)} has torch's bit {shown(', '.join(tensor.bits))} and other "
                             "numbers than are stored, expected plain ones: save tensor.resolve_neg()")
        if len(tensor.size) > MOST_DIMENSIONS or math.prod(max(n, 1) for n in tensor.size) > MOST_NUMBERS:
            raise InputError(f"{self.where}: {shown(key)} {shape}, expected at most {MOST_DIMENSIONS} dimensions and "
                             f"{MOST_NUMBERS} numbers")
        if size > held or (0 not in tensor.size and (last + 1) * tensor.dtype.itemsize > size):
            raise InputError(f"{self.where}: {shown(key)} {shape} lies beyond the {max(held, 0)} bytes of its storage; "
                             "is the file complete?")
        return tensor

    def read(self, key: str) -> Tensor:
        """A contiguous tensor with its own memory."""
        tensor = self._tensors[key]
        if 0 in tensor.size:
            return torch.empty(tensor.size, dtype=tensor.dtype)
        first, width = self._places[tensor.storage.key][0], tensor.dtype.itemsize
        count = 1 + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
        data = np.fromfile(self.path, np.uint8, count * width, offset=first + tensor.offset * width)
        if len(data) < count * width:
            raise InputError(f"{self.where}: {shown(key)} cannot be read; is the file complete?")
        return torch.from_numpy(data).view(tensor.dtype).as_strided(tensor.size, tensor.stride).contiguous()

    def pieces(self, key: str) -> Iterator[tuple[Any, Tensor]]:
        yield ..., self.read(key)


def _zipped(file: BinaryIO, size: int, where: str) -> tuple[Any, set[str], dict[str, Place]]:
    """The pickle's value, the names of what it would construct, and the place of each storage."""
    _check_directory(file, size, where)
    try:
        with zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            pickles = [name for name in members if re.fullmatch(r"[^/]+/data\.pkl", name)]
            if len(pickles) != 1:
                raise InputError(f"{where}: a zip with {len(pickles)} data.pkl, expected a file that torch.save wrote")
            root = pickles[0].removesuffix("data.pkl")
            if f"{root}constants.pkl" in members:
                raise InputError(f"{where}: a TorchScript program, expected a state_dict: save that instead")
            order = _small(archive, members.get(f"{root}byteorder"), where)
            if order not in (b"", b"little"):
                raise InputError(f"{where}: byte order {shown(order)}, expected little")
            said = unpickled(io.BytesIO(_small(archive, members[pickles[0]], where)), where)
            places = {
                name.removeprefix(f"{root}data/"): _place(file, member, size, where)
                for name, member in members.items() if name.startswith(f"{root}data/")
            }
    except (zipfile.BadZipFile, RuntimeError, ValueError, OSError, EOFError, struct.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: a damaged zip, is it complete? {' '.join(str(error).split())[:200]}") from error
    return said.value, said.foreign, places


def _check_directory(file: BinaryIO, size: int, where: str) -> None:
    """Refuse a list of members that would not fit in memory; torch writes no comment after it."""
    file.seek(max(size - 98, 0))
    tail = file.read()
    if tail[-22:-18] != b"PK\5\6" or tail[-2:] != b"\0\0":
        raise InputError(f"{where}: a zip without its end, is the file complete?")
    length = struct.unpack("<L", tail[-10:-6])[0]
    if tail[-42:-38] == b"PK\6\7" and tail[-98:-94] == b"PK\6\6":  # zip64
        length = max(length if length < 0xFFFFFFFF else 0, struct.unpack("<Q", tail[-58:-50])[0])
    if length > MOST_DIRECTORY:
        raise InputError(f"{where}: a zip whose list of members has {length} bytes, expected at most {MOST_DIRECTORY}")


def _small(archive: zipfile.ZipFile, member: zipfile.ZipInfo | None, where: str) -> bytes:
    if member is None:
        return b""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > MOST_BYTES:
        raise InputError(f"{where}: {shown(member.filename)} has {member.file_size} bytes, expected at most "
                         f"{MOST_BYTES}, not compressed")
    return archive.read(member)


def _place(file: BinaryIO, member: zipfile.ZipInfo, size: int, where: str) -> Place:
    """Place of a member's bytes, which follow its own header."""
    file.seek(member.header_offset)
    header = file.read(30)
    name, extra = struct.unpack("<HH", header[26:30])
    start = member.header_offset + 30 + name + extra
    stored = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
    if header[:4] != b"PK\3\4" or not stored or start + member.file_size > size:
        raise InputError(f"{where}: {shown(member.filename)}: {member.file_size} bytes that are compressed, or not all "
                         "there")
    return start, member.file_size


def _before_zip(file: BinaryIO, size: int, where: str) -> tuple[Any, set[str], dict[str, Place]]:
    """The same for the older format: five pickles, then the storages one after another, in the order of the last
    pickle."""
    pickles = io.BytesIO(file.read(MOST_BYTES))
    for expected in OLD_START:
        found = unpickled(pickles, where).value
        if type(found) is not int or found != expected:
            raise InputError(f"{where}: a pickle that torch.save did not write, expected a file of weights")
    system, said, keys = (unpickled(pickles, where) for _ in range(3))
    if not isinstance(system.value, dict) or system.value.get("little_endian") is not True:
        raise InputError(f"{where}: written in big-endian byte order, expected little")
    places: dict[str, Place] = {}
    at = pickles.tell()
    for key in keys.value if isinstance(keys.value, list) else ():
        storage = said.storages.get(key) if isinstance(key, str) else None
        file.seek(at)
        count = int.from_bytes(file.read(8), "little")
        if not isinstance(storage, Storage) or count != storage.count:
            raise InputError(f"{where}: storage {shown(key)}: {count} numbers, expected those of the tensors")
        length = count * storage.dtype.itemsize
        places[key] = at + 8, min(length, size - at - 8)  # a truncated storage is reported for its tensor
        at += 8 + length
    return said.value, said.foreign, places
