"""What the doctor says of a robot, its sensors, its policy and its nodes, and what mends it."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="the package of the nodes needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from vla_ros.cli.demo import CHECKPOINT
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.commands import COMMAND_TYPES
from vla_ros.messages.stamps import NS
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes import doctor
from vla_ros.nodes.console.cameras import Picture, policy_views
from vla_ros.nodes.doctor import GREEN, RED, YELLOW, live_checks, machine_checks, policy_checks

ROBOT = RobotSpec.load("so101")
NOW = 100 * NS


def endpoint(node: str, kind: str) -> SimpleNamespace:
    return SimpleNamespace(node_name=node, node_namespace="/", topic_type=kind)


class Node:
    """A graph in which everything is as the robot file says."""

    def __init__(self) -> None:
        streams = [stream for stream in ROBOT.all_streams.values() if not stream.is_command]
        self.publishers = {f"/{stream.topic}": [endpoint("driver", stream.type)] for stream in streams}
        self.subscribers = {f"/{g.topic}": [endpoint("controller", COMMAND_TYPES[g.interface])] for g in ROBOT.groups}
        self.subscribers["/e_stop"] = [endpoint("executor_node", "std_msgs/msg/Bool")]

    def resolve_topic_name(self, name: str) -> str:
        return f"/{name.lstrip('/')}"

    def get_publishers_info_by_topic(self, topic: str) -> list:
        return self.publishers.get(topic, [])

    def get_subscriptions_info_by_topic(self, topic: str) -> list:
        return self.subscribers.get(topic, [])

    def count_publishers(self, topic: str) -> int:
        return len(self.get_publishers_info_by_topic(topic))

    def count_subscribers(self, topic: str) -> int:
        return len(self.get_subscriptions_info_by_topic(topic))

    def get_topic_names_and_types(self) -> list:
        return [(topic, []) for topic in self.publishers]

    def get_clock(self) -> Any:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=NOW))

    def get_parameter(self, name: str) -> Any:
        return SimpleNamespace(value=False)

    def get_fully_qualified_name(self) -> str:
        return "/doctor"


def healthy() -> Any:
    pictures = {}
    for index, camera in enumerate(ROBOT.cameras):
        picture = pictures[camera.name] = Picture(camera, index)
        picture.size, picture.encoding, picture.rate = (480, 640), "rgb8", 29.8
        picture.stamp_ns, picture.came = NOW - NS // 20, time.monotonic()
    joints = {name: (0.1, NOW - NS // 100) for name in ROBOT.joint_names}
    return SimpleNamespace(
        node=Node(), robot=ROBOT, pictures=pictures, joints=joints, disagreement=lambda: "",
        ages=lambda now: {name: (now - stamp) / NS for name, (_, stamp) in joints.items()},
        policy=PolicyStatus(state=PolicyStatus.RUNNING),
        executor=ExecutorStatus(state=ExecutorStatus.EXECUTING, names=["a"], limited_share=[0.0]),
    )  # fmt: skip


def found(scene: Any, processor: Any = None) -> dict[str, Any]:
    return {check.title: check for check in live_checks(scene, processor)}


def test_all_is_green_where_all_is_well():
    checks = found(healthy())
    assert {check.level for check in checks.values()} == {GREEN}
    assert not any(check.mend for check in checks.values()) and len(checks) == 9
    assert checks["camera front"].words == "640x480 rgb8, 30 Hz"


@pytest.mark.parametrize(("change", "level", "words"), [
    ({"came": 0.0}, RED, "no image on camera/front/image_raw yet"),
    ({"came": -9.0}, RED, "no image for "),
    ({"stamp_ns": NOW - 2 * NS}, RED, "2.00 s old"),
    ({"stamp_ns": NOW + NS}, RED, "1.00 s in the future"),
    ({"trouble": "image: step 3, expected"}, RED, "step 3"),
    ({"size": (240, 320)}, YELLOW, "320x240 rgb8, 30 Hz; the robot file says 640x480"),
    ({"encoding": "bgr8"}, YELLOW, "the robot file says rgb8"),
    ({"rate": 12.0}, YELLOW, "12 Hz; the robot file says 30 Hz"),
])  # fmt: skip
def test_a_camera_that_is_not_as_the_file_says(change, level, words):
    scene = healthy()
    for name, value in change.items():
        setattr(scene.pictures["front"], name, time.monotonic() + value if name == "came" and value else value)
    check = found(scene)["camera front"]
    assert check.level == level and words in check.words and check.mend
    assert found(scene)["camera wrist"].level == GREEN


def test_joints_that_are_missing_stale_or_out_of_range_are_named():
    scene = healthy()
    scene.joints["gripper"] = (90.0, NOW)
    assert "gripper is at 90.000 rad (degrees or ticks?)" in found(scene)["ranges"].words
    scene.joints["elbow_flex"] = (0.0, NOW - 3 * NS)
    assert found(scene)["joint states"].words == "elbow_flex is 3.00 s old by its stamp"
    del scene.joints["wrist_roll"]
    scene.joints["joint_5"] = (0.0, NOW)
    assert found(scene)["joint states"].words == "nobody publishes the position of wrist_roll; published are joint_5"
    scene.node.publishers.pop("/joint_states")
    assert found(scene)["joint states"].words == "nobody publishes /joint_states"


def test_commands_and_the_e_stop_need_a_listener_and_one_speaker():
    scene, topic = healthy(), f"/{ROBOT.groups[0].topic}"
    speakers = scene.node.publishers[topic] = [endpoint("executor_node", "x")]
    scene.node.subscribers[topic].append(endpoint("console_node", "x"))
    assert "other commanders" not in found(scene)
    speakers.append(endpoint("teleop", "x"))
    assert found(scene)["other commanders"].words == f"/teleop on {topic}"
    del scene.node.subscribers[topic][0]  # a page that listens is no controller
    assert found(scene)["controllers"].words == f"nobody subscribes to {topic}, expected the controller of arm"
    scene.node.subscribers["/e_stop"] = [endpoint("recorder_node", "std_msgs/msg/Bool")]
    assert found(scene)["e-stop"].level == RED


def test_why_it_does_not_move_is_what_the_nodes_say():
    scene = healthy()
    scene.executor = ExecutorStatus(state=ExecutorStatus.STOPPED, cause=ExecutorStatus.CAUSE_FOLLOWING_ERROR,
                                    message="lift is 0.4 rad behind", dry_run=True, refused_chunks=9, accepted_chunks=2,
                                    last_refusal="jump: lift")  # fmt: skip
    scene.policy = PolicyStatus(state=PolicyStatus.WAITING, message="front: 0.8 s old")
    scene.disagreement = lambda: "the policy follows 'a', the executor 'b'"
    checks = found(scene)
    assert checks["executor_node"].words == "stopped (following error): lift is 0.4 rad behind"
    assert "deactivate and activate" in checks["executor_node"].mend
    assert checks["policy_node"].level == checks["dry run"].level == YELLOW
    assert checks["instruction"].level == checks["chunks"].level == RED
    scene.policy = scene.executor = None
    assert found(scene)["policy_node"].words == found(scene)["executor_node"].words == "not heard"
    scene.node.publishers["/clock"] = [endpoint("sim_node", "x")]
    assert found(scene)["clock"].level == YELLOW


def test_the_checkpoint_is_held_against_robot_and_arm(tmp_path):
    (check,), processor = policy_checks(str(CHECKPOINT), ROBOT)
    assert check.level == GREEN and processor.cameras == ("front", "wrist")
    views = policy_views(processor)
    pixels = np.full((480, 640, 3), 200, np.uint8)
    assert set(views) == {"front", "wrist"} and views["front"](pixels).shape == (*processor.size_of("front"), 3)
    assert policy_views(None) == {}
    scene = healthy()
    middle = processor.state
    low, high = (np.asarray(middle.statistics[name]) for name in ("mean", "std")) if middle.mode == "mean_std" else \
        (np.asarray(middle.statistics[name]) for name in doctor_bounds(middle.mode))
    at = low if middle.mode == "mean_std" else (low + high) / 2
    for name, value in zip(processor.joints, at, strict=True):
        scene.joints[name] = (float(value), NOW)
    assert found(scene, processor)["training data"].level == GREEN
    scene.joints["shoulder_lift"] = (-1.74, NOW)
    scene.joints["elbow_flex"] = (9.0, NOW)
    assert "elbow_flex" in found(scene, processor)["training data"].words
    (check,), processor = policy_checks(str(tmp_path / "none"), ROBOT)
    assert check.level == RED and processor is None and "no such folder" in check.words
    (check,), processor = policy_checks(str(CHECKPOINT), RobotSpec.load("fr3"))
    assert check.level == RED and processor is None


def doctor_bounds(mode: str) -> tuple[str, str]:
    from vla_ros.policies.normalisation import MODES

    return MODES[mode]


def test_the_machine_has_disk_and_says_what_gpu_it_has(tmp_path, monkeypatch):
    disk, gpu = machine_checks(tmp_path / "not" / "yet")
    assert disk.title == "disk" and str(tmp_path) in disk.words and gpu.title == "GPU"

    def says(text: str) -> None:
        monkeypatch.setattr(doctor.subprocess, "run", lambda *args, **options: SimpleNamespace(stdout=text))

    says("NVIDIA H200, 140000, 143771, 45\n")
    _, gpu = machine_checks(tmp_path)
    assert gpu.level == YELLOW and gpu.words == "NVIDIA H200, 140000 of 143771 MB used, 45 °C"
    says("no devices were found\n")
    assert machine_checks(tmp_path)[1].level == YELLOW
