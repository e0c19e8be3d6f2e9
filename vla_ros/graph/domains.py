"""ROS domains that nobody on this machine uses, so that a simulation never commands a robot."""

import os
import socket
from collections import deque

_PARTICIPANTS = 100  # participants of a domain that are checked; more have no ports of it
_UNUSED = 5  # a port of a domain's 250 that RTPS leaves free (9.6.2.1)
_reserved: deque[socket.socket] = deque(maxlen=4)


def private_domain() -> int:
    """A ROS domain that is not in use on this machine, reserved for this process.

    The search begins at ROS_DOMAIN_ID if that is set, else at a number that depends on the process. Domains above 101
    overlap the kernel's ephemeral ports.
    """
    first = int(os.environ.get("ROS_DOMAIN_ID", 1 + os.getpid() % 100))
    for number in range(first, first + 100):
        if reserve(number % 102):
            return number % 102
    raise RuntimeError("every ROS domain of this machine is in use")


def reserve(domain: int) -> bool:
    """Reserve a domain, unless it is in use or reserved.

    Without that, two processes that look at the same moment would both take it, because neither has a participant yet.
    A reservation ends with the process, or with its fourth one after it: until then there should be a participant.
    """
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if _taken(held, domain, _UNUSED) or any(_participates(domain, number) for number in range(_PARTICIPANTS)):
        held.close()
        return False
    _reserved.append(held)
    return True


def _participates(domain: int, number: int) -> bool:
    """Whether there is this participant: the first ones may have ended while later ones are still running."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return _taken(probe, domain, 10 + 2 * number)  # of its discovery


def _taken(probe: socket.socket, domain: int, port: int) -> bool:
    try:
        probe.bind(("", 7400 + 250 * domain + port))
    except OSError:
        return True
    return False
