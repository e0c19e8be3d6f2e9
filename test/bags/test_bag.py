"""Writing and reading bags, with rosbags and mcap as independent peers."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml
from bags.factory import (
    ARM,
    IMAGE,
    JOINTS,
    START,
    TEXT,
    TYPES,
    joints,
    kind,
    messages,
    pixels,
    raw,
    write_bag,
    write_foreign_bag,
)
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionMode
from rosbags.typesys import Stores, get_typestore

from vla_ros.bags.definitions import full_definition, standard_store
from vla_ros.bags.reader import Bag
from vla_ros.bags.writer import BagWriter
from vla_ros.core.errors import InputError


def test_what_is_written_is_read_by_rosbags_and_by_us(tmp_path):
    rows = messages(1.0)
    path = write_bag(tmp_path / "bag", rows, max_file_bytes=20_000, compression="zstd")
    files = sorted(file.name for file in path.glob("*.mcap"))
    assert files[:2] == ["bag_0.mcap", "bag_1.mcap"]
    with Reader(path) as reader:  # the peer: metadata, splits and definitions as rosbag2 has them
        assert reader.message_count == len(rows)
        assert [(c.topic, t, bytes(d)) for c, t, d in reader.messages()] == rows
        definition = {c.msgtype: c.msgdef.data for c in reader.connections}["sensor_msgs/msg/JointState"]
    assert "MSG: std_msgs/Header" in definition and "MSG: builtin_interfaces/Time" in definition
    with Bag(path) as bag:
        assert [(r.topic, r.log_ns, bytes(r.data)) for r in bag.records()] == rows
        assert {name: info.type for name, info in bag.topics.items()} == TYPES
        assert bag.topics[JOINTS].count == 51
        first = next(bag.records([IMAGE]))
        assert bag.header_ns(first) == START
        assert np.array_equal(bag.decode(first).data, pixels(0).reshape(-1))
        assert bag.header_ns(next(bag.records([TEXT]))) is None
    with (path / files[0]).open("rb") as stream:
        assert list(make_reader(stream, validate_crcs=True).iter_messages())


def test_splits_by_time(tmp_path):
    path = write_bag(tmp_path / "bag", messages(2.0), max_file_seconds=0.5)
    assert len(list(path.glob("*.mcap"))) == 4 + 1  # the last instant begins a fifth
    with Bag(path) as bag:
        assert bag.message_count == len(messages(2.0))


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("mode", [CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize("version", [8, 9])
def test_bags_of_other_writers(tmp_path, plugin, mode, version):
    rows = write_foreign_bag(tmp_path / "bag", version, plugin, mode)
    with Bag(tmp_path / "bag") as bag:
        assert [(r.topic, r.log_ns, bytes(r.data)) for r in bag.records()] == rows
        assert all(bag.decode(record) is not None for record in bag.records())


def test_a_sqlite_bag_of_an_older_ros(tmp_path):
    store = get_typestore(Stores.ROS2_KILTED)
    rows = messages(0.2)
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections = {topic: writer.add_connection(topic, TYPES[topic], typestore=store) for topic in TYPES}
        for topic, ns, data in rows:
            writer.write(connections[topic], ns, data)
    with closing(sqlite3.connect(tmp_path / "bag" / "bag.db3")) as database:
        database.executescript("DROP TABLE message_definitions; UPDATE schema SET schema_version = 3")
    with Bag(tmp_path / "bag") as bag:
        assert [(r.topic, r.log_ns, bytes(r.data)) for r in bag.records()] == rows
        assert np.array_equal(bag.decode(next(bag.records([IMAGE]))).data, pixels(0).reshape(-1))


def test_a_bag_without_definitions_uses_the_standard_ones(tmp_path):
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic(JOINTS, TYPES[JOINTS], definition="")
    writer.add_topic("/chunk", "vla_ros/msg/ActionChunk", definition="")
    writer.add_topic("/odd", "nobody/msg/Knows", definition="")
    writer.write(JOINTS, START, joints(START, (1.0, 2.0)))
    writer.write("/odd", START + 1_500_000_000, b"\0\1\0\0")
    writer.close()
    with Bag(tmp_path / "bag") as bag:
        assert list(bag.decode(next(bag.records([JOINTS]))).position) == [2.0, 1.0]
        with pytest.raises(InputError, match=r"bag: topic /odd: t=1.500 s .*nobody/msg/Knows: unknown definition"):
            bag.decode(next(bag.records(["/odd"])))


def test_our_own_messages_carry_their_definition():
    text, digest = full_definition("vla_ros/msg/ActionChunk")
    assert "How to follow it" in text and "MSG: std_msgs/Header" in text and digest.startswith("RIHS01_")
    with pytest.raises(InputError, match="nobody/msg/Knows: unknown definition"):
        full_definition("nobody/msg/Knows")


FEEDBACK = "vla_ros/action/RunInstruction_FeedbackMessage"


@pytest.mark.parametrize("typename", ["sensor_msgs/msg/JointState", FEEDBACK])
def test_the_hash_is_the_one_of_ros(typename):
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        path = Path(prefix, f"share/{typename.removesuffix('_FeedbackMessage')}.json")
        if prefix and path.is_file():
            hashes = {row["type_name"]: row["hash_string"] for row in json.loads(path.read_text())["type_hashes"]}
            assert full_definition(typename)[1] == hashes[typename]
            return
    pytest.skip(f"needs ROS 2: no {typename} in AMENT_PREFIX_PATH")


def test_an_actions_feedback_carries_its_definition(monkeypatch):
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    text = full_definition(FEEDBACK)[0]
    assert text.startswith("unique_identifier_msgs/UUID goal_id\nvla_ros/action/RunInstruction_Feedback feedback\n")
    assert "# ExecutorStatus.state" in text and "success_topic" not in text and "error_code" not in text
    with pytest.raises(InputError, match="vla_ros/action/Nobody_FeedbackMessage: unknown definition"):
        full_definition("vla_ros/action/Nobody_FeedbackMessage")


def test_bytes_behind_a_message_are_left_aside(tmp_path):
    empty = kind("std_msgs/msg/Float64MultiArray")(
        layout=kind("std_msgs/msg/MultiArrayLayout")(dim=[], data_offset=0), data=np.zeros(0)
    )
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic("/hand", "std_msgs/msg/Float64MultiArray")
    writer.write("/hand", START, raw(empty) + b"\xaa" * 8)
    writer.write("/hand", START, raw(empty) + b"\xaa" * 400)
    writer.write("/hand", START, raw(empty)[:-3])
    writer.write("/hand", START, b"junk")
    writer.close()
    with Bag(tmp_path / "bag") as bag:
        good, long, short, junk = bag.records()
        assert bag.decode(good).data.size == 0
        for record in (long, short, junk):
            with pytest.raises(InputError, match=r"topic /hand: t=0.000 s .*not"):
                bag.decode(record)


def test_missing_and_unreadable_bags_name_the_file(tmp_path):
    with pytest.raises(InputError, match="nothing: no such file"):
        Bag(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: has no metadata.yaml: not a bag"):
        Bag(tmp_path / "empty")
    path = write_bag(tmp_path / "bag", messages(0.2))
    with pytest.raises(InputError, match="exists already"):
        BagWriter(path)
    (path / "metadata.yaml").rename(path / "other.yaml")
    with pytest.raises(InputError, match="vla-ros bag repair"):
        Bag(path)
    (path / "other.yaml").rename(path / "metadata.yaml")
    file = path / "bag_0.mcap"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"bag .*bag: cannot be read.*vla-ros bag repair"):
        with Bag(path) as bag:
            list(bag.records())
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(InputError, match="text.txt: cannot be read"):
        Bag(tmp_path / "text.txt")


def test_a_bag_without_a_message_has_a_file_that_rosbags_opens(tmp_path):
    write_bag(tmp_path / "bag", [])
    with Bag(tmp_path / "bag") as bag:
        assert bag.message_count == 0 and list(bag.records()) == [] and not bag.notes
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == 0 and list(reader.messages()) == []


def test_a_file_that_the_metadata_does_not_name(tmp_path):
    path = write_bag(tmp_path / "bag", messages(1.0), max_file_seconds=0.8)
    metadata = path / "metadata.yaml"
    said = yaml.safe_load(metadata.read_text())
    names = said["rosbag2_bagfile_information"].pop("relative_file_paths")
    assert names == ["bag_0.mcap", "bag_1.mcap"]

    def name(*files):
        said["rosbag2_bagfile_information"]["relative_file_paths"] = list(files)
        metadata.write_text(yaml.safe_dump(said))

    name(names[0])
    with Bag(path) as bag:
        assert f"bag {path}: bag_1.mcap is not read, metadata.yaml does not name it" in bag.notes
    name(f"{names[0]}.zstd", names[1])  # a player has unpacked the first one, and removed what it unpacked
    with Bag(path) as bag:
        assert bag.notes[0].endswith("bag_0.mcap.zstd is missing, metadata.yaml names it")
    name()
    with pytest.raises(InputError, match=r"relative_file_paths: empty, expected bag_0.mcap; recover it .*bag repair"):
        Bag(path)


def test_damage_inside_a_file_is_located(tmp_path):
    path = write_bag(tmp_path / "bag", messages(1.0), chunk_bytes=10_000)
    file = path / "bag_0.mcap"
    data = bytearray(file.read_bytes())
    at = len(data) // 2
    data[at : at + 5000] = b"\xff" * 5000
    file.write_bytes(data)
    with Bag(path) as bag, pytest.raises(InputError, match=r"cannot be read after t=0\.\d+ s"):
        list(bag.records([IMAGE, JOINTS, ARM]))


def test_the_shared_store_knows_our_messages():
    assert {"vla_ros/msg/ActionChunk", "vla_ros/msg/ExecutorStatus"} <= set(standard_store().fielddefs)
