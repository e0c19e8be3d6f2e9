"""A bag of a robot with a base: its odometry becomes states, its twists actions."""

import numpy as np
from bags.factory import ARM, IMAGE, JOINTS, NS, START, TEXT, TYPES, arm, header, image, joint_state, kind, raw, text

from vla_ros.bags.build import build_dataset
from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.writer import BagWriter
from vla_ros.core.robot import RobotSpec
from vla_ros.datasets.lerobot import Dataset

ODOM, DRIVE = "/odom", "/cmd_vel"
KINDS = TYPES | {ODOM: "nav_msgs/msg/Odometry", DRIVE: "geometry_msgs/msg/Twist"}
LIMITS = {"velocity": 1.0, "acceleration": 5.0}
ROBOT = RobotSpec.from_dict({
    "name": "cart",
    "cameras": [{"name": "front", "topic": "camera/image_raw", "width": 32, "height": 24, "rate": 10.0}],
    "joints": [{"name": "x.vel", "unit": "m/s", **LIMITS}, {"name": "a", "lower": -2.0, "upper": 2.0, **LIMITS}],
    "groups": [
        {"name": "arm", "topic": "arm/command", "interface": "joint_trajectory", "joints": ["a"]},
        {"name": "base", "topic": "cmd_vel", "interface": "base_twist", "joints": ["x.vel"], "axes": ["x"],
         "odometry": "odom"},
    ],
})  # fmt: skip


def vector(x: float) -> object:
    return kind("geometry_msgs/msg/Vector3")(x=x, y=0.0, z=0.0)


def twist(x: float) -> object:
    return kind("geometry_msgs/msg/Twist")(linear=vector(x), angular=vector(0.0))


def odometry(ns: int, x: float) -> bytes:
    none, place = np.zeros(36), kind("geometry_msgs/msg/Point")(x=0.0, y=0.0, z=0.0)
    pose = kind("geometry_msgs/msg/Pose")(
        position=place, orientation=kind("geometry_msgs/msg/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0)
    )
    return raw(kind("nav_msgs/msg/Odometry")(
        header=header(ns), child_frame_id="base_link",
        pose=kind("geometry_msgs/msg/PoseWithCovariance")(pose=pose, covariance=none),
        twist=kind("geometry_msgs/msg/TwistWithCovariance")(twist=twist(x), covariance=none),
    ))  # fmt: skip


def test_states_and_actions_are_velocities(tmp_path):
    writer = BagWriter(tmp_path / "bag")
    for topic in (TEXT, ODOM, DRIVE, JOINTS, ARM, IMAGE):
        writer.add_topic(topic, KINDS[topic])
    writer.write(TEXT, START, text("drive"))
    for k in range(101):
        ns, speed = START + k * NS // 50, 0.01 * k
        writer.write(ODOM, ns, odometry(ns, speed / 2))
        writer.write(JOINTS, ns, joint_state(ns, ["a"], [0.25]))
        writer.write(ARM, ns, arm(ns, 0.3))
        if k < 50:  # then nobody commands the base any more
            writer.write(DRIVE, ns, raw(twist(speed)))
        if k % 5 == 0:
            writer.write(IMAGE, ns, image(ns, k // 5))
    writer.close()
    build_dataset([tmp_path / "bag"], tmp_path / "data", ROBOT, CutOptions(fps=10.0, max_command_gap=5.0))
    data = Dataset(tmp_path / "data")
    assert data.joint_names == ("x.vel", "a") and len(data) == 21
    np.testing.assert_allclose(data.states, [[0.025 * k, 0.25] for k in range(21)], atol=1e-6)
    drives = [0.05 * k if k < 10 else 0.49 if k < 15 else 0.0 for k in range(21)]  # half a second after the last one
    np.testing.assert_allclose(data.actions, [[speed, 0.3] for speed in drives], atol=1e-6)
