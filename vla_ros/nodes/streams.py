"""Subscriptions to the streams of a robot."""

import re
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import JointState

from vla_ros.core.errors import InputError
from vla_ros.core.stream import Stream
from vla_ros.messages.stamps import is_stamped
from vla_ros.nodes.bounded import Refuse, subscribe_state
from vla_ros.nodes.qos import STATUS_QOS, sensor_qos


def message_class(typename: str) -> type:
    """The class of `package/msg/Name`, or of `package/action/Name_FeedbackMessage`. Raises InputError.

    The name may come from a file or from the network, so only modules of messages are imported.
    """
    package, _, name = typename.partition("/msg/")
    action = re.fullmatch(r"(\w+)/action/(\w+)_FeedbackMessage", typename)
    package, folder, name = (action[1], "action", action[2]) if action else (package, "msg", name)
    try:
        known = sys.modules.get(package) or (find_spec(package) if package.isidentifier() else None)
        paths = getattr(known, "__path__", None) or getattr(known, "submodule_search_locations", None) or ()
        if not any(Path(path, folder, "__init__.py").is_file() for path in paths):
            raise ImportError(f"no package {package!r} with messages")
        kind = getattr(import_module(f"{package}.{folder}"), name)
        kind = kind.Impl.FeedbackMessage if action else kind
        if not hasattr(kind, "get_fields_and_field_types"):
            raise AttributeError(f"{name!r} is not a message")
    except (ImportError, AttributeError) as error:
        raise InputError(f"message type {typename}: not installed: {error}") from error
    return kind


def subscribe(
    node: Node, stream: Stream, take: Callable[[Any], None], reliable: bool = False, refuse: Refuse | None = None
) -> None:
    """Subscribe to a stream, transient local if it is published once.

    `refuse` gets reports of joint states that are too large or inconsistent; by default the node's log.

    Raises InputError for a type that is not installed, and for a stream that paces without a header.
    """
    kind = message_class(stream.type)
    if stream.paces and not is_stamped(kind):
        raise InputError(f"stream {stream.name}: {stream.type} has no stamp, so `paces` is not possible")
    qos = STATUS_QOS if stream.once else sensor_qos(reliable or stream.reliable)
    if stream.is_state or kind is JointState:
        subscribe_state(node, stream, take, qos, refuse)
    else:
        node.create_subscription(kind, stream.topic, take, qos)
