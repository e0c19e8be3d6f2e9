"""A chunk's path of the base, for viewers."""

import math

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path

from vla_ros.core.chunk import PATH, ActionChunk
from vla_ros.messages.stamps import NS, set_stamp

BASE_LINK = "base_link"  # REP-105; of a part that names no frame


def path_message(chunk: ActionChunk) -> Path:
    """A chunk's path as nav_msgs/Path, in the frame of the base's link at the chunk's stamp, so that a viewer places it
    there. Each pose has the time at which the base should reach it."""
    part, step_ns = chunk.targets.path, chunk.step_dt * NS
    message = set_stamp(Path(), chunk.stamp_ns)
    message.header.frame_id = part.frame or BASE_LINK
    rows = part.data[:, [part.names.index(name) for name in PATH]].tolist()
    for k, (x, y, yaw) in enumerate([[0.0, 0.0, 0.0], *rows]):
        pose = set_stamp(PoseStamped(), chunk.stamp_ns + round(k * step_ns))
        pose.header.frame_id = message.header.frame_id
        pose.pose.position.x, pose.pose.position.y = x, y
        pose.pose.orientation.z, pose.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
        message.poses.append(pose)
    return message
