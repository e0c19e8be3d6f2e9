"""A network link between two namespaces of this machine, whose delay and loss can be changed while it runs.

Two TAP devices, one in each namespace, and a thread that carries the frames from one to the other. It does what
`tc netem` does, and works where the kernel has no netem. Needs root, iproute2 and /dev/net/tun.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from pathlib import Path

_TUNSETIFF, _TAP, _NO_INFO = 0x400454CA, 0x0002, 0x1000
_CLONE_NEWNET = 0x40000000
_LONGEST_FRAME = 2048


def enter_namespace(name: str) -> None:
    """Move the calling thread, and what it starts from now on, into the network namespace `name`."""
    with open(f"/var/run/netns/{name}", "rb") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {name}: {os.strerror(ctypes.get_errno())}")


def impossible() -> str:
    """Why this machine may not make links, in words; empty when it may."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is missing"
    try:
        subprocess.run(["ip", "-V"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "needs the command ip (Debian: iproute2)"
    return ""


class Link:
    """Two namespaces and what is between them, as a context.

    Attributes:
        delay: s that every frame takes, each way.
        loss: share of the frames that get lost, each way; 1 cuts the link.
        carried, lost: frames so far.
    """

    def __init__(self, names: tuple[str, str], seed: int = 0) -> None:
        self.names = names
        self.delay = self.loss = 0.0
        self.carried = self.lost = 0
        self._random = random.Random(seed)
        self._end, self._woken = os.pipe()

    def __enter__(self) -> "Link":
        self._taps = []
        for number, name in enumerate(self.names):
            tap = os.open("/dev/net/tun", os.O_RDWR)
            device = f"vla_tap{number}"
            fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _TAP | _NO_INFO))
            self._taps.append(tap)
            _ip(f"netns add {name}")
            _ip(f"link set {device} netns {name}")
            _ip(f"-n {name} address add 10.231.0.{number + 1}/24 dev {device}")
            _ip(f"-n {name} link set lo up")
            _ip(f"-n {name} link set {device} up")
            _ip(f"-n {name} route add 224.0.0.0/4 dev {device}")  # DDS finds its peers by multicast
        self._thread = threading.Thread(target=self._carry, name="link", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        os.write(self._woken, b"\0")
        self._thread.join()
        for name in self.names:
            _ip(f"netns delete {name}")
        for descriptor in (*self._taps, self._end, self._woken):
            os.close(descriptor)

    def _carry(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []  # (due, number, tap, frame)
        while True:
            patience = max(waiting[0][0] - time.monotonic(), 0.0) if waiting else None
            ready, _, _ = select.select([*self._taps, self._end], [], [], patience)
            if self._end in ready:
                return
            now = time.monotonic()
            for tap in ready:
                frame = os.read(tap, _LONGEST_FRAME)
                if self._random.random() < self.loss:
                    self.lost += 1
                    continue
                self.carried += 1
                other = self._taps[1 - self._taps.index(tap)]
                heapq.heappush(waiting, (now + self.delay, self.carried, other, frame))
            while waiting and waiting[0][0] <= now:
                _, _, tap, frame = heapq.heappop(waiting)
                os.write(tap, frame)


def _ip(arguments: str) -> None:
    done = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"ip {arguments}: {done.stderr.strip()}")
