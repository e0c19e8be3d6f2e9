"""One bad part of a bag costs its topic at most, and is named: in mcap and sqlite3, with metadata and without."""

import shutil
import sqlite3

import pytest
import yaml
from bags.factory import JOINTS, ROBOT, START, TEXT, TYPES, messages, text, write_foreign_bag, write_robot
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionMode
from rosbags.typesys import Stores, get_typestore

from vla_ros.bags.build import plan_bag
from vla_ros.bags.definitions import full_definition
from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.player import PlayOptions, schedule
from vla_ros.bags.reader import Bag
from vla_ros.bags.repair import repair
from vla_ros.bags.summary import summarise
from vla_ros.cli.main import main
from vla_ros.core.errors import InputError

OPTIONS = CutOptions(fps=10.0)
LINE = "=" * 80
NOTE_IDL = (f"{LINE}\nIDL: my_msgs/msg/Note\nmodule my_msgs {{ module msg {{ struct Note {{ float height; }}; }}; }};\n"
            f"{LINE}\nIDL: my_msgs/msg/Odd\nthis is no IDL\n")  # fmt: skip
CDR = b"\0\1\0\0"
# topic: (type, format of the messages, encoding of the definition, definition, QoS, a message, what is said of it)
BAD = {
    "/no_idl": ("my_msgs/msg/Broken", "cdr", "ros2idl", "module { nothing }", "", CDR, "definition cannot be read"),
    "/no_msg": ("my_msgs/msg/Torn", "cdr", "ros2msg", "flo at 64 32 ;;", "", CDR, "definition cannot be read"),
    "/unknown": ("my_msgs/msg/Temperature", "cdr", "unknown", "", "", CDR, "unknown definition"),
    "/nested": ("my_msgs/msg/Outer", "cdr", "ros2msg", "my_msgs/Inner inner\n", "", CDR,
                "contains a my_msgs/msg/Inner, whose definition is missing"),
    "/json": ("my_msgs/msg/Json", "json", "jsonschema", "{}", "", b'{"a": 1}', "its messages are json, expected cdr"),
    "/protobuf": ("my.Proto", "protobuf", "protobuf", "\xff\xfe", "", b"\x08\x01", "its messages are protobuf"),
}  # fmt: skip
GOOD = {
    "/note": ("my_msgs/msg/Note", "cdr", "ros2idl", NOTE_IDL, "", CDR + b"\0\0\x80\x3f", ""),
    "/qos": ("std_msgs/msg/String", "cdr", "ros2msg", "string data\n", "- {history: what\n  7", text("hello"), ""),
    "/no_qos": ("std_msgs/msg/String", "cdr", "ros2msg", "string data\n", "[1, x]", text("hello"), ""),
}


def write_mcap(path, rows, extra):
    with path.open("wb") as stream:
        writer = McapWriter(stream, chunk_size=20_000)
        writer.start("ros2", "test")
        schemas, channels = {}, {}

        def channel(topic, kind, form, encoding, definition, qos):
            if kind not in schemas:
                schemas[kind] = writer.register_schema(kind, encoding, definition.encode("latin1"))
            return writer.register_channel(topic, form, schemas[kind], {"offered_qos_profiles": qos})

        for topic, (kind, form, encoding, definition, qos, data, _) in extra.items():
            writer.add_message(channel(topic, kind, form, encoding, definition, qos), START, data, START)
        for topic, ns, data in rows:
            if topic not in channels:
                definition = full_definition(TYPES[topic])[0]
                channels[topic] = channel(topic, TYPES[topic], "cdr", "ros2msg", definition, "")
            writer.add_message(channels[topic], ns, data, ns)
        writer.finish()


def write_sqlite(path, rows, extra):
    store = get_typestore(Stores.ROS2_KILTED)
    folder = path.parent / "other"
    with Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections = {topic: writer.add_connection(topic, TYPES[topic], typestore=store) for topic in TYPES}
        for topic, ns, data in rows:
            writer.write(connections[topic], ns, data)
    shutil.move(folder / "other.db3", path)
    shutil.rmtree(folder)
    with sqlite3.connect(path) as database:
        for number, (topic, (kind, form, encoding, definition, qos, data, _)) in enumerate(extra.items(), start=100):
            database.execute("INSERT INTO topics VALUES (?, ?, ?, ?, ?, '')", (number, topic, kind, form, qos))
            database.execute("INSERT INTO message_definitions(topic_type, encoding, encoded_message_definition, "
                             "type_description_hash) VALUES (?, ?, ?, '')", (kind, encoding, definition))  # fmt: skip
            database.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)", (number, START, data))
    database.close()


def write_metadata(path, counts):
    rows = [{"topic_metadata": {"name": name, "type": "x/msg/X", "serialization_format": "cdr",
                                "offered_qos_profiles": ""}, "message_count": count} for name, count in counts.items()]
    said = {"version": 9, "storage_identifier": "mcap", "relative_file_paths": [path.name], "message_count": 7,
            "duration": {"nanoseconds": 1}, "starting_time": {"nanoseconds_since_epoch": 1},
            "topics_with_message_count": rows, "compression_format": "", "compression_mode": ""}  # fmt: skip
    (path.parent / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": said}))


@pytest.fixture(params=["mcap", "db3"])
def file(request, tmp_path):
    path = tmp_path / "bag" / f"bag_0.{request.param}"
    path.parent.mkdir()
    (write_mcap if request.param == "mcap" else write_sqlite)(path, messages(2.0), BAD | GOOD)
    return path


def check(path):
    """All of the robot's messages and of GOOD are there, the episode can be used, and each of BAD is named."""
    with Bag(path) as bag:
        notes = "\n".join(bag.notes)
        for topic, (*_, said) in BAD.items():
            assert f"topic {topic}: " in notes and said in notes
            assert bag.topics[topic].problem and bag.topics[topic].count == 1
        records = list(bag.records())
        assert [(r.topic, r.log_ns, bytes(r.data)) for r in records if r.topic in TYPES] == messages(2.0)
        assert all(bag.decode(record) is not None for record in records if record.topic not in BAD)
        assert bag.decode(next(bag.records(["/note"]))).height == 1.0
        played = [record.topic for _, record in schedule(bag, PlayOptions(topics={record.topic for record in records}))]
        assert len(played) == len(records)
    _, (episode,), problems = plan_bag(path, ROBOT, OPTIONS)
    assert len(episode.times) == 21 and not problems
    return notes


def test_with_and_without_metadata(file):
    check(file)
    counts = {JOINTS: 101, TEXT: 3, "/gone": 5}
    write_metadata(file, counts)
    notes = check(file.parent)
    for topic, found in ((TEXT, 1), ("/gone", 0)):
        assert f"topic {topic}: metadata.yaml says {counts[topic]} messages, the files hold {found}" in notes


def test_the_commands_show_build_and_repair_it(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["bag", "show", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "not decoded" in shown and "its messages are json, expected cdr" in shown
    robot = write_robot(tmp_path / "robot.yaml")
    assert main(["dataset", "build", str(file), "-o", str(tmp_path / "data"), "--robot", str(robot)]) == 0
    assert "topic /no_idl: message type my_msgs/msg/Broken" in capsys.readouterr().out
    assert main(["bag", "repair", str(file), "-o", str(tmp_path / "fixed")]) == 0
    said = capsys.readouterr().out
    assert "/json: left out: its messages are 'json', expected cdr" in said
    assert "/unknown: kept without the definition of its messages" in said
    with Bag(tmp_path / "fixed") as bag:
        assert {*bag.topics} == {*TYPES, *BAD, *GOOD} - {"/json", "/protobuf"}
        assert [(r.topic, r.log_ns, bytes(r.data)) for r in bag.records() if r.topic in TYPES] == messages(2.0)
        assert bag.decode(next(bag.records(["/note"]))).height == 1.0
    assert len(plan_bag(tmp_path / "fixed", ROBOT, OPTIONS)[1]) == 1


def test_two_types_on_one_topic(tmp_path):
    folder = tmp_path / "bag"
    folder.mkdir()
    for number, kind in enumerate(["std_msgs/msg/String", "std_msgs/msg/Bool"]):
        extra = {"/twice": (kind, "cdr", "ros2msg", full_definition(kind)[0], "", CDR + b"\1", "")}
        write_mcap(folder / f"bag_{number}.mcap", messages(2.0) if number == 0 else [], extra)
    write_metadata(folder / "bag_0.mcap", {})
    metadata = (folder / "metadata.yaml").read_text().replace("- bag_0", "- bag_2.mcap\n  - bag_0.mcap\n  - bag_1")
    (folder / "metadata.yaml").write_text(metadata)
    with Bag(folder) as bag:
        notes = "\n".join(bag.notes)
        assert "topic /twice: has messages of several types: std_msgs/msg/Bool, std_msgs/msg/String" in notes
        assert "bag_2.mcap is missing, metadata.yaml names it" in notes
        assert bag.topics["/twice"].count == 2 and len(list(bag.records(list(TYPES)))) == len(messages(2.0))
    report = repair(folder, tmp_path / "fixed")
    assert report.notes == {"/twice": "left out: is a std_msgs/msg/Bool here, std_msgs/msg/String before"}
    assert report.counts["/twice"] == 1 and report.counts[JOINTS] == 101


def test_names_of_ours_that_others_use(tmp_path):
    """A topic called as one of vla_ros' own, but of another type, is not read as such."""
    kind = ("std_msgs/msg/Bool", "cdr", "ros2msg", full_definition("std_msgs/msg/Bool")[0], "", CDR + b"\1", "")
    names = ("/executor_node/status", "/clock", "/run_instruction/_action/status", "/outcome")
    path = tmp_path / "bag.mcap"
    write_mcap(path, messages(2.0), dict.fromkeys(names, kind))
    assert len(plan_bag(path, ROBOT, OPTIONS)[1]) == 1
    assert {topic.name for topic in summarise(path)[1]} == {*TYPES, *names}


def test_a_chunk_that_is_damaged_costs_itself(tmp_path):
    path = tmp_path / "bag.mcap"
    write_mcap(path, messages(2.0), {})
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 20] = bytes(20)
    path.write_bytes(data)
    report = repair(path, tmp_path / "fixed")
    assert "skipped" in report.broken["bag.mcap"]
    with Bag(tmp_path / "fixed") as bag:
        found = [(r.topic, r.log_ns, bytes(r.data)) for r in bag.records()]
    expected = messages(2.0)
    assert found[-1] == expected[-1] and found[0] == expected[0]  # what is after the damage is there
    assert len(expected) - 120 < len(found) < len(expected) and set(found) < set(expected)


@pytest.mark.parametrize("finished", [True, False])
def test_a_first_chunk_that_is_damaged_does_not_silence_its_topics(tmp_path, finished):
    """Topics are described in the first chunk, and once more at the end of a file that was finished."""
    path = tmp_path / "bag.mcap"
    write_mcap(path, messages(2.0), {})
    data = bytearray(path.read_bytes())
    data[600:620] = bytes(20)
    path.write_bytes(data if finished else data[: len(data) // 2])
    if finished:
        report = repair(path, tmp_path / "fixed")
        assert "skipped" in report.broken["bag.mcap"]
        assert report.counts["/camera/image_raw"] > 10 and not report.notes
    else:
        with pytest.raises(InputError, match=r"skipped.*; channel \d: left out: its topic is in a damaged part"):
            repair(path, tmp_path / "fixed")


def test_a_message_whose_compression_is_damaged_costs_itself(tmp_path):
    rows = write_foreign_bag(tmp_path / "bag", 8, StoragePlugin.SQLITE3, CompressionMode.MESSAGE)
    (file,) = (tmp_path / "bag").glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("UPDATE messages SET data = ? WHERE rowid = 3", (b"\x28\xb5\x2f\xfd" + b"\xff" * 20,))
    with Bag(tmp_path / "bag") as bag:
        read = [record.topic for record in bag.records()]
        lost = {topic for topic, _, _ in rows if read.count(topic) < [row[0] for row in rows].count(topic)}
        (topic,) = lost
        assert len(read) == len(rows) - 1 and f"topic {topic}" in bag.notes[-1] and "left out" in bag.notes[-1]
