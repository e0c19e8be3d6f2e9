"""Shared memory of the middleware: enough of it for pictures, and whether others can still reach this process."""

import os
from pathlib import Path

from vla_ros.core.discovery import PICTURES, PROFILES
from vla_ros.core.resources import config_file


def make_room_for_pictures() -> None:
    """Gives Fast DDS enough shared memory for what this process sends; before `rclpy.init`. Others ignore it.

    By default a process sends from 0.5 MB, in pieces of 64 KB. Of a picture that is larger the first pieces are given
    up for the last ones where a reader does not take them as fast as they are written; and what was lost is sent again
    to reliable readers only, with the next message or after 3 s.

    A profile of the user's own counts instead, and so do transports chosen by FASTDDS_BUILTIN_TRANSPORTS, except on a
    discovery range of LOCALHOST, where ROS 2 ignores that variable.
    """
    local = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"
    chosen = () if local else ("FASTDDS_BUILTIN_TRANSPORTS",)
    if not any(os.environ.get(name) for name in (*PROFILES, *chosen)):
        os.environ[PROFILES[os.environ.get("ROS_DISTRO") == "jazzy"]] = str(config_file(PICTURES))


def lost_port(process: int | str = "self") -> str:
    """The shared-memory port of a process on which nobody can reach it; empty where all are well, or not on Linux.

    Fast DDS names a port by its number, and a process that was started after another one was killed gets the number of
    that one. A peer that finds the dead one's port and removes it may remove the new one instead: the new process then
    listens to a file that is deleted. It is discovered (over UDP), and hears nothing for good.
    """
    folder = Path("/proc") / str(process)
    try:
        names = [name.read_text().strip() for name in folder.glob("task/*/comm")]
        maps = (folder / "maps").read_text() if names else ""
    except OSError:  # a thread, or the process, ended just now
        return ""
    # Ports of others are mapped too, and are deleted when they end: ours are those that a thread of ours listens to.
    ours = [name.removeprefix("dds.shm.") for name in names if name.startswith("dds.shm.")]
    return next((port for port in ours if f"/fastdds_port{port} (deleted)" in maps), "")
