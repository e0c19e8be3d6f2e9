"""Recovery of a bag that was cut off: every complete message is copied to a new bag."""

import shutil
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import zstandard
from mcap.exceptions import McapError
from mcap.reader import SeekingReader
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import CRCValidationError, StreamReader, breakup_chunk

from vla_ros.bags.files import storage_files
from vla_ros.bags.storage import MOST_UNPACKED, check_tables, chunk, plain, unpack_file
from vla_ros.bags.writer import BagWriter
from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import new_folder, regular
from vla_ros.core.records import parsed, value_of

# What the mcap reader raises on a file that ends or turns to garbage in the middle.
BROKEN = (McapError, CRCValidationError, EOFError, struct.error, UnicodeDecodeError, ValueError,
          RuntimeError, zlib.error, zstandard.ZstdError, MemoryError, OverflowError)  # fmt: skip


@dataclass
class RepairReport:
    """What `repair` found."""

    output: Path
    messages: int = 0  # recovered
    counts: dict[str, int] = field(default_factory=dict)  # of each topic
    broken: dict[str, str] = field(default_factory=dict)  # file -> why reading ended, or what was skipped
    notes: dict[str, str] = field(default_factory=dict)  # topic -> what is wrong with it, or why it was left out


def repair(bag: str | Path, output: str | Path | None = None, progress: Callable[[int, int], None] | None = None
           ) -> RepairReport:  # fmt: skip
    """Copy everything readable of `bag` (a folder or one file) to a new complete bag; the original is not changed.

    Args:
        output: folder of the new bag, by default `BAG_repaired` beside the original.
        progress: called with bytes done and bytes in all.

    Raises InputError when no message can be read, when the output exists or cannot be written.
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
                if reason := _copy(path, writer, report.notes):
                    report.broken[path.name] = reason
                writer.next_file()
                done += path.stat().st_size
                if progress:
                    progress(done, total)
            if not writer.message_count:
                why = [f"{name}: {reason}" for name, reason in (report.broken | report.notes).items()]
                raise InputError(f"bag {bag}: {'; '.join(why[:4]) or 'has none'}; expected a message that can be "
                                 "read")
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
    files = storage_files(bag) if bag.is_dir() else [bag]
    if not files or (not bag.is_dir() and bag.suffix not in (".mcap", ".db3")):
        raise InputError(f"bag {bag}: contains no .mcap and no .db3 file")
    return [regular(file, "bag file") for file in files]


def _copy(path: Path, writer: BagWriter, notes: dict[str, str]) -> str | None:
    """Append a storage file to the writer; the reason why reading ended early, None when it was whole."""
    if path.suffix == ".zstd":  # rosbag2 compresses each file when it is done with it
        with tempfile.TemporaryDirectory(dir=writer.path.parent) as folder:
            try:
                plain_file = unpack_file(path, folder)
            except (zstandard.ZstdError, InputError) as error:
                return f"cannot be unpacked: {error}"
            return _copy(plain_file, writer, notes)
    return (_copy_mcap if path.suffix == ".mcap" else _copy_sqlite)(path, writer, notes)


def _copy_mcap(path: Path, writer: BagWriter, notes: dict[str, str]) -> str | None:
    schemas: dict[int, Schema] = {}
    topics: dict[int, str | None] = {}  # None: left out
    damaged: list[str] = []
    channels = _channels_at_the_end(path)
    with path.open("rb") as stream:
        records = _records(stream, damaged)
        while True:
            try:
                record = next(records)
            except StopIteration:
                break
            except BROKEN as error:
                damaged.append(
                    f"ends at byte {stream.tell()} of {path.stat().st_size}: {type(error).__name__} {error}".rstrip()
                )
                break
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel) and record.id not in topics:
                topics[record.id] = _channel(record, schemas).added(writer, notes)
            elif isinstance(record, Message):
                if record.channel_id not in topics:  # its description was in a damaged chunk
                    channel = channels.get(record.channel_id)
                    topics[record.channel_id] = channel.added(writer, notes) if channel else None
                    if not channel:
                        notes[f"channel {record.channel_id}"] = "left out: its topic is in a damaged part"
                if topic := topics[record.channel_id]:
                    _write(writer, notes, topic, record.log_time, record.data, record.publish_time)
    return "; ".join(damaged) or None


def _channel(channel: Channel, schemas: dict[int, Schema]) -> "_Topic":
    schema = schemas.get(channel.schema_id)
    return _Topic(channel.topic, schema and schema.name, channel.message_encoding,
                  channel.metadata.get("offered_qos_profiles"), schema and schema.data, schema and schema.encoding,
                  channel.metadata.get("topic_type_hash", ""))  # fmt: skip


def _channels_at_the_end(path: Path) -> dict[int, "_Topic"]:
    """By their number; an mcap file that was finished says them again at its end. Empty for one that was cut off."""
    try:
        with path.open("rb") as stream:
            summary = SeekingReader(stream, record_size_limit=MOST_UNPACKED).get_summary()
    except (*BROKEN, OSError, StopIteration):
        return {}
    return {id: _channel(one, summary.schemas) for id, one in summary.channels.items()} if summary else {}


def _records(stream: BinaryIO, damaged: list[str]) -> Iterator[McapRecord]:
    """Of an mcap file, chunks unpacked with a bound; those that cannot be are passed over and named in `damaged`.

    Raises one of BROKEN.
    """
    reader = StreamReader(stream, emit_chunks=True, validate_crcs=True, record_size_limit=MOST_UNPACKED)
    for record in reader.records:
        if not isinstance(record, Chunk):
            yield record
            continue
        try:
            record.data = chunk(record.data, record.compression, record.uncompressed_size)
            record.compression = ""
            inner = breakup_chunk(record, validate_crc=True)
        except BROKEN as error:
            at = f"chunk before byte {stream.tell()} skipped"
            damaged.append(f"{at}: {type(error).__name__} {error}".rstrip())
            continue
        yield from inner


def _copy_sqlite(path: Path, writer: BagWriter, notes: dict[str, str]) -> str | None:
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
                definitions = {row[0]: row[1:] for row in database.execute(query)}
            wanted = ["id", "name", "type"]
            wanted += [name if name in columns else f"'{default}'" for name, default in
                       (("serialization_format", "cdr"), ("offered_qos_profiles", ""), ("type_description_hash", ""))]
            topics = {}
            for id, name, typename, form, qos, hash in database.execute(f"SELECT {', '.join(wanted)} FROM topics"):
                definition, encoding = definitions.get(typename, (None, None))
                topics[id] = _Topic(name, typename, form, qos, definition, encoding, hash).added(writer, notes)
            for id, log_ns, data in database.execute(
                "SELECT topic_id, timestamp, data FROM messages ORDER BY timestamp"
            ):
                if topics.get(id) and isinstance(log_ns, int) and isinstance(data, bytes):
                    _write(writer, notes, topics[id], log_ns, data)
                elif id not in topics or topics[id]:
                    named = shown(topics.get(id) or f"topic number {shown(id)}")
                    notes[named] = f"a message at {shown(log_ns)} left out: {shown(data)}, which is not a message"
        except sqlite3.Error as error:
            return f"cannot be read further: {error}"
        finally:
            database.close()
    return None


@dataclass
class _Topic:
    """What a file says about a topic: it may be anything."""

    name: Any
    type: Any
    format: Any  # of the messages
    qos: Any
    definition: Any
    encoding: Any  # of the definition
    hash: Any

    def added(self, writer: BagWriter, notes: dict[str, str]) -> str | None:
        """Its name once it is in the bag; None, with a note, when it is left out."""
        name, known = self.name, writer.topics.get(self.name) if isinstance(self.name, str) else None
        try:
            value_of(str, name, "name of a topic")
            value_of(str, self.type, "type")
            if self.format != "cdr":
                raise InputError(f"its messages are {shown(self.format)}, expected cdr")
            if known and known.type != self.type:
                raise InputError(f"is a {self.type} here, {known.type} before")
        except InputError as error:
            notes[name if isinstance(name, str) else shown(name)] = f"left out: {error}"
            return None
        if known:
            return name
        try:
            qos = _qos(self.qos, name)
        except InputError as error:
            qos, notes[name] = [], f"kept without its publishers' QoS: {error}"
        text = self.definition.decode(errors="replace") if isinstance(self.definition, bytes) else self.definition
        hash = self.hash if isinstance(self.hash, str) else ""
        if text and isinstance(text, str) and isinstance(self.encoding, str):
            writer.add_topic(name, self.type, qos, text, self.encoding, hash)
            return name
        try:
            writer.add_topic(name, self.type, qos)
        except InputError as error:
            notes[name] = f"kept without the definition of its messages: {error}"
            writer.add_topic(name, self.type, qos, definition="", hash=hash)
        return name


def _write(writer: BagWriter, notes: dict[str, str], topic: str, log_ns: int, data: bytes, publish_ns: int | None = None
           ) -> None:  # fmt: skip
    try:
        data = plain(data)
    except (zstandard.ZstdError, InputError) as error:
        notes[topic] = f"a message at {log_ns / 1e9:.3f} left out: cannot be unpacked: {error}"
    else:
        writer.write(topic, log_ns, data, publish_ns)


def _qos(text: str | None, topic: str) -> list[dict]:
    where = f"topic {topic}: offered_qos_profiles"
    return value_of(list[dict], parsed(text or "[]", "YAML", where) or [], where)
