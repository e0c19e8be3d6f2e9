"""Publishers of joint commands: one for each command group of a robot, and who else has one."""

from collections.abc import Sequence

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.topic_endpoint_info import TopicEndpointInfo
from trajectory_msgs.msg import JointTrajectoryPoint

from vla_ros.core.robot import RobotSpec
from vla_ros.messages.commands import COMMAND_TYPES, CommandWriter
from vla_ros.nodes.streams import message_class


class CommandPublishers:
    """Publishes joint positions on the topics of a robot's command groups."""

    def __init__(self, node: Node, robot: RobotSpec, names: Sequence[str], qos: QoSProfile) -> None:
        """`names`: the J joints in the order of the positions that `publish` takes."""
        self._node = node
        self._groups = []
        for group in robot.groups:
            kind = message_class(COMMAND_TYPES[group.interface])
            writer = CommandWriter(group, kind(), JointTrajectoryPoint(), 1.0 / robot.control_rate)
            columns = np.array([names.index(joint) for joint in group.joints])
            self._groups.append((node.create_publisher(kind, group.topic, qos), writer, columns))

    def publish(self, positions: np.ndarray, stamp_ns: int) -> None:
        """(J,) positions, rad or m, for the instant `stamp_ns`."""
        for publisher, writer, columns in self._groups:
            publisher.publish(writer.fill(positions[columns], stamp_ns))

    def close(self) -> None:
        for publisher, _, _ in self._groups:
            self._node.destroy_publisher(publisher)


def other_commanders(node: Node, robot: RobotSpec, publishing: bool) -> list[str]:
    """Other nodes with a publisher on a command topic, in words; `publishing`: whether `node` has one itself."""
    me, found = node.get_fully_qualified_name(), []
    for group in robot.groups:
        topic = node.resolve_topic_name(group.topic)
        others = [node_name(info) for info in node.get_publishers_info_by_topic(topic)]
        if publishing and me in others:
            others.remove(me)  # once: a second executor may well have the same name
        found += [f"{other} on {topic}" for other in others]
    return found


def node_name(info: TopicEndpointInfo) -> str:
    """Full name of an endpoint's node. A publisher can be discovered before its node's name is."""
    if info.node_name == "_NODE_NAME_UNKNOWN_":
        return "a node that is not known by name yet"
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
