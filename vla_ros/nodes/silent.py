"""Explains why nothing arrives on a topic."""

from collections.abc import Iterable

from rclpy.node import Node

from vla_ros.core.stream import Stream
from vla_ros.nodes.commands import alike, node_name


def silent(node: Node, streams: Iterable[Stream]) -> str:
    """The topics on which nothing can arrive, and why, in words; "" if each has a publisher of its type."""
    found = []
    for stream in streams:
        topic = node.resolve_topic_name(stream.topic)
        publishers = node.get_publishers_info_by_topic(topic)
        if not publishers:
            found.append(f"nobody publishes {topic}{alike(node, topic, stream.type, node.count_publishers)}")
        elif all(info.topic_type != stream.type for info in publishers):
            name, kind = node_name(publishers[0]), publishers[0].topic_type
            found.append(f"{name} publishes {topic} as {kind}, the robot file says {stream.type}")
    return "; ".join(found)
