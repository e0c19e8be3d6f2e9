"""Checks whether other processes can still reach this one through shared memory."""

from pathlib import Path


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
