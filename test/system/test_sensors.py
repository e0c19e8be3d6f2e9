"""Sensors on a graph: real publishers, what is recorded of them, and what a subscriber sees meanwhile."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sensors
import yaml
from bags.factory import arm, hand, image, joints
from rclpy.duration import Duration
from rclpy.serialization import deserialize_message
from std_msgs.msg import String
from system.support import DEADLINE, Probe, free_domain

from vla_ros.bags.build import build_dataset, plan_bag
from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.frames import read_frames
from vla_ros.bags.reader import Bag
from vla_ros.core.robot import RobotSpec
from vla_ros.datasets.lerobot import Dataset
from vla_ros.graph.processes import Graph
from vla_ros.messages.observation import JOINT_STATES, ObservationBuilder, message_stamp
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS
from vla_ros.nodes.streams import message_class, subscribe

NS = 1_000_000_000
STEP = NS // 50


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with somebody's decoder, on the path of this process."""
    monkeypatch.syspath_prepend(str(sensors.install_decoder(tmp_path / "site")))
    return tmp_path / "site"


@pytest.fixture
def graph(tmp_path: Path, site: Path) -> Iterator[Graph]:
    path = f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with Graph(tmp_path / "graph", domain=free_domain(), environment={"PYTHONPATH": path}) as made:
        yield made


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    rows = [row for row in sensors.STREAMS if row["name"] not in ("mode", "pressed")]  # stamped by receipt
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(sensors.robot_row(rows)))
    return path


class Source:
    """Publishes tick k of every topic of a robot, stamped k steps after the beginning."""

    def __init__(self, probe: Probe, spec: RobotSpec, heard: tuple[str, ...] = ()) -> None:
        """`heard`: topics of subscriptions besides the one node's."""
        types = {stream.topic: stream.type for stream in spec.all_streams.values()}
        self.publishers = {}
        for topic, kind in types.items():
            qos = STATUS_QOS if topic == "mass" else COMMAND_QOS
            self.publishers[topic] = probe.publisher(topic, message_class(kind), qos, readers=1 + heard.count(topic))
        self.start = probe.graph.node.get_clock().now().nanoseconds

    def publish(self, k: int) -> None:
        ns = self.start + k * STEP
        made = {"joint_states": joints(ns, (np.sin(k), 0.5)), "arm/command": arm(ns, k / 50), "hand/command": hand(0.5),
                "imu": sensors.raw(sensors.imu(ns, k))}  # fmt: skip
        if k % 5 == 0:
            made |= {
                "camera/image_raw": image(ns, k), "depth": sensors.raw(sensors.depth(ns + 3_000_000, k)),
                "markers": sensors.raw(sensors.poses(ns, k // 5)), "joy": sensors.raw(sensors.joy(ns, k)),
            }  # fmt: skip
        for topic, data in made.items():
            self.send(topic, data)

    def send(self, topic: str, data: bytes) -> None:
        publisher = self.publishers[topic]
        publisher.publish(deserialize_message(data, publisher.msg_type))

    def wait_acknowledged(self) -> None:
        for publisher in self.publishers.values():
            assert publisher.wait_for_all_acked(Duration(seconds=DEADLINE))


def test_sensors_from_topics_to_a_dataset(graph: Graph, probe: Probe, robot: Path, tmp_path: Path):
    """What a node sees of live topics, what its recording shows, and what a dataset of it holds are the same bytes."""
    spec = RobotSpec.load(robot)
    live = ObservationBuilder(spec, max_age=None, history=60.0)
    heard = dict.fromkeys(live.streams, 0)

    def taker(stream):
        def take(message):
            live.add(stream.name, message, message_stamp(stream, message, graph.node.get_clock().now().nanoseconds))
            heard[stream.name] += 1

        return take

    for stream in live.streams.values():
        subscribe(graph.node, stream, taker(stream), reliable=True)
    graph.start("recorder_node", parameters={"robot": str(robot), "output": str(tmp_path / "bag")})
    graph.configure("recorder_node")
    source = Source(probe, spec, heard=tuple(stream.topic for stream in live.streams.values()))
    said = probe.publisher("instruction", String)
    source.send("mass", sensors.raw(sensors.numbers([0.25, 1 / 3])))  # once, before the recording begins
    source.wait_acknowledged()
    graph.activate("recorder_node")
    source.start = graph.node.get_clock().now().nanoseconds  # commands without a stamp have the time of recording
    said.publish(String(data="wave"))
    ticks = 100
    for k in range(ticks):
        source.publish(k)
        probe.wait_for(lambda k=k: heard["imu"] > k and heard[JOINT_STATES] > k, f"tick {k}")
    source.wait_acknowledged()
    counts = {"front": ticks // 5, "depth": ticks // 5, "markers": ticks // 5, "keys": ticks // 5, "mass": 1}
    probe.wait_for(lambda: all(heard[name] >= count for name, count in counts.items()), "every message")
    graph.deactivate("recorder_node")

    options = CutOptions(by="whole", instruction="wave", max_gap=30.0, max_command_gap=30.0)
    index, episodes, problems = plan_bag(tmp_path / "bag", spec, options)
    assert not problems
    with Bag(tmp_path / "bag") as bag:
        frames = list(read_frames(bag, spec, index, episodes))
    assert len(frames) > 15
    build_dataset([tmp_path / "bag"], tmp_path / "data", spec, options)
    dataset = Dataset(tmp_path / "data")
    assert len(dataset) == len(frames)
    names = {"imu", "shake", "depth", "markers", "markers_count", "mass", "keys"}
    assert set(dataset.stream_names) == names
    for k, frame in enumerate(frames):
        seen = live.build(int(frame.episode.times[k]), "wave")
        recorded = frame.observation
        assert seen.state.tobytes() == recorded.state.tobytes()
        assert seen.images["front"].tobytes() == recorded.images["front"].tobytes()
        assert set(seen.values) == names
        for name, value in seen.values.items():
            stored = dataset.values(name)[k]
            assert value.dtype == recorded.values[name].dtype == stored.dtype
            assert value.tobytes() == recorded.values[name].tobytes() == stored.tobytes(), name
