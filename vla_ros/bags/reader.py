"""Reading rosbag2 bags: sqlite3 and mcap, plain or compressed, with or without embedded definitions."""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from rosbags.rosbag2 import Reader

from vla_ros.bags.definitions import deserialized, starts_with_header, store_for
from vla_ros.bags.storage import check_bag, unpacked
from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Range, value_of

Messages = Annotated[int, Range(0, 2**63 - 1)]
Instant = Annotated[int, Range(-(2**63), 2**63 - 1)]  # ns


class Record(NamedTuple):
    """A serialized message as it is in the bag."""

    topic: str
    type: str
    log_ns: int
    data: bytes


@dataclass(frozen=True)
class TopicInfo:
    """What a bag says about a topic. `qos`: what its publishers offered, as rosbag2's mappings."""

    name: str
    type: str
    count: int
    qos: tuple[dict[str, Any], ...] = ()


class Bag:
    """An open bag: a folder with a metadata.yaml, or a single .mcap or .db3 file. Use as a context manager.

    Every error is an InputError that names the file and, where there is one, the topic and the time.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"bag {self.path}: no such file or folder")
        if self.path.is_dir() and not (self.path / "metadata.yaml").is_file():
            files = [*self.path.glob("*.mcap"), *self.path.glob("*.db3")]
            hint = f"was it cut off? Recover it with: vla-ros bag repair {self.path}" if files else "not a bag"
            raise InputError(f"bag {self.path}: has no metadata.yaml: {hint}")
        try:
            check_bag(self.path)
            self._reader = Reader(self.path)
            self._reader.open()
            topics = dict(self._reader.topics)
            for connection in self._reader.connections:
                value_of(str, connection.topic, "name of a topic")
                value_of(str, connection.msgtype, f"topic {connection.topic}: type")
            self.message_count = value_of(Messages, self._reader.message_count, "message count")
            self.start_ns = self._reader.start_time if self.message_count else 0
            self.end_ns = self._reader.end_time - 1 if self.message_count else 0
            for ns in (self.start_ns, self.end_ns):
                value_of(Instant, ns, "time")
        except Exception as error:  # rosbags, yaml, zstd, sqlite3 and the system each have their own
            raise self._unreadable(error) from error
        storage = self._reader.storage
        self._packed = storage.metadata.compression_mode == "message"
        storage.metadata = storage.metadata._replace(compression_mode=None)  # messages are unpacked here, with a bound
        self._store = store_for(frozenset((c.msgtype, c.msgdef) for c in self._reader.connections))
        self.topics = {
            name: TopicInfo(name, info.msgtype or "", info.msgcount, _qos(info.connections))
            for name, info in topics.items()
        }
        for name, info in self.topics.items():
            if not info.type:
                self.close()
                raise InputError(f"bag {self.path}: topic {name} has messages of several types")
        self.custom: dict[str, str] = dict(storage.metadata.custom or {})

    def close(self) -> None:
        if self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def records(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[Record]:
        """Messages in order of log time; of `topics` only when given, from `start_ns` to before `stop_ns`."""
        wanted = [c for c in self._reader.connections if topics is None or c.topic in topics]
        if not wanted:
            return
        last = self.start_ns
        try:
            for connection, last, data in self._reader.messages(wanted, start_ns, stop_ns):
                if not isinstance(data, (bytes, bytearray, memoryview)):
                    raise InputError(f"topic {connection.topic}: {shown(data)}, expected the bytes of a message")
                value_of(Instant, last, f"topic {connection.topic}: time")
                yield Record(connection.topic, connection.msgtype, last, unpacked(data) if self._packed else data)
        except Exception as error:
            raise self._unreadable(error, f" after {self.when(last)}") from error

    def decode(self, record: Record) -> Any:
        """The message as an object with the fields of its definition. Raises InputError."""
        try:
            return deserialized(self._store, record.type, record.data)
        except InputError as error:
            raise InputError(f"{self.where(record)}: {error}") from error

    def header_ns(self, record: Record) -> int | None:
        """The stamp of a message that begins with a header, ns, without decoding it; None for others."""
        if not starts_with_header(self._store, record.type) or len(record.data) < 12:
            return None
        seconds, nanoseconds = struct.unpack_from("<iI" if record.data[1] else ">iI", record.data, 4)
        return seconds * 1_000_000_000 + nanoseconds

    def when(self, ns: int) -> str:
        """A time for people: s since the beginning of the bag, and s on the clock of its messages."""
        return f"t={(ns - self.start_ns) / 1e9:.3f} s ({ns / 1e9:.3f})"

    def where(self, record: Record) -> str:
        """File, topic and time of a message, to begin an error with."""
        return f"bag {self.path}: topic {record.topic}: {self.when(record.log_ns)}"

    def _unreadable(self, error: Exception, where: str = "") -> InputError:
        hint = ""
        if not isinstance(error, (PermissionError, InputError)) and self.path.suffix != ".db3":
            hint = f" If it was cut off, recover it with: vla-ros bag repair {self.path}"
        return InputError(f"bag {self.path}: cannot be read{where}: {error}{hint}")


def _qos(connections: Collection[Any]) -> tuple[dict[str, Any], ...]:
    profiles = [qos for connection in connections for qos in connection.ext.offered_qos_profiles]
    kinds = ("history", "reliability", "durability")
    return tuple({"depth": qos.depth} | {kind: getattr(qos, kind).name.lower() for kind in kinds} for qos in profiles)
