"""A topic that nobody publishes is said with the one that may be meant; on a graph: system/test_operator.py."""

from argparse import Namespace

import pytest

pytest.importorskip("rclpy", reason="endpoints of ROS 2")

from vla_ros.core.stream import Stream
from vla_ros.nodes.commands import alike
from vla_ros.nodes.silent import silent

IMAGE, JOINTS = "sensor_msgs/msg/Image", "sensor_msgs/msg/JointState"
TOPICS = {
    "/joint_states": [JOINTS], "/camera/front/image_raw": [IMAGE], "/camera/wrist/image_raw": [IMAGE],
    "/camera/side/image_raw/compressed": ["sensor_msgs/msg/CompressedImage"], "/arm2/joint_states": [JOINTS],
    "/joint_statez": ["std_msgs/msg/String"], "/arm/command/claim": ["std_msgs/msg/String"], "/joint_stats": [JOINTS],
}  # fmt: skip
UNUSED = "/joint_stats"  # somebody asks for it, as we do for a wrong name


def node() -> Namespace:
    return Namespace(
        get_topic_names_and_types=lambda: list(TOPICS.items()),
        resolve_topic_name=lambda name: f"/{name}",
        get_publishers_info_by_topic=lambda name: [],
        count_publishers=lambda name: int(name != UNUSED),
    )


@pytest.mark.parametrize(
    ("topic", "typename", "meant"),
    [
        ("joint_stat", JOINTS, ", but '/joint_states'"),
        ("joint_states", JOINTS, ", but '/arm2/joint_states'"),
        ("camera/front/image", IMAGE, ", but '/camera/front/image_raw'"),
        ("camera/frnt/image_raw", IMAGE, ", but '/camera/front/image_raw'"),
        ("camera/side/image_raw", IMAGE, ", but '/camera/side/image_raw/compressed'"),
        ("camera/top/image_raw", IMAGE, ""),
        ("positions", JOINTS, ""),
        ("arm/command", JOINTS, ""),
    ],
)
def test_what_may_be_meant(topic: str, typename: str, meant: str):
    assert silent(node(), [Stream("x", topic, typename)]) == f"nobody publishes /{topic}{meant}"


def test_a_topic_that_nobody_has_is_not_meant():
    assert alike(node(), "/joint_stat", JOINTS, lambda name: 0) == ""
