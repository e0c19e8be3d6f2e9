"""Shared memory of the middleware: enough for images, and a check that others can still reach this process."""

import os
from pathlib import Path

from vla_ros.core.discovery import PICTURES, PROFILES
from vla_ros.core.resources import config_file


def make_room_for_pictures() -> None:
    """Give Fast DDS enough shared memory for what this process sends; before `rclpy.init`. Other middlewares ignore it.

    By default a process sends from 0.5 MB, in fragments of 64 KB. If a larger image is not read as fast as it is
    written, its first fragments are overwritten by the last ones; lost fragments are sent again only to reliable
    readers, with the next message or after 3 s.

    A profile given by the user takes precedence, and so do transports chosen by FASTDDS_BUILTIN_TRANSPORTS, except on a
    discovery range of LOCALHOST, where ROS 2 ignores that variable.
    """
    local = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"
    chosen = () if local else ("FASTDDS_BUILTIN_TRANSPORTS",)
    if not any(os.environ.get(name) for name in (*PROFILES, *chosen)):
        os.environ[PROFILES[os.environ.get("ROS_DISTRO") == "jazzy"]] = str(config_file(PICTURES))


def lost_port() -> str:
    """A shared-memory port of this process on which it cannot be reached; "" if there is none, or not on Linux.

    Fast DDS names a port by its number, and a process that was started after another one was killed gets the number of
    that one. A peer that removes the dead process's port may remove the new one instead: the new process then listens
    on a deleted file. It is still discovered (over UDP), but receives nothing any more.
    """
    folder = Path("/proc/self")
    try:
        names = [name.read_text().strip() for name in folder.glob("task/*/comm")]
        maps = (folder / "maps").read_text() if names else ""
    except OSError:  # a thread or the process has just ended
        return ""
    # Ports of others are mapped too, and are deleted when they end: ours are those that a thread of ours listens to.
    ours = [name.removeprefix("dds.shm.") for name in names if name.startswith("dds.shm.")]
    return next((port for port in ours if f"/fastdds_port{port} (deleted)" in maps), "")
