"""Messages and bags for the tests, made without ROS."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import Stores, get_typestore

from vla_ros.bags.definitions import standard_store
from vla_ros.bags.writer import BagWriter
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.stamps import NS

START = 1_700_000_000 * NS

ROBOT = RobotSpec.from_dict(
    {
        "name": "twojoint",
        "joint_state_topic": "joint_states",
        "cameras": [{"name": "front", "topic": "camera/image_raw", "width": 32, "height": 24, "rate": 10.0}],
        "joints": [
            {"name": "a", "lower": -2.0, "upper": 2.0, "velocity": 1.0, "acceleration": 5.0},
            {"name": "b", "lower": -2.0, "upper": 2.0, "velocity": 1.0, "acceleration": 5.0, "discrete": True},
        ],
        "groups": [
            {"name": "arm", "topic": "arm/command", "interface": "joint_trajectory", "joints": ["a"]},
            {"name": "hand", "topic": "hand/command", "interface": "float64_multi_array", "joints": ["b"]},
        ],
    }
)
IMAGE, JOINTS, ARM, HAND, TEXT = (
    "/camera/image_raw", "/joint_states", "/arm/command", "/hand/command", "/instruction",
)  # fmt: skip
TYPES = {
    IMAGE: "sensor_msgs/msg/Image",
    JOINTS: "sensor_msgs/msg/JointState",
    ARM: "trajectory_msgs/msg/JointTrajectory",
    HAND: "std_msgs/msg/Float64MultiArray",
    TEXT: "std_msgs/msg/String",
}


def write_robot(path: Path) -> Path:
    """ROBOT as a file."""
    camera = ROBOT.cameras[0]
    limits = {"lower": -2.0, "upper": 2.0, "velocity": 1.0, "acceleration": 5.0}
    content = {
        "name": ROBOT.name,
        "cameras": [{"name": camera.name, "topic": camera.topic, "width": camera.width, "height": camera.height}],
        "joints": [{"name": joint.name, "discrete": joint.discrete, **limits} for joint in ROBOT.joints],
        "groups": [{**asdict(group), "joints": list(group.joints)} for group in ROBOT.groups],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def kind(name: str) -> Any:
    return standard_store().types[name]


def stamp(ns: int) -> Any:
    return kind("builtin_interfaces/msg/Time")(sec=ns // NS, nanosec=ns % NS)


def header(ns: int) -> Any:
    return kind("std_msgs/msg/Header")(stamp=stamp(ns), frame_id="")


def raw(message: Any) -> bytes:
    return bytes(standard_store().serialize_cdr(message, message.__msgtype__))


def pixels(k: int) -> np.ndarray:
    """A smooth picture that differs from frame to frame, (24, 32, 3)."""
    y, x = np.mgrid[0:24, 0:32]
    return np.stack([x * 7 + k, y * 9 + 2 * k, (x + y) * 3], axis=-1).astype(np.uint8)


def image(ns: int, k: int, encoding: str = "rgb8") -> bytes:
    return raw(
        kind("sensor_msgs/msg/Image")(
            header=header(ns), height=24, width=32, encoding=encoding, is_bigendian=0, step=96,
            data=pixels(k).reshape(-1),
        )
    )  # fmt: skip


def joints(ns: int, position: Iterable[float]) -> bytes:
    """The robot's joints in another order than the robot file's."""
    return joint_state(ns, ["b", "a"], list(position)[::-1])


def joint_state(ns: int, names: list[str], position: list[float]) -> bytes:
    empty, values = np.zeros(0), np.array(position, float)
    return raw(
        kind("sensor_msgs/msg/JointState")(
            header=header(ns), name=names, position=values, velocity=empty, effort=empty
        )
    )


def arm(ns: int, value: float) -> bytes:
    empty = np.zeros(0)
    duration = kind("builtin_interfaces/msg/Duration")(sec=0, nanosec=10_000_000)
    point = kind("trajectory_msgs/msg/JointTrajectoryPoint")(
        positions=np.array([value]), velocities=empty, accelerations=empty, effort=empty, time_from_start=duration
    )
    return raw(kind("trajectory_msgs/msg/JointTrajectory")(header=header(ns), joint_names=["a"], points=[point]))


def hand(value: float) -> bytes:
    layout = kind("std_msgs/msg/MultiArrayLayout")(dim=[], data_offset=0)
    return raw(kind("std_msgs/msg/Float64MultiArray")(layout=layout, data=np.array([value])))


def text(value: str) -> bytes:
    return raw(kind("std_msgs/msg/String")(data=value))


def messages(seconds: float = 2.0, start: int = START, instruction: str = "wave") -> list[tuple[str, int, bytes]]:
    """(topic, log time, data) of one episode: images at 10 Hz, joints and commands at 50 Hz.

    Joint a follows sin(t), its command runs ahead by 0.1; joint b and its command step from 0 to 1 after a second.
    """
    rows = [(TEXT, start, text(instruction))]
    for k in range(round(seconds * 50) + 1):
        ns = start + k * 20_000_000
        t = k / 50
        rows.append((JOINTS, ns, joints(ns, (np.sin(t), float(t >= 1.0)))))
        rows.append((ARM, ns, arm(ns, np.sin(t) + 0.1)))
        rows.append((HAND, ns, hand(float(t >= 1.0))))
        if k % 5 == 0:
            rows.append((IMAGE, ns, image(ns, k // 5)))
    return rows


def write_bag(path: Path, rows: Iterable[tuple[str, int, bytes]], **options: Any) -> Path:
    writer = BagWriter(path, **options)
    for topic, log_ns, data in rows:
        if topic not in writer.topics:
            writer.add_topic(topic, TYPES[topic])
        writer.write(topic, log_ns, data)
    writer.close()
    return path


def write_foreign_bag(path: Path, version: int, plugin: StoragePlugin, mode: CompressionMode) -> list:
    """A bag of 0.2 s by another writer; returns its rows."""
    store = get_typestore(Stores.ROS2_KILTED)
    writer = Writer(path, version=version, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    rows = messages(0.2)
    with writer:
        connections = {topic: writer.add_connection(topic, TYPES[topic], typestore=store) for topic in TYPES}
        for topic, ns, data in rows:
            writer.write(connections[topic], ns, data)
    return rows
