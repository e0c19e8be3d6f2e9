"""Writing rosbag2 bags: a folder of mcap files and their metadata.yaml, without ROS."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter

from vla_ros.bags.definitions import full_definition
from vla_ros.core.errors import InputError
from vla_ros.core.files import new_file

METADATA_VERSION = 9  # ROS 2 Jazzy and later; QoS as mappings
COMPRESSIONS = {"none": CompressionType.NONE, "zstd": CompressionType.ZSTD, "lz4": CompressionType.LZ4}


@dataclass
class Topic:
    """A topic of the bag. `qos` holds what its publishers offered, as rosbag2's mappings."""

    name: str
    type: str
    definition: str
    hash: str
    encoding: str = "ros2msg"
    qos: Sequence[Mapping[str, Any]] = ()
    count: int = 0


@dataclass
class _File:
    path: Path
    stream: BinaryIO
    mcap: McapWriter
    channels: dict[str, int] = field(default_factory=dict)
    schemas: dict[str, int] = field(default_factory=dict)
    start_ns: int = 0
    end_ns: int = 0
    count: int = 0
    size: int = 0  # bytes of messages


class BagWriter:
    """A bag that `ros2 bag` reads: `PATH/NAME_0.mcap`, `NAME_1.mcap`, ... and `metadata.yaml`.

    Args:
        path: folder to create; InputError when it exists already.
        compression: of the chunks inside the files: none, zstd or lz4.
        max_file_bytes: begin the next file after this many bytes of messages, 0 = never.
        max_file_seconds: begin the next file after this much log time, 0 = never.
        chunk_bytes: messages are written in chunks of this size; `flush` ends a chunk early.
        name: what the files are called, by default as the folder.
    """

    def __init__(
        self,
        path: str | Path,
        compression: str = "none",
        max_file_bytes: int = 0,
        max_file_seconds: float = 0.0,
        chunk_bytes: int = 4 << 20,
        name: str = "",
    ) -> None:
        if compression not in COMPRESSIONS:
            raise InputError(f"compression {compression!r}, expected one of {list(COMPRESSIONS)}")
        self.path = Path(path)
        self.name = name or self.path.name
        self.topics: dict[str, Topic] = {}
        self._compression = COMPRESSIONS[compression]
        self._max_file_bytes = max_file_bytes
        self._max_file_ns = int(max_file_seconds * 1e9)
        self._chunk_bytes = chunk_bytes
        self._files: list[_File] = []
        self._file: _File | None = None
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise InputError(f"bag {self.path}: exists already, expected a new folder") from None
        except OSError as error:
            raise InputError(f"bag {self.path}: {error.strerror}") from error

    def add_topic(
        self,
        name: str,
        typename: str,
        qos: Sequence[Mapping[str, Any]] = (),
        definition: str | None = None,
        encoding: str = "ros2msg",
        hash: str = "",
    ) -> None:
        """Announce a topic. Without a definition it is looked up; InputError when the type is unknown."""
        if name in self.topics:
            raise InputError(f"bag {self.path}: topic {name} is in it already")
        if definition is None:
            definition, hash = full_definition(typename)
        self.topics[name] = Topic(name, typename, definition, hash, encoding, tuple(dict(row) for row in qos))

    def write(self, topic: str, log_ns: int, data: bytes | memoryview, publish_ns: int | None = None) -> None:
        """Append one serialized message. Raises OSError if the disk refuses it."""
        file = self._file
        if file is None or self._is_full(file, log_ns):
            self.next_file()
            file = self._open()
        channel = file.channels.get(topic)
        if channel is None:
            channel = self._register(file, self.topics[topic])
        file.mcap.add_message(channel, log_ns, bytes(data), log_ns if publish_ns is None else publish_ns)
        file.start_ns = log_ns if file.count == 0 else min(file.start_ns, log_ns)
        file.end_ns = max(file.end_ns, log_ns)
        file.count += 1
        file.size += len(data)
        self.topics[topic].count += 1

    def flush(self) -> None:
        """Wait until everything is on the disk."""
        if self._file is not None:
            self._file.mcap.flush()
            os.fsync(self._file.stream.fileno())

    def next_file(self) -> None:
        """Finish the current file, if any; the next message begins a new one."""
        if self._file is not None:
            self._file.mcap.finish()
            self._file.stream.close()
            self._file = None

    def close(self, custom: Mapping[str, str] | None = None) -> None:
        """Finish the last file and write the metadata. `custom` becomes rosbag2's `custom_data`."""
        if not self._files:  # rosbag2 opens no bag without a file
            self._open()
        self.next_file()
        text = yaml.safe_dump({"rosbag2_bagfile_information": self._metadata(custom)}, sort_keys=False)
        with new_file(self.path / "metadata.yaml", "bag") as part:
            part.write_text(text, encoding="utf-8")

    def abort(self) -> None:
        """Leave the bag as it is, after an error of the disk; `repair` can recover it."""
        if self._file is not None:
            try:
                self._file.stream.close()
            finally:
                self._file = None

    @property
    def message_count(self) -> int:
        return sum(topic.count for topic in self.topics.values())

    def _is_full(self, file: _File, log_ns: int) -> bool:
        return bool(
            (self._max_file_bytes and file.size >= self._max_file_bytes)
            or (self._max_file_ns and log_ns - file.start_ns >= self._max_file_ns)
        )

    def _open(self) -> _File:
        path = self.path / f"{self.name}_{len(self._files)}.mcap"
        # Unbuffered: mcap writes whole chunks, which must not wait in this process.
        stream = path.open("xb", buffering=0)
        writer = McapWriter(_WholeWrites(stream), chunk_size=self._chunk_bytes, compression=self._compression)
        writer.start(profile="ros2", library="vla_ros")
        self._file = _File(path, stream, writer)
        self._files.append(self._file)
        return self._file

    def _register(self, file: _File, topic: Topic) -> int:
        if topic.type not in file.schemas:
            file.schemas[topic.type] = file.mcap.register_schema(
                topic.type, topic.encoding if topic.definition else "", topic.definition.encode()
            )
        file.channels[topic.name] = file.mcap.register_channel(
            topic.name,
            "cdr",
            file.schemas[topic.type],
            {
                "offered_qos_profiles": yaml.safe_dump(list(topic.qos), sort_keys=False) if topic.qos else "",
                "topic_type_hash": topic.hash,
            },
        )
        return file.channels[topic.name]

    def _metadata(self, custom: Mapping[str, str] | None) -> dict[str, Any]:
        files = [file for file in self._files if file.count] or self._files[:1]
        return {
            "version": METADATA_VERSION,
            "storage_identifier": "mcap",
            "relative_file_paths": [file.path.name for file in files],
            **_span(files),
            "topics_with_message_count": [
                {
                    "topic_metadata": {
                        "name": topic.name,
                        "type": topic.type,
                        "serialization_format": "cdr",
                        "offered_qos_profiles": list(topic.qos),
                        "type_description_hash": topic.hash,
                    },
                    "message_count": topic.count,
                }
                for topic in self.topics.values()
            ],
            "compression_format": "",
            "compression_mode": "",
            "files": [{"path": file.path.name, **_span([file])} for file in files],
            "custom_data": dict(custom) if custom else None,
            "ros_distro": os.environ.get("ROS_DISTRO", "kilted"),
        }


def _span(files: Sequence[_File]) -> dict[str, Any]:
    start = min((file.start_ns for file in files), default=0)
    end = max((file.end_ns for file in files), default=0)
    return {
        "duration": {"nanoseconds": end - start},
        "starting_time": {"nanoseconds_since_epoch": start},
        "message_count": sum(file.count for file in files),
    }


class _WholeWrites:
    """An unbuffered file whose `write` writes everything or raises; a raw write may be partial."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) :]
        return len(data)

    def tell(self) -> int:
        return self._stream.tell()

    def flush(self) -> None:
        """Nothing waits in this process."""
