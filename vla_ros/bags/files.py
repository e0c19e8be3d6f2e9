"""The files of a bag, opened so that what one topic is or says about itself cannot cost the others."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import storage_mcap
from rosbags.rosbag2.metadata import ReaderMetadata, parse_qos
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from vla_ros.bags.storage import check_tables, chunk, unpack_file
from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import regular
from vla_ros.core.records import read_mapping, value_of

FORMATS = {
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
    "omgidl": MessageDefinitionFormat.IDL,
}


@dataclass
class Metadata:
    """What a metadata.yaml says, as far as it is needed: what is in the files, they say themselves."""

    files: list[Path]
    custom: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)  # topic -> messages
    notes: list[str] = field(default_factory=list)

    def disagreements(self, found: Mapping[str, int]) -> list[str]:
        """Sentences. `found`: topic -> messages in the files."""
        names = sorted({*self.counts, *found} if self.counts else ())
        wrong = [f"topic {name}: metadata.yaml says {shown(self.counts.get(name, 0))} messages, the files hold "
                 f"{found.get(name, 0)}" for name in names if self.counts.get(name, 0) != found.get(name, 0)]
        return self.notes + wrong


def storage_files(folder: Path) -> list[Path]:
    """The files of a bag that lie in its folder, in the order of their numbers."""
    files = [path for path in folder.iterdir() if path.name.endswith((".mcap", ".db3", ".mcap.zstd", ".db3.zstd"))]
    return sorted(files, key=lambda path: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", path.name)])


def read_metadata(folder: Path) -> Metadata:
    """Raises InputError if no file is named and there, or where files lie there and none is named."""
    path = folder / "metadata.yaml"
    said = value_of(dict, read_mapping(path, "bag").get("rosbag2_bagfile_information"), f"bag {path}: information")
    names = value_of(list[str], said.get("relative_file_paths"), f"bag {path}: relative_file_paths")
    files = [folder / PurePath(name).name for name in names]  # older versions say the folder too
    named = {file.name.removesuffix(".zstd") for file in files}  # players unpack beside what they read
    unnamed = [file for file in storage_files(folder) if file.name.removesuffix(".zstd") not in named]
    if unnamed and not files:
        raise InputError(
            f"bag {path}: relative_file_paths: empty, expected {unnamed[0].name}; recover it with: vla-ros bag repair "
            f"{folder}"
        )
    missing = [file for file in files if not file.exists()]
    for file in files if len(missing) == len(files) else set(files) - set(missing):
        regular(file, "bag file")
    metadata = Metadata([file for file in files if file not in missing])
    metadata.notes = [f"{file.name} is missing, metadata.yaml names it" for file in missing]
    metadata.notes += [f"{file.name} is not read, metadata.yaml does not name it" for file in unnamed]
    metadata.custom = value_of(dict[str, str] | None, said.get("custom_data"), f"bag {path}: custom_data") or {}
    try:
        for row in value_of(list[dict], said.get("topics_with_message_count"), "topics_with_message_count"):
            name = value_of(str, value_of(dict, row.get("topic_metadata"), "topic_metadata").get("name"), "name")
            metadata.counts[name] = row.get("message_count")
    except InputError as error:
        metadata.counts = {}
        metadata.notes.append(f"metadata.yaml: {error}")
    return metadata


@contextmanager
def opened(path: Path) -> Iterator[McapReader | Sqlite3Reader]:
    """The reader of a storage file; one that is compressed as a whole is unpacked beside the system's other temporary
    files. Raises InputError, or an error of the library."""
    regular(path, "bag file")
    if path.suffix == ".zstd":
        with tempfile.TemporaryDirectory() as folder, opened(unpack_file(path, folder)) as reader:
            yield reader
        return
    kinds = {".mcap": McapReader, ".db3": _SqliteReader}
    if path.suffix not in kinds:
        raise InputError(f"bag file {path.name}: expected one of {[*kinds, *(f'{kind}.zstd' for kind in kinds)]}")
    if path.suffix == ".db3":
        check_tables(path)
    reader = kinds[path.suffix](path)
    reader.open()
    try:
        yield reader
    finally:
        reader.close()


def definition(encoding: Any, text: Any) -> MessageDefinition:
    """Of an encoding that nobody reads: none."""
    known = encoding in FORMATS and isinstance(text, str)
    return MessageDefinition(FORMATS[encoding] if known else MessageDefinitionFormat.NONE, text if known else "")


def _offers(text: Any) -> list[Any]:
    try:
        return parse_qos(text)
    except Exception:  # the offered QoS is only a hint for playing the bag
        return []


class _SqliteReader(Sqlite3Reader):
    """The library's own fails at the first encoding of a definition, or profile, that it does not know."""

    def _open(self) -> None:
        db = self.dbconn
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = {row[1] for row in db.execute("PRAGMA table_info(topics)")}
        if "messages" not in tables or not {"id", "name", "type", "serialization_format"} <= columns:
            raise InputError("it lacks the tables of a bag")
        definitions = {}
        if "message_definitions" in tables:
            rows = db.execute("SELECT topic_type, encoding, encoded_message_definition FROM message_definitions")
            definitions = {row[0]: definition(*row[1:]) for row in rows}
        counts = dict(db.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"))
        qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
        self.connections = [
            Connection(id, topic, kind, definitions.get(kind, definition("", "")), "", counts.get(id, 0),
                       ConnectionExtRosbag2(form, _offers(offered)), self)
            for id, topic, kind, form, offered in
            db.execute(f"SELECT id, name, type, serialization_format, {qos} FROM topics ORDER BY id")
        ]  # fmt: skip
        ((start, end, count),) = db.execute("SELECT min(timestamp), max(timestamp), count(*) FROM messages")
        if count:
            self.metadata = ReaderMetadata(end - start + 1, start, end + 1, count, None, None, None, None)


# Of mcap files the library unpacks whatever a chunk holds, not the size that it says, and fails at the first schema or
# profile that it does not know.
for _name in ("zstd", "lz4"):
    storage_mcap.DECOMPRESSORS[_name] = lambda data, size, name=_name: chunk(data, name, size)
_library_qos = storage_mcap.get_qos


def _mcap_qos(metadata: bytes) -> list[Any]:
    try:
        return _library_qos(metadata)
    except Exception:
        return []


storage_mcap.get_qos = _mcap_qos
storage_mcap.get_msgdef = lambda schema: definition(schema.encoding, schema.data) if schema else definition("", "")
storage_mcap.read_string = lambda stream: storage_mcap.read_bytes(stream).decode(errors="replace")
