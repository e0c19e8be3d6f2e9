"""One line that says who can join the graph, from ROS 2's environment variables."""

import os
import sys
from collections.abc import Mapping

from vla_ros.core.resources import config_file

PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")  # the second up to ROS 2 Jazzy
PICTURES = "fastdds/pictures.xml"  # of `config`; changes nothing of discovery
_WHO = {
    "SUBNET": "anybody on the subnet may command this robot",
    "LOCALHOST": "only programs on this machine may command this robot",
    "OFF": "nodes discover no others, not even on this machine",
    "SYSTEM_DEFAULT": "who may command this robot is up to the middleware's own configuration",
}


def discovery_line(environment: Mapping[str, str] = os.environ) -> str:
    """Domain and discovery range, and what they mean."""
    said = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if not said:
        chosen, why = "SUBNET", " (the default of ROS 2)"
    elif said in _WHO:
        chosen, why = said, ""
    else:
        chosen, why = "LOCALHOST", f" (ROS 2 takes ROS_AUTOMATIC_DISCOVERY_RANGE={said!r} for it)"
    parts = [_WHO[chosen]]
    peers = environment.get("ROS_STATIC_PEERS", "")
    if peers and chosen != "OFF":
        parts.append(f"and the static peers {peers!r}")
    if server := environment.get("ROS_DISCOVERY_SERVER", ""):
        parts.append(f"and everyone who uses the discovery server {server!r}")
    if environment.get("ROS_LOCALHOST_ONLY", "0") not in ("", "0") and chosen != "LOCALHOST":
        parts.append("ROS_LOCALHOST_ONLY counts up to ROS 2 Jazzy only")
    if environment.get("ROS_SECURITY_ENABLE") == "true" and environment.get("ROS_SECURITY_STRATEGY") == "Enforce":
        parts.append("with a key of the keystore only")
    return f"ROS domain {environment.get('ROS_DOMAIN_ID') or 0}, discovery range {chosen}{why}: {', '.join(parts)}"


def this_machine_only(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the middleware is configured to discover nodes on this machine only."""
    elsewhere = ("ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER", "CYCLONEDDS_URI")
    local = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") in ("LOCALHOST", "OFF")
    profiles = [environment[name] for name in PROFILES if environment.get(name)]
    return (
        local and sys.platform == "linux" and not any(environment.get(name) for name in elsewhere)
        and all(profile == str(config_file(PICTURES)) for profile in profiles)
    )  # fmt: skip


def discovery_time() -> float:
    """s after which a node has usually discovered the nodes that were running before it.

    Participants announce themselves when they start and then every 3 s. The first announcement is lost every other
    time (measured with Fast DDS), so the next one has to be waited for.
    """
    return 4.0 if this_machine_only() else 5.0
