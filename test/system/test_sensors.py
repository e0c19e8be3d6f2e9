"""Sensors on a graph: real publishers, what is recorded of them, and what a subscriber sees meanwhile."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sensors
import yaml
from bags.factory import arm, hand, image, joint_state, joints
from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensing_family import Reader, Sensing, checkpoint
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from system.support import DEADLINE, Probe, free_domain

from vla_ros.bags.build import build_dataset, plan_bag
from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.frames import read_frames
from vla_ros.bags.reader import Bag
from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.datasets.lerobot import Dataset
from vla_ros.graph.processes import Graph
from vla_ros.messages.chunks import read_chunk
from vla_ros.messages.observation import JOINT_STATES, ObservationBuilder, message_stamp
from vla_ros.messages.stamps import stamp_ns
from vla_ros.msg import ActionChunk, PolicyStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS
from vla_ros.nodes.streams import message_class, subscribe
from vla_ros.runtime.history import history_length, make_sample, observe, observed_streams

NS = 1_000_000_000
STEP = NS // 50
STATUS = "policy_node/status"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with somebody's decoder, on the path of this process."""
    monkeypatch.syspath_prepend(str(sensors.install_decoder(tmp_path / "site")))
    return tmp_path / "site"


@pytest.fixture
def graph(tmp_path: Path, site: Path) -> Iterator[Graph]:
    path = f"{site}{os.pathsep}{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
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

    def __init__(self, probe: Probe, spec: RobotSpec, heard: Sequence[str]) -> None:
        """`heard`: the topics of all subscriptions, one by one."""
        types = {stream.topic: stream.type for stream in spec.all_streams.values()}
        self.publishers = {}
        for topic, kind in types.items():
            qos = STATUS_QOS if topic == "mass" else COMMAND_QOS
            self.publishers[topic] = probe.publisher(topic, message_class(kind), qos, readers=heard.count(topic))
        self.hand = probe.publisher("joint_states", JointState, COMMAND_QOS, readers=heard.count("joint_states"))
        self.start = probe.graph.node.get_clock().now().nanoseconds

    def made(self, k: int) -> dict[str, bytes]:
        """Topic -> message of tick k."""
        ns = self.start + k * STEP
        made = {"joint_states": joints(ns, (np.sin(k), 0.5)), "arm/command": arm(ns, k / 50), "hand/command": hand(0.5),
                "imu": sensors.raw(sensors.imu(ns, k))}  # fmt: skip
        if k % 5 == 0:
            made |= {
                "camera/image_raw": image(ns, k), "depth": sensors.raw(sensors.depth(ns - 3_000_000, k)),
                "markers": sensors.raw(sensors.poses(ns, k // 5)), "joy": sensors.raw(sensors.joy(ns, k)),
                "mode": sensors.raw(sensors.text("m" * k)), "pressed": sensors.raw(sensors.truth(k % 2 == 1)),
            }  # fmt: skip
        return {topic: data for topic, data in made.items() if topic in self.publishers}

    def publish(self, k: int) -> None:
        """Joint b comes from a publisher of its own, measured a little earlier."""
        ns = self.start + k * STEP
        split = {"joint_states": joint_state(ns, ["wheel", "a"], [9.0, np.sin(k)])}
        for topic, data in (self.made(k) | split).items():
            self.send(topic, data)
        self.hand.publish(deserialize_message(joint_state(ns - 1_000_000, ["b"], [k / 100]), JointState))

    def send(self, topic: str, data: bytes) -> Any:
        publisher = self.publishers[topic]
        message = deserialize_message(data, publisher.msg_type)
        publisher.publish(message)
        return message

    def wait_acknowledged(self) -> None:
        for publisher in (*self.publishers.values(), self.hand):
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
    graph.start("recorder_node", parameters={"robot": str(robot), "output": str(tmp_path / "bag"),
                                             "reliable_sensors": True})
    graph.configure("recorder_node")
    topics = {stream.topic for stream in spec.all_streams.values()}  # the recorder hears each once
    source = Source(probe, spec, [*topics, *(stream.topic for stream in live.streams.values())])
    said = probe.publisher("instruction", String)
    source.send("mass", sensors.raw(sensors.numbers([0.25, 1 / 3])))  # once, before the recording begins
    source.wait_acknowledged()
    graph.activate("recorder_node")
    source.start = graph.node.get_clock().now().nanoseconds  # commands without a stamp have the time of recording
    said.publish(String(data="wave"))
    ticks = 100
    for k in range(ticks):
        source.publish(k)
        probe.wait_for(lambda k=k: heard["imu"] > k and heard[JOINT_STATES] > 2 * k + 1, f"tick {k}")
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
    assert set(dataset.streams) == names
    for k, frame in enumerate(frames):
        seen = live.build(int(frame.episode.times[k]), "wave")
        recorded = frame.observation
        assert seen.state.tobytes() == recorded.state.tobytes() and seen.state[1] > 0
        assert seen.stamps_ns[JOINT_STATES] == recorded.stamps_ns[JOINT_STATES] < seen.stamp_ns
        assert np.array_equal(dataset.states[k], recorded.state.astype(np.float32))
        assert seen.images["front"].tobytes() == recorded.images["front"].tobytes()
        assert set(seen.values) == names
        for name, value in seen.values.items():
            stored = dataset.values(name)[k]
            assert value.dtype == recorded.values[name].dtype == stored.dtype
            assert value.tobytes() == recorded.values[name].tobytes() == stored.tobytes(), name


class Node:
    """A policy node in simulated time, and the test as its robot. Time stands still but where the test moves it."""

    def __init__(self, graph: Graph, probe: Probe, robot: Path, checkpoint: Path) -> None:
        self.graph, self.probe = graph, probe
        probe.record(STATUS, PolicyStatus, STATUS_QOS)
        probe.record("action_chunk", ActionChunk, COMMAND_QOS)
        parameters = {"robot": str(robot), "policy": str(checkpoint), "device": "cpu", "threads": 1,
                      "reliable_sensors": True, "use_sim_time": True}  # fmt: skip
        graph.start("policy_node", parameters=parameters)
        graph.bring_up("policy_node")
        self.clock = probe.publisher("/clock", Clock)
        self.text = probe.publisher("instruction", String)
        self.said = 0

    def set_clock(self, ns: int) -> None:
        self.clock.publish(Clock(clock=Time(sec=ns // NS, nanosec=ns % NS)))

    def settle(self) -> None:
        """Return when the node has taken in what was sent before, one message a topic.

        What one process sends another arrives in this order; the node takes one message of each topic a turn, so the
        second instruction is taken a turn after the others.
        """
        for _ in range(2):
            self.said += 1
            identity = instruction_id(f"wave {self.said}")
            self.text.publish(String(data=f"wave {self.said}"))
            self.probe.wait_for(lambda i=identity: (s := self.probe.last(STATUS)) and s.instruction_id == i, "a turn")

    def status(self, accept, what: str) -> PolicyStatus:
        return self.probe.wait_for(lambda: (s := self.probe.last(STATUS)) and accept(s) and s, what)


def test_a_policy_node_reads_sensors(graph: Graph, probe: Probe, site: Path, tmp_path: Path):
    """What the policy read comes back as its answer, and is what an observation of the same messages says."""
    row = sensors.robot_row()
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(row))
    spec, processor = RobotSpec.load(tmp_path / "all.yaml"), Reader()
    node = Node(graph, probe, tmp_path / "all.yaml", checkpoint(site / "checkpoint"))
    names = observed_streams(processor)
    live = ObservationBuilder(spec, 0.5, history_length(processor) + 0.5, names)
    source = Source(probe, spec, [stream.topic for stream in live.streams.values()])
    live.add("mass", source.send("mass", sensors.raw(sensors.numbers([0.25, 1 / 3]))), NS)

    def show(k: int, skip: tuple[str, ...] = (), **change: bytes) -> int:
        """Tick k: the clock, the sensors, and when all of them are taken in the joints and the image."""
        now = source.start + k * STEP
        node.set_clock(now)
        last = {"joint_states", "camera/image_raw"}
        made = {topic: data for topic, data in (source.made(k) | change).items() if topic not in skip}
        for topic in sorted(made, key=lambda topic: (topic in last, topic != "joint_states")):
            if topic == "joint_states":
                node.settle()
            message = source.send(topic, made[topic])
            for name, stream in live.streams.items():
                if stream.topic == topic:
                    live.add(name, message, message_stamp(stream, message, now))
        return now

    for k in range(26):
        now = show(k)
        if k % 5 == 0 and k >= 5:  # before that the window is not full
            chunk = probe.wait_message("action_chunk", lambda m, t=now: stamp_ns(m) == t, f"the chunk of tick {k}")
            steps = observe(lambda t, names: live.build(t, "wave", names), now, processor)
            batch = processor.inputs([make_sample(steps, processor, "wave")])
            wanted = Sensing().predict(batch)[0].double().numpy()
            (part,) = read_chunk(chunk).targets.parts
            assert part.data.tobytes() == wanted.tobytes(), k
            assert wanted.any() and batch["imu"][0, 1, 0] == np.float32(k / 3)

    # an IMU of another frame, and one that is silent, are named
    show(30, imu=sensors.raw(sensors.imu(source.start + 30 * STEP, 30, "arm")))
    status = node.status(lambda s: s.state == PolicyStatus.WAITING, "the other frame refused")
    assert list(status.waiting_for) == ["imu"] and "frame 'arm', the robot file says 'base'" in status.message
    show(35)
    node.status(lambda s: s.state == PolicyStatus.RUNNING, "running again")
    show(100, skip=("joy",))
    status = node.status(lambda s: s.state == PolicyStatus.WAITING and "keys" in s.waiting_for, "stale keys")
    assert "keys: 1.300 s old, expected at most 0.500 s" in status.message
