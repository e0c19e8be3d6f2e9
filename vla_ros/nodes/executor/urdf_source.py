"""Reads the executor's URDF: from a file, a parameter, or the topic of robot_state_publisher."""

import time

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from std_msgs.msg import String

from vla_ros.control.urdf import MOST_BYTES
from vla_ros.core.errors import InputError, NotYet
from vla_ros.nodes.executor.parameters import ExecutorParameters
from vla_ros.nodes.qos import STATUS_QOS
from vla_ros.nodes.taking import Withheld, take

_PATIENCE = 3.0  # s for a publisher to be discovered and heard


def urdf_source(node: Node, parameters: ExecutorParameters) -> str:
    """The URDF's path or text; "" if no parameter gives one. Raises InputError."""
    names = ("urdf", "robot_description", "robot_description_topic")
    given = [name for name in names if getattr(parameters, name)]
    if len(given) > 1:
        raise InputError(f"parameters {' and '.join(given)}: all of them are set, expected one")
    if given != ["robot_description_topic"]:
        return getattr(parameters, given[0]) if given else ""
    topic = parameters.robot_description_topic
    subscription = node.create_subscription(String, topic, lambda message: None, STATUS_QOS)
    try:
        return _heard(subscription)
    finally:
        node.destroy_subscription(subscription)


def _heard(subscription: object) -> str:
    """The first message, polled because the node does not spin while it is configured."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        taken = take(subscription.handle, MOST_BYTES)
        if taken is not None:
            data = taken[0]
            if isinstance(data, Withheld):
                raise InputError(f"{subscription.topic_name}: a URDF of {len(data)} bytes, limit {MOST_BYTES}")
            try:
                return deserialize_message(data, String).data
            except Exception as error:  # whatever the decoder raises on foreign bytes
                raise InputError(f"{subscription.topic_name}: {len(data)} bytes that are not a text: {error}") from None
        time.sleep(0.02)
    raise NotYet(f"robot_description_topic {subscription.topic_name}: no URDF within {_PATIENCE:g} s, expected "
                 "std_msgs/String, transient local, as robot_state_publisher has it")
