"""The frames of the simulated arm and its cameras, as robot_state_publisher would publish them."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.node import Node

from vla_ros.control.kinematics import MOVING, Kinematics, TreeJoint, quaternion
from vla_ros.core.errors import InputError
from vla_ros.messages.stamps import set_stamp
from vla_ros.nodes.qos import STATUS_QOS, profile
from vla_ros.nodes.streams import message_class

TYPE = "tf2_msgs/msg/TFMessage"
_EVERY = 3  # control periods between two transforms of a joint: viewers interpolate


class Frames:
    """/tf_static at once, /tf while there is a subscriber; nothing if tf2_msgs is not installed."""

    def __init__(self, node: Node, tree: Kinematics) -> None:
        self._moving = [joint for joint in tree.joints if joint.kind in MOVING]
        self._moments, self._tree, self._publisher = 0, tree, None
        try:
            kind = message_class(TYPE)
        except InputError as error:
            node.get_logger().info(f"no /tf: {error}; robot_state_publisher can make it from robot_description")
            return
        self._kind = kind
        self._publisher = node.create_publisher(kind, "/tf", profile(100, reliable=True))
        self._static = node.create_publisher(kind, "/tf_static", STATUS_QOS)
        still = [joint for joint in tree.joints if joint.kind not in MOVING]
        self._static.publish(self._message(still, {}, node.get_clock().now().nanoseconds))

    def publish(self, positions: Mapping[str, float], stamp: int, base: np.ndarray | None = None) -> None:
        """Joint -> position in rad or m; `stamp` in ns; `base`: (3,) x, y and yaw of one that drives, m and rad."""
        self._moments += 1
        if self._publisher is not None and self._moments % _EVERY == 0 and self._publisher.get_subscription_count():
            message = self._message(self._moving, positions, stamp)
            if base is not None:
                message.transforms = [*message.transforms, _of_base(base, stamp)]
            self._publisher.publish(message)

    def _message(self, joints: Iterable[TreeJoint], positions: Mapping[str, float], stamp: int) -> object:
        rows = []
        for joint in joints:
            pose = joint.motion(self._tree.position(joint, positions))
            row = TransformStamped(child_frame_id=joint.child, transform=transform(pose))
            row.header.frame_id = joint.parent
            rows.append(set_stamp(row, stamp))
        return self._kind(transforms=rows)


def _of_base(base: np.ndarray, stamp: int) -> TransformStamped:
    x, y, yaw = base.tolist()
    turned = Quaternion(z=math.sin(yaw / 2), w=math.cos(yaw / 2))
    row = TransformStamped(child_frame_id="base_link")
    row.header.frame_id = "odom"
    row.transform = Transform(translation=Vector3(x=x, y=y), rotation=turned)
    return set_stamp(row, stamp)


def transform(pose: np.ndarray) -> Transform:
    """From a (4, 4) pose."""
    x, y, z, w = quaternion(pose[:3, :3]).tolist()
    place = dict(zip("xyz", pose[:3, 3].tolist(), strict=True))
    return Transform(translation=Vector3(**place), rotation=Quaternion(x=x, y=y, z=z, w=w))
