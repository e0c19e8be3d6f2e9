"""Bags that were cut off are recovered; the original is never touched."""

import hashlib
import shutil

import pytest
from bags.factory import JOINTS, TYPES, messages, write_bag, write_foreign_bag
from rosbags.rosbag2 import Reader, StoragePlugin
from rosbags.rosbag2.enums import CompressionMode

from vla_ros.bags.reader import Bag
from vla_ros.bags.repair import repair
from vla_ros.bags.writer import BagWriter
from vla_ros.cli.main import main
from vla_ros.core.errors import InputError


def digest(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("keep", [0.15, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_prefix_of_the_messages_survives_any_cut(tmp_path, keep, compression):
    rows = messages(2.0)
    path = write_bag(tmp_path / "bag", rows, chunk_bytes=5_000, compression=compression)
    (path / "metadata.yaml").unlink()
    file = path / "bag_0.mcap"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    before = digest(path)
    report = repair(path)
    assert digest(path) == before and list(report.broken) == ["bag_0.mcap"]
    with Reader(report.output) as reader:
        found = [(c.topic, t, bytes(d)) for c, t, d in reader.messages()]
    assert found == rows[: len(found)] and len(found) == report.messages
    assert len(found) >= int(len(rows) * keep * 0.8) - 40  # at most the last chunk is gone


def test_a_writer_that_died_between_two_flushes(tmp_path):
    rows = messages(1.0)
    writer = BagWriter(tmp_path / "bag", max_file_bytes=30_000)
    for topic, typename in TYPES.items():
        writer.add_topic(topic, typename)
    for topic, ns, data in rows:
        writer.write(topic, ns, data)
    writer.flush()
    writer.abort()
    with pytest.raises(InputError, match="vla-ros bag repair"):
        Bag(tmp_path / "bag")
    report = repair(tmp_path / "bag", tmp_path / "new")
    assert report.messages == len(rows)
    with Bag(tmp_path / "new") as bag:
        assert [(r.topic, r.log_ns, bytes(r.data)) for r in bag.records()] == rows
        assert len(list((tmp_path / "new").glob("new_*.mcap"))) == 2
        assert bag.custom == {"vla_ros.repaired_from": "bag"}


@pytest.mark.parametrize("mode", [CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_bags_of_other_writers_without_metadata(tmp_path, mode, plugin):
    rows = write_foreign_bag(tmp_path / "bag", 9, plugin, mode)
    (tmp_path / "bag" / "metadata.yaml").unlink()
    report = repair(tmp_path / "bag")
    assert not report.broken
    with Bag(report.output) as bag:
        assert [(r.topic, r.log_ns, bytes(r.data)) for r in bag.records()] == rows
        assert list(bag.decode(next(bag.records([JOINTS]))).name) == ["b", "a"]


def test_refusals_leave_nothing_behind(tmp_path):
    (tmp_path / "empty").mkdir()
    path = write_bag(tmp_path / "bag", messages(0.2))
    for bag, output, words in (
        (tmp_path / "nothing", None, "nothing: no such"),
        (tmp_path / "empty", None, "contains no .mcap"),
        (path, path, "exists already"),
    ):
        with pytest.raises(InputError, match=words):
            repair(bag, output)
    with pytest.raises(InputError, match="bag"):
        repair(path, tmp_path / "bag" / "bag_0.mcap" / "impossible")
    (path / "bag_0.mcap").write_bytes(b"this is no mcap file at all")
    with pytest.raises(InputError, match=r"bag: bag_0.mcap: ends at byte .*; expected a message that can be read"):
        repair(path)
    write_bag(tmp_path / "silent", [])
    with pytest.raises(InputError, match="silent: has none; expected a message that can be read"):
        repair(tmp_path / "silent")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bag", "empty", "silent"]


def test_the_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    path = write_bag(tmp_path / "bag", messages(1.0))
    shutil.copytree(path, tmp_path / "cut")
    assert main(["bag", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "/camera/image_raw" in shown and "50.00" in shown and "0.100 s at t=0.000 s" in shown
    (tmp_path / "cut" / "metadata.yaml").unlink()
    assert main(["bag", "show", str(tmp_path / "cut")]) == 2
    assert "vla-ros bag repair" in capsys.readouterr().err
    assert main(["bag", "repair", str(tmp_path / "cut")]) == 0
    assert f"{len(messages(1.0))} messages in" in capsys.readouterr().out
