"""Checks of a bag's files before libraries read them: kind, size, unpacked size."""

import shutil
import sqlite3
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import lz4.frame
import zstandard

from vla_ros.core.errors import InputError, shown

MOST_UNPACKED = 512 << 20  # bytes of a chunk or of a message
_PIECE = 1 << 20
_BEGINNINGS = {".mcap": b"\x89MCAP0\r\n", ".db3": b"SQLite format 3\0"}
_TABLES = ("topics", "messages", "message_definitions", "metadata", "schema")


def most_of_file(path: Path, folder: str) -> int:
    """Bytes that a .zstd file may unpack to in a folder: half of the free space, and no more than a recording would."""
    return min(shutil.disk_usage(folder).free // 2, max(1 << 28, 1000 * path.stat().st_size))


def check_tables(path: Path) -> None:
    """Refuse views and computed columns in place of an SQLite file's tables: they can be endless."""
    try:
        with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as database:
            kinds = dict(database.execute("SELECT name, type FROM sqlite_master").fetchmany(1000))
            for name in _TABLES:
                columns = database.execute(f"PRAGMA table_xinfo({name})").fetchall()
                if kinds.get(name, "table") != "table" or any(column[-1] for column in columns):
                    raise InputError(f"bag file {path}: {name} is computed, expected a table")
        database.close()
    except sqlite3.Error as error:
        raise InputError(f"bag file {path}: cannot be read: {error}") from error


def unpack_file(path: Path, folder: str) -> Path:
    """The bag file that a .zstd file holds, in `folder`. Raises as `pieces`, and InputError if it is none."""
    plain = Path(folder, path.stem)
    beginning = _BEGINNINGS.get(plain.suffix)
    if beginning is None:
        raise InputError(f"bag file {path.name}: expected one of {[f'{kind}.zstd' for kind in _BEGINNINGS]}")
    with path.open("rb") as source, plain.open("wb") as target:
        for piece in pieces(source, most_of_file(path, folder)):
            if not target.tell() and not piece.startswith(beginning):
                raise InputError(f"begins with {shown(piece[: len(beginning)])}, expected {beginning!r}")
            target.write(piece)
    return plain


def pieces(source: BinaryIO, most: int) -> Iterator[bytes]:
    """What a zstd stream unpacks to, at most `most` bytes. Raises InputError if it is more, zstandard.ZstdError."""
    total = 0
    with zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True) as stream:
        while piece := stream.read(_PIECE):
            total += len(piece)
            if total > most:
                raise InputError(f"unpacks to more than {most} bytes")
            yield piece


def unpacked(data: bytes, most: int = MOST_UNPACKED) -> bytes:
    """Of zstd. Raises InputError if it is more than `most` bytes, zstandard.ZstdError."""
    return b"".join(pieces(BytesIO(data), most))


def plain(data: bytes) -> bytes:
    """A message that rosbag2 may have compressed: CDR never begins as zstd does. Raises as `unpacked`."""
    return unpacked(data) if data[:4] == zstandard.MAGIC_NUMBER.to_bytes(4, "little") else data


def _lz4(data: bytes, size: int) -> bytes:
    result = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=min(size, MOST_UNPACKED) + 1)
    if len(result) > size:
        raise InputError(f"a chunk unpacks to more than the {size} bytes that it says")
    return result


def chunk(data: bytes, compression: str, size: int) -> bytes:
    """The `size` bytes of an mcap chunk. Raises InputError if they are more, or of another compression."""
    if size > MOST_UNPACKED:
        raise InputError(f"a chunk of {size} bytes, expected at most {MOST_UNPACKED}")
    kinds: dict[str, Any] = {"": lambda data, size: data, "zstd": unpacked, "lz4": _lz4}
    if compression not in kinds:
        raise InputError(f"chunk compression {compression!r}, expected one of {sorted(kinds)}")
    return kinds[compression](data, size)
