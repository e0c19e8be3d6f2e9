"""A robot with sensors of every kind, their messages made without ROS, and a package that brings a decoder."""

import sys
from pathlib import Path

import numpy as np
from bags import factory
from bags.factory import NS, header, kind, raw

from vla_ros.core.robot import RobotSpec

POSES = "geometry_msgs/msg/PoseArray"  # a type that vla_ros has no decoder of
STREAMS = [
    {"name": "imu", "topic": "imu", "type": "sensor_msgs/msg/Imu", "unit": "m/s²", "frame": "base",
     "select": ["linear_acceleration.x", "linear_acceleration.y", "angular_velocity.z"]},
    {"name": "shake", "topic": "imu", "type": "sensor_msgs/msg/Imu", "select": ["linear_acceleration.x"],
     "window": {"count": 5, "rate": 50.0}},
    {"name": "depth", "topic": "depth", "type": "sensor_msgs/msg/Image", "dtype": "uint16", "shape": [24, 32, 1],
     "with": "front", "slop": 0.01},
    {"name": "markers", "topic": "markers", "type": POSES, "points": 3},
    {"name": "mass", "topic": "mass", "type": "std_msgs/msg/Float64MultiArray", "shape": [2], "max_age": None},
    {"name": "mode", "topic": "mode", "type": "std_msgs/msg/String", "dtype": "string", "max_age": 0.5},
    {"name": "pressed", "topic": "pressed", "type": "std_msgs/msg/Bool", "dtype": "bool"},
    {"name": "keys", "topic": "joy", "type": "sensor_msgs/msg/Joy", "select": ["buttons"], "shape": [2],
     "dtype": "int64"},
]  # fmt: skip
TYPES = {f"/{row['topic']}": row["type"] for row in STREAMS}
READINGS = ("imu", "shake", "depth", "markers", "markers_count", "mass", "mode", "pressed", "keys")


def robot_row(streams=STREAMS) -> dict:
    """ROBOT of the bag tests with streams, as its file has them."""
    limits = {"lower": -2.0, "upper": 2.0, "velocity": 1.0, "acceleration": 5.0}
    return {
        "name": "sensing",
        "cameras": [{"name": "front", "topic": "camera/image_raw", "width": 32, "height": 24}],
        "joints": [{"name": "a", **limits}, {"name": "b", **limits}],
        "groups": [
            {"name": "arm", "topic": "arm/command", "interface": "joint_trajectory", "joints": ["a"]},
            {"name": "hand", "topic": "hand/command", "interface": "float64_multi_array", "joints": ["b"]},
        ],
        "streams": list(streams),
    }


def robot() -> RobotSpec:
    return RobotSpec.from_dict(robot_row())


# Messages; k is the number of the message


def imu(ns: int, k: int, frame: str = "base"):
    vector, no = kind("geometry_msgs/msg/Vector3"), np.zeros(9)
    return kind("sensor_msgs/msg/Imu")(
        header=framed(ns, frame), orientation=kind("geometry_msgs/msg/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=no, angular_velocity=vector(x=0.0, y=0.0, z=k / 7), angular_velocity_covariance=no,
        linear_acceleration=vector(x=k / 3, y=-9.81, z=0.0), linear_acceleration_covariance=no,
    )  # fmt: skip


def framed(ns: int, frame: str):
    made = header(ns)
    made.frame_id = frame
    return made


def distances(k: int) -> np.ndarray:
    """(24, 32, 1) mm."""
    return (np.arange(24 * 32, dtype=np.uint16).reshape(24, 32, 1) + np.uint16(1000 * (k % 60))).astype(np.uint16)


def depth(ns: int, k: int):
    data = np.frombuffer(distances(k).tobytes(), np.uint8)
    return kind("sensor_msgs/msg/Image")(
        header=header(ns), height=24, width=32, encoding="16UC1", is_bigendian=0, step=64, data=data
    )


def poses(ns: int, k: int):
    """k % 5 poses, one of them at NaN where there are four."""
    point, quaternion = kind("geometry_msgs/msg/Point"), kind("geometry_msgs/msg/Quaternion")
    rows = [
        kind("geometry_msgs/msg/Pose")(
            position=point(x=float(i), y=k / 3, z=np.nan if i == 3 else 0.5), orientation=quaternion(x=0, y=0, z=0, w=1)
        ) for i in range(k % 5)
    ]  # fmt: skip
    return kind(POSES)(header=header(ns), poses=rows)


def numbers(values):
    layout = kind("std_msgs/msg/MultiArrayLayout")(dim=[], data_offset=0)
    return kind("std_msgs/msg/Float64MultiArray")(layout=layout, data=np.array(values, float))


def joy(ns: int, k: int):
    return kind("sensor_msgs/msg/Joy")(
        header=header(ns), axes=np.zeros(0, np.float32), buttons=np.array([k % 2, k], np.int32)
    )


def text(value: str):
    return kind("std_msgs/msg/String")(data=value)


def truth(value: bool):
    return kind("std_msgs/msg/Bool")(data=value)


def messages(seconds: float = 2.0) -> list[tuple[str, int, bytes]]:
    """(topic, log time, data): what `factory.messages` has, and every sensor; depth 3 ms after each image.

    The mass is said once, before everything else.
    """
    rows = [("/mass", factory.START - NS // 2, raw(numbers([0.25, 1 / 3])))]
    rows += factory.messages(seconds)
    for k in range(round(seconds * 50) + 1):
        ns = factory.START + k * 20_000_000
        rows.append(("/imu", ns, raw(imu(ns, k))))
        if k % 5 == 0:
            rows.append(("/depth", ns + 3_000_000, raw(depth(ns + 3_000_000, k // 5))))
            rows.append(("/markers", ns, raw(poses(ns, k // 5))))
            rows.append(("/mode", ns, raw(text("m" * (k // 50)))))
            rows.append(("/pressed", ns, raw(truth(k % 2 == 1))))
            rows.append(("/joy", ns, raw(joy(ns, k))))
    return sorted(rows, key=lambda row: row[1])


# A package of somebody else

DECODER = '''
"""Decoders of an installed package."""


def positions(message, stream):
    """(M, 3) positions of the poses."""
    return [[pose.position.x, pose.position.y, pose.position.z] for pose in message.poses]
'''


def install_decoder(folder: Path, module: str = "somebodys_decoders") -> Path:
    """As pip installs it, and beside it the family that reads all sensors; `folder` is to be put on the path."""
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    points = f"[vla_ros.decoders]\n{POSES} = {module}:positions\n[vla_ros.policies]\nsensing = sensing_family\n"
    (info / "entry_points.txt").write_text(points)
    (folder / f"{module}.py").write_text(DECODER)
    sys.modules.pop(module, None)
    return folder
