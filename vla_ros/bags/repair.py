"""Recovery of a bag that was cut off: every message that reached the disk whole goes into a new bag."""

import re
import shutil
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import zstandard
from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import CRCValidationError, StreamReader, breakup_chunk

from vla_ros.bags.storage import MOST_UNPACKED, check_tables, chunk, most_of_file, pieces, unpacked
from vla_ros.bags.writer import BagWriter
from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import new_folder, regular
from vla_ros.core.records import parsed, value_of

# What the mcap reader raises on a file that ends or turns to garbage in the middle.
BROKEN = (McapError, CRCValidationError, EOFError, struct.error, UnicodeDecodeError, ValueError,
          RuntimeError, zlib.error, zstandard.ZstdError, MemoryError, OverflowError)  # fmt: skip


@dataclass
class RepairReport:
    """What `repair` found: messages recovered, and for each broken file why its reading ended."""

    output: Path
    messages: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def repair(bag: str | Path, output: str | Path | None = None, progress: Callable[[int, int], None] | None = None
           ) -> RepairReport:  # fmt: skip
    """Copy what can be read of `bag` (a folder or one file) to a new complete bag; the original is not touched.

    Args:
        output: folder of the new bag, by default `BAG_repaired` beside the original.
        progress: called with bytes done and bytes in all.

    Raises InputError when there is nothing to read, when the output exists or cannot be written.
    """
    bag = Path(bag)
    files = _storage_files(bag)
    output = Path(output) if output else bag.with_name(f"{bag.stem if bag.is_file() else bag.name}_repaired")
    report = RepairReport(output)
    total, done = sum(path.stat().st_size for path in files), 0
    with new_folder(output, "bag", replace=False) as folder:
        folder.rmdir()
        writer = BagWriter(folder, name=output.name)
        try:
            for path in files:
                if reason := _copy(path, writer):
                    report.broken[path.name] = reason
                writer.next_file()
                done += path.stat().st_size
                if progress:
                    progress(done, total)
            writer.close({"vla_ros.repaired_from": bag.name})
        except BaseException:
            writer.abort()
            raise
    report.messages = writer.message_count
    report.counts = {topic.name: topic.count for topic in writer.topics.values()}
    return report


def _storage_files(bag: Path) -> list[Path]:
    if not bag.exists():
        raise InputError(f"bag {bag}: no such file or folder")
    if not bag.is_dir():
        files = [bag]
    else:
        files = [path for path in bag.iterdir() if path.name.endswith((".mcap", ".db3", ".mcap.zstd", ".db3.zstd"))]
        files.sort(key=lambda path: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", path.name)])
    if not files or (not bag.is_dir() and bag.suffix not in (".mcap", ".db3")):
        raise InputError(f"bag {bag}: holds no .mcap and no .db3 file")
    return [regular(file, "bag file") for file in files]


def _copy(path: Path, writer: BagWriter) -> str | None:
    """Append a storage file to the writer; the reason why reading ended early, None when it was whole."""
    if path.suffix == ".zstd":  # rosbag2 compresses each file when it is done with it
        with tempfile.TemporaryDirectory(dir=writer.path.parent) as folder:
            plain = Path(folder) / path.stem
            try:
                with path.open("rb") as source, plain.open("wb") as target:
                    for piece in pieces(source, most_of_file(path, folder)):
                        target.write(piece)
            except (zstandard.ZstdError, InputError) as error:
                return f"cannot be unpacked: {error}"
            return _copy(plain, writer)
    return _copy_mcap(path, writer) if path.suffix == ".mcap" else _copy_sqlite(path, writer)


def _copy_mcap(path: Path, writer: BagWriter) -> str | None:
    schemas: dict[int, Schema] = {}
    topics: dict[int, str] = {}
    with path.open("rb") as stream:
        records = _records(stream)
        while True:
            try:
                record = next(records)
            except StopIteration:
                return None
            except BROKEN as error:
                return f"ends at byte {stream.tell()} of {path.stat().st_size}: {type(error).__name__} {error}".rstrip()
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel) and record.id not in topics:
                topics[record.id] = record.topic
                schema = schemas.get(record.schema_id)
                if schema is None:
                    return f"topic {record.topic} has no schema"
                qos = _qos(record.metadata.get("offered_qos_profiles"), record.topic)
                definition = schema.data.decode() if schema.data else None
                hash = record.metadata.get("topic_type_hash", "")
                _add_topic(path, writer, record.topic, schema.name, qos, definition, schema.encoding, hash)
            elif isinstance(record, Message):
                writer.write(topics[record.channel_id], record.log_time, _plain(record.data), record.publish_time)


def _records(stream: BinaryIO) -> Iterator[McapRecord]:
    """Of an mcap file, chunks unpacked with a bound. Raises one of BROKEN."""
    reader = StreamReader(stream, emit_chunks=True, validate_crcs=True, record_size_limit=MOST_UNPACKED)
    for record in reader.records:
        if not isinstance(record, Chunk):
            yield record
            continue
        record.data = chunk(record.data, record.compression, record.uncompressed_size)
        record.compression = ""
        yield from breakup_chunk(record, validate_crc=True)


def _copy_sqlite(path: Path, writer: BagWriter) -> str | None:
    """The journal or write-ahead log of a file that was cut off is applied to a copy of it."""
    with tempfile.TemporaryDirectory(dir=writer.path.parent) as folder:
        for suffix in ("", "-wal", "-journal"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                regular(part, "bag file")
                shutil.copyfile(part, Path(folder) / part.name)
        database = sqlite3.connect(Path(folder) / path.name)
        try:
            check_tables(Path(folder) / path.name)
            columns = {row[1] for row in database.execute("PRAGMA table_info(topics)")}
            definitions = {}
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'message_definitions'").fetchone():
                query = "SELECT topic_type, encoded_message_definition, encoding FROM message_definitions"
                rows = database.execute(query)
                definitions = {row[0]: (row[1] or None, row[2]) for row in rows}
            wanted = ["id", "name", "type"]
            wanted += [name if name in columns else "''" for name in ("offered_qos_profiles", "type_description_hash")]
            topics = {}
            for id, name, typename, qos, hash in database.execute(f"SELECT {', '.join(wanted)} FROM topics"):
                topics[id] = name
                definition, encoding = definitions.get(typename, (None, "ros2msg"))
                _add_topic(path, writer, name, typename, _qos(qos, name), definition, encoding, hash)
            rows = database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY timestamp")
            for id, log_ns, data in rows:
                if id not in topics or not isinstance(log_ns, int) or not isinstance(data, bytes):
                    return f"holds a message of topic {shown(id)} at {shown(log_ns)}: {shown(data)}, which is none"
                writer.write(topics[id], log_ns, _plain(data))
        except sqlite3.Error as error:
            return f"cannot be read further: {error}"
        finally:
            database.close()
    return None


def _add_topic(path: Path, writer: BagWriter, name: str, typename: str, qos: list, definition: str | None,
               encoding: str, hash: str) -> None:  # fmt: skip
    for what, text in (("name", name), ("type", typename), ("encoding", encoding), ("hash", hash)):
        value_of(str, text, f"bag file {path}: {what} of a topic")
    value_of(str | None, definition, f"bag file {path}: definition of {typename}")
    known = writer.topics.get(name)
    if known is None:
        writer.add_topic(name, typename, qos, definition, encoding, hash)
    elif known.type != typename:
        raise InputError(f"bag file {path}: topic {name} is a {typename}, expected {known.type} as before")


def _qos(text: str | None, topic: str) -> list[dict]:
    where = f"topic {topic}: offered_qos_profiles"
    return value_of(list[dict], parsed(text or "[]", "YAML", where) or [], where)


def _plain(data: bytes) -> bytes:
    """A message of a bag whose metadata, which would say that messages are compressed, was lost."""
    if data[:4] == zstandard.MAGIC_NUMBER.to_bytes(4, "little"):
        return unpacked(data)
    return data
