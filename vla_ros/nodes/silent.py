"""Why nothing arrives on a topic."""

from collections.abc import Iterable

from rclpy.node import Node

from vla_ros.core.errors import shown
from vla_ros.core.stream import Stream
from vla_ros.nodes.commands import node_name


def silent(node: Node, streams: Iterable[Stream]) -> str:
    """In words the topics on which nothing can arrive, and why; "" where each has somebody who publishes it."""
    found = []
    for stream in streams:
        topic = node.resolve_topic_name(stream.topic)
        publishers = node.get_publishers_info_by_topic(topic)
        if not publishers:
            near = [name for name, _ in node.get_topic_names_and_types() if name.startswith(f"{topic}/")]
            others = ", ".join(shown(name) for name in near if node.count_publishers(name))
            found.append(f"nobody publishes {topic}" + (f", but {others}" if others else ""))
        elif all(info.topic_type != stream.type for info in publishers):
            name, kind = node_name(publishers[0]), publishers[0].topic_type
            found.append(f"{name} publishes {topic} as {kind}, the robot file says {stream.type}")
    return "; ".join(found)
