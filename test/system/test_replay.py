"""A peer on the graph sees what the bag holds, in order, with a clock that goes with it."""

import os
import subprocess
import sys
from pathlib import Path

from bags.factory import IMAGE, JOINTS, START, TEXT, messages, pixels, write_bag
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from system.support import DEADLINE, Probe
from trajectory_msgs.msg import JointTrajectory

from vla_ros.graph.processes import Graph
from vla_ros.messages.images import rgb_image
from vla_ros.messages.stamps import stamp_ns
from vla_ros.nodes.qos import sensor_qos


def test_replay(graph: Graph, probe: Probe, tmp_path: Path):
    rows = [row for row in messages(1.0) if row[0] in (IMAGE, JOINTS, TEXT) or row[1] == START]
    path = write_bag(tmp_path / "bag", rows)
    reliable = sensor_qos(reliable=True, depth=200)
    for topic, kind in ((IMAGE, Image), (JOINTS, JointState), (TEXT, String), ("/arm/command", JointTrajectory)):
        probe.record(topic, kind, reliable)
    probe.record("/clock", Clock, reliable)

    def replay(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vla_ros.cli.main", "replay", str(path), *options]
        environment = os.environ | {"ROS_DOMAIN_ID": str(graph.domain)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * DEADLINE)

    # Beside a robot that lives nothing but its sensors would be published, and not beside its own camera.
    camera = graph.node.create_publisher(Image, IMAGE, reliable)
    done = replay("--rate", "0.02")  # long enough to notice, however long discovery takes
    assert done.returncode == 2 and "messages published" not in done.stdout
    assert f"vla-ros replay: {IMAGE}: /vla_ros_cli_{os.getpid()} publishes it, expected no other node" in done.stderr
    graph.node.destroy_publisher(camera)
    done = replay("--wait", "--rate", "4")
    assert done.returncode == 0, done.stderr
    assert "11 messages published" in done.stdout
    reasons = {JOINTS: "joint states", TEXT: "internal to the nodes", "/arm/command": "trajectory_msgs/msg/Joint"}
    for topic, words in reasons.items():
        assert f"{topic}: not published: {words}" in done.stdout
        assert not probe.messages(topic)
    assert not probe.messages("/clock")
    probe.wait_for(lambda: len(probe.messages(IMAGE)) == 11, "the images")
    probe.clear(IMAGE)

    done = replay("--wait", "--rate", "4", "--clock", "--topics", IMAGE, JOINTS, TEXT)
    assert done.returncode == 0, done.stderr
    assert "63 messages published" in done.stdout and "not published" not in done.stdout
    # The queues of both ends hold the whole bag: nothing is lost, however long anybody is paused.
    probe.wait_for(lambda: len(probe.messages(JOINTS)) == 51 and len(probe.messages(IMAGE)) == 11, "all messages")
    probe.wait_for(
        lambda: (last := probe.last("/clock")) and stamp_ns(last.clock) == START + 1_000_000_000, "the last instant"
    )
    assert [stamp_ns(m) - START for m in probe.messages(JOINTS)] == [k * 20_000_000 for k in range(51)]
    assert all((rgb_image(m) == pixels(k)).all() for k, m in enumerate(probe.messages(IMAGE)))
    assert [m.data for m in probe.messages(TEXT)] == ["wave"]
    assert not probe.messages("/arm/command")
    ticks = [stamp_ns(m.clock) for m in probe.messages("/clock")]
    assert ticks == sorted(ticks) and ticks[0] == START
