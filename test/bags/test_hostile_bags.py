"""Bags that would take the disk, the memory or for ever."""

import os
import sqlite3
import struct

import lz4.frame
import pytest
import yaml
import zstandard
from bags import factory
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2.enums import CompressionMode

from vla_ros.bags import storage
from vla_ros.bags.reader import Bag
from vla_ros.bags.repair import repair
from vla_ros.bags.summary import summarise
from vla_ros.core.errors import InputError

MAGIC = b"\x89MCAP0\r\n"


@pytest.fixture
def bag(tmp_path):
    return factory.write_bag(tmp_path / "bag", factory.messages(0.2))


def test_little_that_unpacks_to_much(tmp_path, monkeypatch):
    """Chunks, messages and whole files, in the reader and in the repair."""
    monkeypatch.setattr(storage, "MOST_UNPACKED", 20_000)
    data = zstandard.compress(bytes(1 << 20))
    body = struct.pack("<QQQI", 1, 2, 20_000, 0) + struct.pack("<I", 4) + b"zstd" + struct.pack("<Q", len(data)) + data
    chunk = b"\x01" + struct.pack("<QI4sI", 12, 4, b"ros2", 0) + b"\x06" + struct.pack("<Q", len(body)) + body
    footer = b"\x02" + struct.pack("<Q", 20) + bytes(20)
    (tmp_path / "x.mcap").write_bytes(MAGIC + chunk + footer + MAGIC)
    with pytest.raises(InputError, match="unpacks to more than 20000 bytes"):
        Bag(tmp_path / "x.mcap")
    with pytest.raises(InputError, match="x.mcap: chunk before .* unpacks to more than 20000 bytes"):
        repair(tmp_path / "x.mcap", tmp_path / "r")
    with pytest.raises(InputError, match="unpacks to more than the 20000 bytes that it says"):
        storage.chunk(lz4.frame.compress(bytes(1 << 20)), "lz4", 20_000)


@pytest.mark.parametrize("name, said", [
    ("x_0.mcap.zstd", "begins with b'aaaaaaaa', expected b'.x89MCAP0"),
    ("x_0.db3.zstd", "begins with b'aaaaaaaaaaaaaaaa', expected b'SQLite format 3"),
    ("x_0.txt.zstd", "expected one of"),
])  # fmt: skip
def test_what_is_no_bag_is_not_unpacked(tmp_path, monkeypatch, name, said):
    path = tmp_path / "bag" / name
    path.parent.mkdir()
    path.write_bytes(b"")
    monkeypatch.setattr(storage, "pieces", lambda *given: iter([b"a" * 1000]))
    with pytest.raises(InputError, match=said):
        Bag(path)
    if "txt" not in name:
        with pytest.raises(InputError, match=said.partition(",")[0]):
            repair(path.parent, tmp_path / "r")


def test_a_length_that_nothing_has(tmp_path):
    """Of a record, and of what is in one."""
    for length, field in ((2**63, 2**63), (40, 2**63)):
        body = struct.pack("<QQQI", 1, 2, 10, 0) + struct.pack("<IQ", 0, field)
        (tmp_path / "x.mcap").write_bytes(MAGIC + b"\x06" + struct.pack("<Q", length) + body)
        with pytest.raises(InputError, match="x.mcap: x.mcap: .*; expected a message that can be read"):
            repair(tmp_path / "x.mcap", tmp_path / "r")


@pytest.mark.parametrize("said", [None, "", "x", "a/b/c", ["x"]])
def test_a_type_that_is_none(bag, said):
    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["topics_with_message_count"][0]["topic_metadata"]["type"] = said
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    with Bag(bag) as opened:  # the files are believed
        assert [row[:2] for row in factory.messages(0.2)] == [(r.topic, r.log_ns) for r in opened.records()]
        assert all(opened.decode(record) is not None for record in opened.records())


@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.FILE])
def test_compressed_bags_are_read_within_the_bound(tmp_path, monkeypatch, mode):
    plugin = StoragePlugin.SQLITE3
    rows = factory.write_foreign_bag(tmp_path / "b", 8, plugin, mode)
    with Bag(tmp_path / "b") as bag:
        assert sorted(record.data for record in bag.records()) == sorted(data for _, _, data in rows)
    unpacked = storage.unpacked
    monkeypatch.setattr(storage, "unpacked", lambda data: unpacked(data, 10))
    monkeypatch.setattr(storage, "most_of_file", lambda path, folder: 100)
    if mode == CompressionMode.MESSAGE:
        with Bag(tmp_path / "b") as bag:
            assert not list(bag.records())
            assert len(bag.notes) == len(bag.topics) and all("unpacks to more than" in note for note in bag.notes)
        return
    with pytest.raises(InputError, match="unpacks to more than"):
        Bag(tmp_path / "b")


@pytest.mark.parametrize("name", ["metadata.yaml", "bag_0.mcap"])
def test_a_pipe_blocks_nobody(bag, name):
    (bag / name).unlink()
    os.mkfifo(bag / name)
    with pytest.raises(InputError, match="not a regular file|has no metadata.yaml"):
        Bag(bag)
    if name != "metadata.yaml":
        with pytest.raises(InputError, match="not a regular file"):
            repair(bag, bag.parent / "r")


@pytest.mark.parametrize(("changes", "words"), [
    ({"relative_file_paths": ["../../etc/passwd"]}, "No such file"), ({"relative_file_paths": "x"}, "expected a list"),
    ({"custom_data": {"vla_ros.lost./joint_states": "many"}}, "'many', expected a number"),
    ({"custom_data": ["x"]}, "expected a mapping"), ({"message_count": 10**30}, "at most 64 bits"),
    ({"relative_file_paths": [7]}, "expected a string"),
])  # fmt: skip
def test_what_the_metadata_says(bag, changes, words):
    said = yaml.safe_load((bag / "metadata.yaml").read_text())
    said["rosbag2_bagfile_information"] |= changes
    (bag / "metadata.yaml").write_text(yaml.safe_dump(said))
    with pytest.raises(InputError, match=words) as error:
        summarise(bag)
    assert "\n" not in str(error.value)


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"


@pytest.mark.parametrize("table", [
    f"CREATE VIEW messages AS {ENDLESS} SELECT 1 AS id, 1 AS topic_id, i AS timestamp, x'00' AS data FROM n",
    "CREATE TABLE messages (id, topic_id, timestamp, data AS (zeroblob(1000000000)))",
])
def test_tables_that_are_computed(tmp_path, table):
    with sqlite3.connect(tmp_path / "x.db3") as database:
        database.execute("CREATE TABLE topics (id, name, type, serialization_format, offered_qos_profiles)")
        database.execute("INSERT INTO topics VALUES (1, '/s', 'std_msgs/msg/String', 'cdr', '')")
        database.execute(table)
    database.close()
    with pytest.raises(InputError, match="messages is computed, expected a table"):
        Bag(tmp_path / "x.db3")
    with pytest.raises(InputError, match="messages is computed"):
        repair(tmp_path / "x.db3", tmp_path / "r")
