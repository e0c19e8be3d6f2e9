"""Find joint states, cameras and command topics on a running graph, for a robot file. It only subscribes."""

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import CompressedImage, Image, JointState

from vla_ros.core.command_group import INTERFACES, OF_BASE, OF_TOOL
from vla_ros.core.errors import InputError
from vla_ros.core.stream import COMPRESSED_IMAGE, IMAGE, JOINT_STATE
from vla_ros.graph.peer import peer
from vla_ros.graph.processes import Graph
from vla_ros.messages.images import image_size
from vla_ros.nodes.bounded import subscribe_bounded
from vla_ros.nodes.qos import sensor_qos

_LARGEST_IMAGE = 64 << 20  # bytes
_ANSWER = 3.0  # s for a controller to name its joints


@dataclass
class SeenCamera:
    """An image topic. Size and encoding are None while no image has come; `rate` in Hz, 0 for fewer than two."""

    compressed: bool
    size: tuple[int, int] | None = None  # height, width
    encoding: str = ""
    trouble: str = ""
    arrivals: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        times = self.arrivals
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0


@dataclass
class Seen:
    """Topics without a leading / are in the namespace of the survey."""

    joint_states: dict[str, tuple[str, ...]] = field(default_factory=dict)  # topic -> joints
    cameras: dict[str, SeenCamera] = field(default_factory=dict)
    commands: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  # topic -> interface, known joints


def survey(duration: float, namespace: str = "") -> Seen:
    """Survey the graph for `duration` s."""
    seen = Seen()
    with peer(namespace, enclave="viewer") as graph:
        end, known = time.monotonic() + duration, set()
        while time.monotonic() < end:
            for topic, types in graph.node.get_topic_names_and_types():
                if topic not in known and graph.node.count_publishers(topic) and len(types) == 1:
                    known.add(topic)
                    _listen(graph, seen, topic, types[0])
            time.sleep(0.1)
        for topic, types in graph.node.get_topic_names_and_types():
            _note_commands(graph, seen, topic, types)
        interfaces = {topic: found for topic, (found, _) in seen.commands.items()}
        for topic, interface in interfaces.items():
            seen.commands[topic] = (interface, _controlled(graph, topic))
    return Seen(*({_relative(name, namespace): row for name, row in rows.items()}
                  for rows in (seen.joint_states, seen.cameras, seen.commands)))  # fmt: skip


def _listen(graph: Graph, seen: Seen, topic: str, typename: str) -> None:
    if typename == JOINT_STATE:
        take = partial(_take_joints, seen, topic)
        subscribe_bounded(graph.node, JointState, topic, take, sensor_qos())
    elif typename in (IMAGE, COMPRESSED_IMAGE) and not _is_copy(topic):
        camera = seen.cameras[topic] = SeenCamera(typename == COMPRESSED_IMAGE)
        kind = CompressedImage if camera.compressed else Image
        subscribe_bounded(graph.node, kind, topic, partial(_take_image, camera), sensor_qos(), limit=_LARGEST_IMAGE)


def _is_copy(topic: str) -> bool:
    """Whether it is image_transport's copy of a raw topic."""
    return topic.rpartition("/")[2] in ("compressed", "compressedDepth", "theora", "zstd")


def _take_joints(seen: Seen, topic: str, message: JointState) -> None:
    seen.joint_states[topic] = tuple(dict.fromkeys((*seen.joint_states.get(topic, ()), *message.name)))


def _take_image(camera: SeenCamera, message: Any) -> None:
    camera.arrivals.append(time.monotonic())
    camera.encoding = getattr(message, "encoding", "")
    try:
        camera.size = image_size(message)
    except InputError as error:
        camera.trouble = str(error)


def _note_commands(graph: Graph, seen: Seen, topic: str, types: list[str]) -> None:
    """Note a topic with a type for commands and a subscriber; joint states with a publisher do not count."""
    many_uses = (*OF_TOOL, *OF_BASE)  # of whose types
    kinds = {kind: name for name, kind in reversed(INTERFACES.items()) if name not in many_uses}
    interface = kinds.get(types[0]) if len(types) == 1 else None
    if interface is None or (interface == "joint_state" and graph.node.count_publishers(topic)):
        return
    me = graph.node.get_name()
    if any(info.node_name != me for info in graph.node.get_subscriptions_info_by_topic(topic)):
        seen.commands[topic] = (interface, ())


def _controlled(graph: Graph, topic: str) -> tuple[str, ...]:
    """The joints of the controller whose topic this is, as its parameter `joints` says; () where nobody answers."""
    client = graph.node.create_client(GetParameters, f"{topic.rpartition('/')[0]}/get_parameters")
    if not graph.wait_until(client.service_is_ready, _ANSWER):
        return ()
    future = client.call_async(GetParameters.Request(names=["joints"]))
    if not graph.wait_until(future.done, _ANSWER) or not future.result().values:
        return ()
    return tuple(future.result().values[0].string_array_value)


def _relative(topic: str, namespace: str) -> str:
    prefix = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"
    return topic.removeprefix(prefix)
