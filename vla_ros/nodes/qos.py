"""Quality of service, one profile for each kind of topic."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def profile(depth: int, reliable: bool, latched: bool = False) -> QoSProfile:
    """Keeps the last `depth` messages; `latched` ones reach a late subscriber too."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


COMMAND_QOS = profile(10, reliable=True)  # commands, the instruction, the e-stop topic, chunks
STATUS_QOS = profile(1, reliable=True, latched=True)  # a late subscriber gets the newest

CLAIM_QOS = profile(100, reliable=True, latched=True)  # the newest claim of each of many executors

# Messages kept for a recorder that falls behind a simulation: lost ones are requested again only every few seconds.
RECORDED_DEPTH = 1000


def sensor_qos(reliable: bool = False, depth: int = 5) -> QoSProfile:
    """Images and joint states. A best-effort subscription matches every driver; a reliable one only reliable ones."""
    return profile(depth, reliable)
