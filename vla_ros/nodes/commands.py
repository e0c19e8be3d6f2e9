"""Publishers of joint commands, one for each command group of a robot; and other nodes on the same topics."""

import time
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.topic_endpoint_info import TopicEndpointInfo
from trajectory_msgs.msg import JointTrajectoryPoint

from vla_ros.core.errors import shown
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.commands import COMMAND_TYPES, BaseWriter, CommandWriter, ToolWriter
from vla_ros.nodes.goals import make_goals
from vla_ros.nodes.streams import message_class

_ALIKE = 0.9  # similarity of the names of two topics; those of two cameras have less
_PATIENCE = 1.0  # s, for what normally takes milliseconds


class CommandPublishers:
    """Publishes joint positions on the topics of a robot's command groups, and sends goals to its actions."""

    def __init__(
        self,
        node: Node,
        robot: RobotSpec,
        names: Sequence[str],
        qos: QoSProfile,
        *,
        horizon: float = 0.0,
        stamped: bool = True,
    ) -> None:
        """`names`: the J joints, and maybe a tool's columns, in the order of the positions that `publish` takes;
        `horizon`: s that trajectories reach ahead; `stamped`: whether trajectories carry the time of the command,
        unless their group says."""
        self._node, self._period = node, 1.0 / robot.control_rate
        self._groups, self._goals, self._bases, self._tool = [], [], [], None
        span = {joint.name: joint.upper - joint.lower for joint in robot.joints}
        try:
            for group in robot.groups:
                kind = message_class(COMMAND_TYPES[group.interface])
                if group.of_tool:
                    self._tool = node.create_publisher(kind, group.topic, qos), ToolWriter(kind(), robot.tool.frame)
                    continue
                stamps = group.stamp == "now" if group.stamp else stamped
                columns = np.array([names.index(joint) for joint in group.joints])
                if group.of_base:
                    writer = BaseWriter(group, kind())
                    self._bases.append((node.create_publisher(kind, group.topic, qos), writer, columns))
                    continue
                writer = CommandWriter(group, kind(), JointTrajectoryPoint, self._period, horizon, stamps)
                self._groups.append((node.create_publisher(kind, group.topic, qos), writer, columns))
                goals = make_goals(node, group, span[group.joints[0]])
                if goals is not None:
                    self._goals.append((goals, columns))
        except Exception:  # otherwise it would look like another commander
            self.close()
            raise

    def publish(
        self, positions: np.ndarray, stamp_ns: int, braking: np.ndarray | None = None, reach_in: float = 0.0,
        tool: np.ndarray | None = None,
    ) -> None:
        """(J,) positions, rad or m (velocities of a base), for the time `stamp_ns`; (K, J) `braking` and `reach_in`
        as in `Command`.

        `tool`: values for `ToolWriter`, if a group is commanded by it.
        """
        if self._tool is not None:
            self.publish_tool(tool, stamp_ns)
        for publisher, writer, columns in self._bases:
            publisher.publish(writer.fill(positions[columns], stamp_ns))
        for publisher, writer, columns in self._groups:
            after = None if braking is None else braking[:, columns]
            publisher.publish(writer.fill(positions[columns], stamp_ns, after, reach_in))
        for goals, columns in self._goals:
            after = np.empty((0, len(columns))) if braking is None else braking[:, columns]
            goals.take(positions[columns], after, self._period, reach_in)

    def publish_tool(self, values: np.ndarray, stamp_ns: int) -> None:
        """Publish only the tool's message (values for `ToolWriter`), if the robot has such a group."""
        publisher, writer = self._tool
        publisher.publish(writer.fill(values, stamp_ns))

    def stop_bases(self, stamp_ns: int) -> None:
        """Publish zero velocities, because a base may continue with the last ones that it received. A base that was
        already stopped gets no message, because another commander may drive it by now."""
        for publisher, writer, columns in self._bases:
            if writer.moving:
                publisher.publish(writer.fill(np.zeros(len(columns)), stamp_ns))

    def settle(self) -> None:
        """Wait until the subscribers have the last velocities of bases and of the tool, which would be lost with their
        publishers."""
        end = time.monotonic() + _PATIENCE
        for publisher, *_ in [*self._bases, *filter(None, [self._tool])]:
            # Polled, because rclpy would wait with the interpreter's lock held.
            while not publisher.wait_for_all_acked(Duration()) and time.monotonic() < end:
                time.sleep(0.002)

    @property
    def trouble(self) -> str:
        """What is wrong with the actions, in words; "" if nothing is."""
        return "; ".join(goals.trouble for goals, _ in self._goals if goals.trouble)

    def close(self) -> None:
        for goals, _ in self._goals:
            goals.close()
        for publisher, *_ in [*self._groups, *self._bases, *filter(None, [self._tool])]:
            self._node.destroy_publisher(publisher)


def other_commanders(node: Node, robot: RobotSpec, publishing: bool) -> list[str]:
    """Other nodes that publish on a command topic; `publishing`: whether `node` publishes there itself."""
    me, found = node.get_fully_qualified_name(), []
    for group in robot.groups:
        topic = node.resolve_topic_name(group.topic)
        others = [node_name(info) for info in node.get_publishers_info_by_topic(topic)]
        if publishing and me in others:
            others.remove(me)  # only once: a second executor may have the same name
        found += [f"{other} on {topic}" for other in others]
    return found


def unheard(node: Node, robot: RobotSpec) -> str:
    """The command topics that no controller subscribes to, in words; "" if each has one."""
    found = []
    for group in robot.groups:
        if group.action:
            continue  # topics that only repeat the goals need no subscriber
        topic, wanted = node.resolve_topic_name(group.topic), COMMAND_TYPES[group.interface]
        listeners = [info for info in node.get_subscriptions_info_by_topic(topic) if not _only_listens(info)]
        if not listeners:
            meant = alike(node, topic, wanted, node.count_subscribers)
            found.append(f"nobody subscribes to {topic}{meant}, expected the controller of {group.name}")
        elif all(info.topic_type != wanted for info in listeners):
            found.append(f"{node_name(listeners[0])} subscribes to {topic} as {listeners[0].topic_type}, not {wanted}")
    return "; ".join(found)


def alike(node: Node, topic: str, typename: str, used: Callable[[str], int]) -> str:
    """", but ..." with topics that may be meant: transports of this one, and topics of the same type whose name ends
    with it or differs in one letter of ten. "" if there are none. `used`: how many nodes use a topic."""

    def near(name: str, types: list[str]) -> bool:
        same = typename in types and (name.endswith(topic) or SequenceMatcher(None, name, topic).ratio() >= _ALIKE)
        if name in (topic, f"{topic}/claim"):  # the second is for executors among themselves
            return False
        return (name.startswith(f"{topic}/") or same) and used(name) > 0

    names = ", ".join(shown(name) for name, types in node.get_topic_names_and_types() if near(name, types))
    return f", but {names}" if names else ""


def _only_listens(info: TopicEndpointInfo) -> bool:
    """Whether it is a recorder or a viewer."""
    return info.node_name.startswith(("recorder_node", "console_node", "rosbag2", "vla_ros_cli", "_ros2cli"))


def node_name(info: TopicEndpointInfo) -> str:
    """Full name of an endpoint's node. A publisher can be discovered before its node's name is."""
    if info.node_name == "_NODE_NAME_UNKNOWN_":
        return "a node that is not known by name yet"
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
