"""The recorder on a graph: what a peer publishes is in the bag, seen as a policy sees it live, even after SIGKILL."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from rclpy.duration import Duration
from sensor_msgs.msg import CompressedImage, Image, JointState
from shape_msgs.msg import Plane
from std_msgs.msg import String
from std_srvs.srv import Trigger
from system.support import DEADLINE, Probe
from trajectory_msgs.msg import JointTrajectory

from vla_ros.bags.reader import Bag
from vla_ros.bags.repair import repair
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.processes import Graph
from vla_ros.messages.images import compressed_image_message, image_message
from vla_ros.messages.joints import joint_state_message
from vla_ros.messages.observation import JOINT_STATES, ObservationBuilder
from vla_ros.messages.stamps import NS
from vla_ros.msg import Outcome
from vla_ros.nodes.qos import STATUS_QOS

STEP = NS // 10
ROBOT = {
    "name": "two",
    "cameras": [
        {"name": "raw", "topic": "camera/raw", "width": 40, "height": 30},
        {"name": "packed", "topic": "camera/packed", "width": 40, "height": 30, "compressed": True},
    ],
    "joints": [
        {"name": name, "lower": -2.0, "upper": 2.0, "velocity": 1.0, "acceleration": 5.0} for name in ("a", "b")
    ],
    "groups": [{"name": "arm", "topic": "arm", "interface": "joint_trajectory", "joints": ["a", "b"]}],
}


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(ROBOT))
    return path


def picture(k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 256, (30, 40, 3), np.uint8)


class Source:
    """Publishes frame k of every stream, stamped k steps after the beginning."""

    def __init__(self, probe: Probe, heard: tuple[str, ...] = ()) -> None:
        """`heard`: topics that the probe listens to besides the recorder."""
        kinds = {"camera/raw": Image, "camera/packed": CompressedImage, "joint_states": JointState,
                 "arm": JointTrajectory, "instruction": String}  # fmt: skip
        self.start = probe.graph.node.get_clock().now().nanoseconds
        self.publishers = {
            topic: probe.publisher(topic, kind, readers=1 + (topic in heard)) for topic, kind in kinds.items()
        }

    def publish(self, k: int) -> None:
        stamp = self.start + k * STEP
        send = {topic: publisher.publish for topic, publisher in self.publishers.items()}
        send["instruction"](String(data=f"frame {k}"))
        send["camera/raw"](image_message(Image, picture(k), stamp))
        send["camera/packed"](compressed_image_message(CompressedImage, picture(k), stamp))
        send["joint_states"](joint_state_message(JointState, ("b", "a"), np.array([k, -k]) / 7, stamp))

    def wait_acknowledged(self) -> None:
        for publisher in self.publishers.values():
            assert publisher.wait_for_all_acked(Duration(seconds=DEADLINE))


def start(graph: Graph, robot: Path, bag: Path, environment: dict[str, str] | None = None, **parameters) -> None:
    values = {"robot": str(robot), "output": str(bag), "reliable_sensors": True, **parameters}
    graph.start("recorder_node", parameters=values, environment=environment)
    graph.bring_up("recorder_node")


def test_the_last_seconds_before_a_failure(graph: Graph, probe: Probe, robot: Path, tmp_path: Path):
    bag, second = tmp_path / "bag", tmp_path / "bag_2"
    start(graph, robot, bag, keep_last=60.0, compressed_images=True)
    source = Source(probe)
    for k in range(5):
        source.publish(k)
    outcome = probe.publisher("outcome", Outcome)
    keep = graph.node.create_client(Trigger, "recorder_node/keep")

    def kept(path: Path) -> dict[str, int]:
        """Messages by topic, as soon as all of them are on the disk."""
        probe.wait_for((path / "metadata.yaml").exists, f"a complete bag {path.name}")
        with Bag(path) as read:
            return {topic: info.count for topic, info in read.topics.items()}

    source.wait_acknowledged()
    outcome.publish(Outcome(outcome=Outcome.SUCCESS, by="operator"))
    assert outcome.wait_for_all_acked(Duration(seconds=DEADLINE)) and not bag.exists()
    assert graph.call(keep, Trigger.Request()).message == str(bag)
    counts = kept(bag)
    assert counts["/camera/raw/compressed"] == counts["/camera/packed"] == counts["/joint_states"] == 5
    source.publish(5)
    source.wait_acknowledged()
    outcome.publish(Outcome(outcome=Outcome.FAILURE, by="operator", message="slipped"))
    counts = kept(second)
    assert counts["/camera/packed"] == counts["/outcome"] == 1 and counts["/instruction"] == 2  # that of before, too
    with Bag(second) as read:
        assert read.custom["vla_ros.kept"] == "failure, by operator: slipped" and read.custom["vla_ros.robot"] == "two"
    graph.deactivate("recorder_node")
    answer = graph.call(keep, Trigger.Request())
    assert not answer.success and "not active" in answer.message


def test_live_and_recorded_observations_are_identical(graph: Graph, probe: Probe, robot: Path, tmp_path: Path):
    spec = RobotSpec.load(robot)
    topics = {
        "raw": ("camera/raw", Image),
        "packed": ("camera/packed", CompressedImage),
        JOINT_STATES: ("joint_states", JointState),
    }
    for topic, kind in topics.values():
        probe.record(topic, kind)
    # Another topic's type is installed here but not where the recorder runs: that is said, and the rest is recorded.
    (tmp_path / "hides" / "shape_msgs").mkdir(parents=True)
    (tmp_path / "hides" / "shape_msgs" / "__init__.py").touch()
    hides = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "hides"), *sys.path])}
    graph.node.create_publisher(Plane, "foreign", 1)
    # What was published once, before the recorder: it is there as for any late subscriber, from every publisher.
    graph.node.create_publisher(String, "robot_description", STATUS_QOS).publish(String(data="<robot/>"))
    graph.node.create_publisher(String, "extra", STATUS_QOS).publish(String(data="one"))
    start(graph, robot, tmp_path / "bag", hides, topics=["foreign", "extra"])
    log, said = graph.processes["recorder_node"].log, "topic /foreign: not recorded: message type shape_msgs/msg/Plane"
    probe.wait_for(lambda: said in log.read_text(), said)
    source = Source(probe, heard=tuple(topic for topic, _ in topics.values()))
    frames = 8  # fewer than the publishers' queues hold: nothing is lost, however long anybody is paused
    for k in range(frames):
        source.publish(k)
    probe.wait_for(lambda: all(len(probe.messages(topic)) == frames for topic, _ in topics.values()), "every frame")
    source.wait_acknowledged()
    late = probe.publisher("extra", String, STATUS_QOS)
    late.publish(String(data="two"))
    assert late.wait_for_all_acked(Duration(seconds=DEADLINE))
    file = tmp_path / "bag" / "bag_0.mcap"
    latched = (b"<robot/>", b"one", b"two")
    probe.wait_for(lambda: file.exists() and all(text in file.read_bytes() for text in latched), "what is latched")
    graph.deactivate("recorder_node")
    with Bag(tmp_path / "bag") as bag:
        assert [bag.decode(r).data for r in bag.records(["/robot_description"])] == ["<robot/>"]
        assert [bag.decode(r).data for r in bag.records(["/extra"])] == ["one", "two"]
    # The next recording has them too, though nobody publishes them again.
    graph.set_parameters("recorder_node", {"output": str(tmp_path / "next")})
    graph.activate("recorder_node")
    file = tmp_path / "next" / "next_0.mcap"
    probe.wait_for(lambda: file.exists() and all(text in file.read_bytes() for text in latched), "what is latched")
    # A disk that fills up ends the recording with a complete bag, and the node goes on.
    graph.set_parameters("recorder_node", {"min_free_disk": 1e12})
    probe.wait_for(lambda: "the recording ends, the bag is complete" in log.read_text(), "the disk's bound")
    probe.wait_for(lambda: (tmp_path / "next" / "metadata.yaml").exists(), "a complete bag")
    with Bag(tmp_path / "next") as bag:
        assert sorted(bag.decode(r).data for r in bag.records(["/extra"])) == ["one", "two"] and not bag.notes
    # So does a limit of its time.
    limited = {"min_free_disk": 0.0, "time_limit": 0.2, "output": str(tmp_path / "limited")}
    graph.cleanup("recorder_node")
    graph.set_parameters("recorder_node", limited)
    graph.configure("recorder_node")
    graph.activate("recorder_node")
    probe.wait_for(lambda: "time_limit: 0.2 s are recorded" in log.read_text(), "the limit of the time")
    probe.wait_for(lambda: (tmp_path / "limited" / "metadata.yaml").exists(), "a complete bag")
    with Bag(tmp_path / "limited") as bag:
        assert not bag.notes

    live = ObservationBuilder(spec, max_age=None, history=60.0)
    for stream, (topic, _) in topics.items():
        for message in probe.messages(topic):
            live.add(stream, message)
    recorded = ObservationBuilder(spec, max_age=None, history=60.0)
    with Bag(tmp_path / "bag") as bag:
        assert bag.topics["/instruction"].count == frames
        texts = [bag.decode(record).data for record in bag.records(["/instruction"])]
        for stream, (topic, _) in topics.items():
            for record in bag.records([f"/{topic}"]):
                recorded.add(stream, bag.decode(record))
    assert texts == [f"frame {k}" for k in range(frames)]
    for k in range(frames):
        stamp = source.start + k * STEP
        one, two = live.build(stamp), recorded.build(stamp)
        assert one.stamp_ns == two.stamp_ns == stamp and dict(one.stamps_ns) == dict(two.stamps_ns)
        assert one.state.tobytes() == two.state.tobytes() and one.state[0] == -k / 7
        for camera in spec.camera_names:
            assert one.images[camera].tobytes() == two.images[camera].tobytes()
        assert np.array_equal(one.images["raw"], picture(k))


def test_a_recorder_that_was_killed(graph: Graph, probe: Probe, robot: Path, tmp_path: Path):
    bag = tmp_path / "bag"
    start(graph, robot, bag, flush_period=0.02, compressed_images=True)
    source = Source(probe)
    file = bag / "bag_0.mcap"
    count = 0

    def enough() -> bool:
        nonlocal count
        source.publish(count)
        count += 1
        return file.exists() and file.stat().st_size > 60_000

    probe.wait_for(enough, "60 kB in the bag")
    graph.kill("recorder_node", signal.SIGKILL)
    assert not (bag / "metadata.yaml").exists()
    report = repair(bag)
    with Bag(report.output) as repaired:
        assert repaired.topics["/camera/raw/compressed"].type == "sensor_msgs/msg/CompressedImage"
        stamps = [repaired.header_ns(record) for record in repaired.records(["/joint_states"])]
        assert all(repaired.decode(record) is not None for record in repaired.records())
    assert len(stamps) > 3 and stamps == sorted(stamps)
    assert {(stamp - source.start) % STEP for stamp in stamps} == {0}
