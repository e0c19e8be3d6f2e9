"""Reading rosbag2 bags: sqlite3 and mcap, plain or compressed, with or without embedded definitions."""

import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from rosbags.interfaces import Connection
from zstandard import ZstdError

from vla_ros.bags.definitions import deserialized, starts_with_header, store_for
from vla_ros.bags.files import Metadata, opened, read_metadata
from vla_ros.bags.storage import plain
from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Range, value_of

Messages = Annotated[int, Range(0, 2**63 - 1)]
Instant = Annotated[int, Range(-(2**63), 2**63 - 1)]  # ns


class Record(NamedTuple):
    """A serialized message of the bag."""

    topic: str
    type: str
    log_ns: int
    data: bytes


@dataclass(frozen=True)
class TopicInfo:
    """What a bag says about a topic."""

    name: str
    type: str
    count: int
    qos: tuple[dict[str, Any], ...] = ()  # what its publishers offered, as rosbag2's mappings
    problem: str = ""  # why its messages cannot be decoded
    plays: bool = True  # whether they can be published unchanged, if their type is installed


class Bag:
    """An open bag: a folder with a metadata.yaml, or a single .mcap or .db3 file. Use as a context manager.

    Every error is an InputError that names the file and, if there is one, the topic and the time. If a topic cannot be
    read, the others can.

    Attributes:
        topics: name -> TopicInfo, from the files, not from the metadata.
        custom: custom_data of the metadata.
        notes: sentences about problems.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"bag {self.path}: no such file or folder")
        if self.path.is_dir() and not (self.path / "metadata.yaml").is_file():
            files = [*self.path.glob("*.mcap"), *self.path.glob("*.db3")]
            hint = f"was it cut off? Recover it with: vla-ros bag repair {self.path}" if files else "not a bag"
            raise InputError(f"bag {self.path}: has no metadata.yaml: {hint}")
        self._stack = ExitStack()
        self._noted: set[str] = set()
        try:
            folder = read_metadata(self.path) if self.path.is_dir() else Metadata([self.path])
            self._files = [self._stack.enter_context(opened(file)) for file in folder.files]
            filled = [file.metadata for file in self._files if file.metadata.message_count]
            self.message_count = sum(value_of(Messages, one.message_count, "message count") for one in filled)
            self.start_ns = min((value_of(Instant, one.start_time, "time") for one in filled), default=0)
            self.end_ns = max((value_of(Instant, one.end_time - 1, "time") for one in filled), default=0)
            channels: dict[str, list[Connection]] = {}
            for connection in [c for file in self._files for c in file.connections]:
                value_of(str, connection.topic, "name of a topic")
                value_of(str, connection.msgtype, f"topic {connection.topic}: type")
                channels.setdefault(connection.topic, []).append(connection)
        except Exception as error:  # rosbags, yaml, zstd, sqlite3 and the system each have their own
            self.close()
            raise self._unreadable(error) from error
        self._store, problems = store_for(frozenset((c.msgtype, c.msgdef) for of in channels.values() for c in of))
        self.topics = {name: _topic(name, channels[name], problems) for name in sorted(channels)}
        self.custom = folder.custom
        found = {name: info.count for name, info in self.topics.items()}
        self.notes = [f"bag {self.path}: {note}" for note in folder.disagreements(found)]
        self.notes += [f"bag {self.path}: topic {name}: {info.problem}" for name, info in self.topics.items()
                       if info.problem]  # fmt: skip

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def records(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[Record]:
        """Messages in order of log time; of `topics` only when given, from `start_ns` to before `stop_ns`.

        A message whose compression is damaged is left out, with a note.
        """
        last = self.start_ns
        try:
            for file in self._files:
                wanted = [c for c in file.connections if topics is None or c.topic in topics]
                for connection, last, data in file.messages(wanted, start_ns, stop_ns) if wanted else ():
                    if not isinstance(data, (bytes, bytearray, memoryview)):
                        raise InputError(f"topic {connection.topic}: {shown(data)}, expected the bytes of a message")
                    value_of(Instant, last, f"topic {connection.topic}: time")
                    record = Record(connection.topic, connection.msgtype, last, data)
                    try:
                        record = record._replace(data=plain(data))
                    except (InputError, ZstdError) as error:
                        self._note(record.topic, f"{self.where(record)}: {error}")
                        continue
                    yield record
        except Exception as error:
            raise self._unreadable(error, f" after {self.when(last)}") from error

    def decode(self, record: Record) -> Any:
        """The message as an object with the fields of its definition. Raises InputError."""
        try:
            if problem := self.topics[record.topic].problem:
                raise InputError(problem)
            return deserialized(self._store, record.type, record.data)
        except InputError as error:
            raise InputError(f"{self.where(record)}: {error}") from error

    def decode_or_note(self, record: Record) -> Any:
        """The message; None if it cannot be decoded, with a note for the first one of each topic."""
        try:
            return self.decode(record)
        except InputError as error:
            self._note(record.topic, str(error))
            return None

    def _note(self, topic: str, said: str) -> None:
        """Note that messages are left out, once for each topic."""
        if topic not in self._noted:
            self._noted.add(topic)
            self.notes.append(f"left out: {said}")

    def header_ns(self, record: Record) -> int | None:
        """The stamp of a message that begins with a header, ns, without decoding it; None for others."""
        if not starts_with_header(self._store, record.type) or len(record.data) < 12:
            return None
        seconds, nanoseconds = struct.unpack_from("<iI" if record.data[1] else ">iI", record.data, 4)
        return seconds * 1_000_000_000 + nanoseconds

    def when(self, ns: int) -> str:
        """A time in words: s since the beginning of the bag, and s on the clock of its messages."""
        return f"t={(ns - self.start_ns) / 1e9:.3f} s ({ns / 1e9:.3f})"

    def where(self, record: Record) -> str:
        """File, topic and time of a message, to begin an error with."""
        return f"bag {self.path}: topic {record.topic}: {self.when(record.log_ns)}"

    def _unreadable(self, error: Exception, where: str = "") -> InputError:
        hint = ""
        if not isinstance(error, (PermissionError, InputError)) and self.path.suffix != ".db3":
            hint = f" If it was cut off, recover it with: vla-ros bag repair {self.path}"
        return InputError(f"bag {self.path}: cannot be read{where}: {error}{hint}")


def _topic(name: str, channels: list[Connection], problems: Mapping[str, str]) -> TopicInfo:
    types = sorted({channel.msgtype for channel in channels})
    formats = sorted({str(channel.ext.serialization_format) for channel in channels})
    problem = problems.get(types[0], "")
    if len(types) > 1:
        problem = f"has messages of several types: {', '.join(types)}"
    elif formats != ["cdr"]:
        problem = f"its messages are {', '.join(formats)}, expected cdr"
    kinds = ("history", "reliability", "durability")
    qos = tuple({"depth": one.depth} | {kind: getattr(one, kind).name.lower() for kind in kinds}
                for channel in channels for one in channel.ext.offered_qos_profiles)  # fmt: skip
    count = sum(channel.msgcount for channel in channels)
    return TopicInfo(name, ", ".join(types), count, qos, problem, len(types) == 1 and formats == ["cdr"])
