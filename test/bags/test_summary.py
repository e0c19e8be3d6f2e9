"""Counts, rates, gaps and losses of a bag's topics."""

from bags.factory import JOINTS, START, joints

from vla_ros.bags.summary import summarise
from vla_ros.bags.writer import BagWriter
from vla_ros.cli.main import main

MS = 1_000_000
TIMES = [0, 10, 20, 15, 60, 70]  # ms


def make(folder):
    writer = BagWriter(folder)
    writer.add_topic(JOINTS, "sensor_msgs/msg/JointState")
    for k, ms in enumerate(TIMES):
        writer.write(JOINTS, START + k * MS, joints(START + ms * MS, (0.0, 0.0)))
    writer.close({f"vla_ros.dropped.{JOINTS}": "3", "vla_ros.lost./gone": "2"})
    return folder


def test_a_topic_with_a_gap_and_a_stamp_out_of_order(tmp_path):
    topic, gone = summarise(make(tmp_path / "bag"))[1]
    assert (topic.name, len(topic.stamps), topic.backwards, topic.lost) == (JOINTS, 6, 1, 3)
    assert topic.gap == (40 * MS, START + 20 * MS) and abs(topic.rate - 5 / 0.070) < 1e-9
    assert (gone.name, gone.lost, gone.rate, gone.gap, gone.backwards) == ("/gone", 2, 0.0, (0, 0), 0)


def test_the_command_shows_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["bag", "show", str(make(tmp_path / "bag"))]) == 0
    said = capsys.readouterr().out
    assert "71.43" in said and "0.040 s at t=0.020 s" in said and "3 lost, 1 stamps out of order" in said
