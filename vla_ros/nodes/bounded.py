"""Subscriptions that check the size of a message before it is decoded."""

from collections.abc import Callable
from typing import Any

from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from vla_ros.control.admission import Reason
from vla_ros.control.remedies import section
from vla_ros.core.instruction import MAX_INSTRUCTION, instruction_problem
from vla_ros.core.joint_states import joint_fault
from vla_ros.core.stream import BaseState, Stream
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, profile
from vla_ros.nodes.taking import Withheld

SMALL = 65_536  # bytes; larger joint states and statuses are not valid
_LOOK = 0.5  # s between looks for a publisher of instructions that keeps its last one, or is of best effort
_BEST_EFFORT = profile(10, reliable=False)

Refuse = Callable[[Reason, str], object]


def subscribe_raw(
    node: Node,
    kind: type,
    topic: str,
    take: Callable[[bytes | Withheld], None],
    qos: QoSProfile,
    limit: int,
    **options: Any,
) -> Any:
    """A subscription that gets serialized messages; for one of more than `limit` bytes possibly only its length."""
    made = node.create_subscription(kind, topic, take, qos, raw=True, **options)
    made.size_limit = limit  # for `NodeExecutor`; any other one hands the bytes over
    return made


def _logger(node: Node) -> Refuse:
    def log(reason: Reason, words: str) -> None:
        node.get_logger().warning(
            f"{reason}: {words}; the message is ignored ({section(reason)})", throttle_duration_sec=5.0)

    return log


def subscribe_bounded(
    node: Node,
    kind: type,
    topic: str,
    take: Callable[[Any], None],
    qos: QoSProfile,
    refuse: Refuse | None = None,
    limit: int = SMALL,
    **options: Any,
) -> Any:
    """A subscription whose messages of more than `limit` bytes are not decoded.

    Decoding makes Python objects, and every other thread of the process has to wait for that. Messages that are too
    large or cannot be decoded are reported to `refuse` (to the node's log if there is none) and have no effect.
    """

    refuse = refuse or _logger(node)

    def receive(data: bytes | Withheld) -> None:
        if len(data) > limit:
            refuse(Reason.SIZE, f"{topic}: a message of {len(data)} bytes, limit {limit}")
            return
        try:
            message = deserialize_message(data, kind)
        except Exception as error:  # whatever the decoder raises on foreign bytes
            refuse(Reason.UNDECODABLE, f"{topic}: {len(data)} bytes: {error}")
            return
        take(message)

    return subscribe_raw(node, kind, topic, receive, qos, limit, **options)


def subscribe_state(
    node: Node, stream: Stream, take: Callable[[Any], None], qos: QoSProfile, refuse: Refuse | None = None
) -> Any:
    """Subscribe to a state stream (joint states or odometry): `take` gets the consistent messages. Returns the
    subscription."""
    refuse, topic = refuse or _logger(node), stream.topic
    if isinstance(stream, BaseState):
        return subscribe_bounded(node, Odometry, topic, take, qos, refuse)

    def check(message: JointState) -> None:
        if fault := joint_fault(message.name, message.position):
            refuse(Reason.UNDECODABLE, f"{topic}: {fault}")
        else:
            take(message)

    return subscribe_bounded(node, JointState, topic, check, qos, refuse)


def subscribe_instruction(node: Any, take: Callable[[str], None], refuse: Refuse | None = None) -> None:
    """`take` gets the stripped text of `instruction`; a text that is too long is ignored. `node`: a `ManagedNode`.

    Transient-local publishers are received, including what they sent before, and so are best-effort ones: a second and
    a third subscription are made once such a publisher exists, because every other publisher would warn that it does
    not match them, and because a best-effort one may lose what others send reliably. The third is destroyed with its
    publishers. A message that was sent before the newest instruction has no effect.
    """
    more: dict[str, Any] = {}  # the further subscriptions
    newest = 0  # ns, when the newest instruction was sent

    def check(message: String, subscription: Any) -> None:
        nonlocal newest
        sent = getattr(subscription, "sent_ns", 0)
        if sent <= newest if subscription is not first else sent and sent == newest:
            return  # received already, or older than the newest
        newest = max(newest, sent)
        if problem := instruction_problem(message.data):
            (refuse or (lambda reason, words: node.get_logger().warning(words)))(Reason.SIZE, problem)
        else:
            take(message.data.strip())

    def subscribe(qos: QoSProfile) -> Any:
        limit = MAX_INSTRUCTION + 64
        made = subscribe_bounded(node, String, "instruction", lambda m: check(m, made), qos, refuse, limit)
        return made

    def look() -> None:
        offers = [one.qos_profile for one in node.get_publishers_info_by_topic(first.topic_name)]
        if "kept" not in more and any(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offers):
            more["kept"] = subscribe(STATUS_QOS)
        unsure = any(qos.reliability == ReliabilityPolicy.BEST_EFFORT for qos in offers)
        if unsure and "best effort" not in more:
            more["best effort"] = subscribe(_BEST_EFFORT)
        elif not unsure and "best effort" in more:  # `ros2 topic pub -w` counts it as a listener of its own
            node.destroy_subscription(more.pop("best effort"))
        first.completed_by = tuple(more.values())

    first = subscribe(COMMAND_QOS)
    node.create_steady_timer(_LOOK, look)
