"""The claim of the command topics: only one executor commands a robot."""

import hashlib
import os
import re
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from std_msgs.msg import String

from vla_ros.core.discovery import this_machine_only
from vla_ros.core.errors import InputError
from vla_ros.nodes.bounded import subscribe_raw
from vla_ros.nodes.commands import node_name
from vla_ros.nodes.qos import CLAIM_QOS, STATUS_QOS
from vla_ros.nodes.taking import Withheld
from vla_ros.nodes.taking import take as take_next

FREE, CLAIMING, COMMANDING = "free", "claiming", "commanding"
_FORM = re.compile(rf"([0-9a-f]{{32}}) ({FREE}|{CLAIMING}|{COMMANDING}) ([\w/]{{1,512}})", re.ASCII)
_LONGEST = 1024  # bytes of a claim
_MOST = 1000  # executors on one topic; claims of more are not stored, and count as missing
_PATIENCE = 2.0  # s, for what normally takes milliseconds
_LEAST_WAIT = 0.3  # s for matching endpoints of processes that have discovered each other


class Claim:
    """The right to command the given topics, from `take` to `release`.

    On one machine a name of the operating system, which one process can own at a time and which is freed when it ends,
    decides at once. Between machines executors publish on `TOPIC/claim` (late subscribers get it too): each announces
    its claim, waits until all others have acknowledged it, and only then reads the claims of the others. So of two that
    claim at the same time, at least one learns of the other, whatever the network does in between. An executor that
    learns of a commanding or older one withdraws; the oldest continues when all others have.

    This assumes that two executors have discovered each other; `settle` gives them the time.
    """

    def __init__(self, node: Node, topics: Sequence[str], wait: float, born: float) -> None:
        """`topics`: resolved names. `wait`: s from `born` (time.monotonic) for discovery."""
        self._node, self._topics = node, sorted(set(topics))
        self._end_of_wait = max(born + wait, time.monotonic() + min(wait, _LEAST_WAIT))
        self._token = f"{time.time_ns():016x}{os.urandom(8).hex()}"  # the older one is the smaller one
        self._heard: dict[str, dict[str, tuple[str, str]]] = {topic: {} for topic in self._topics}  # state and name
        self._names: list[socket.socket] = []
        self._readers, self._writers = [], []
        for topic in self._topics:
            take = self._taker(topic)
            reader = subscribe_raw(node, String, f"{topic}/claim", take, CLAIM_QOS, _LONGEST)
            self._readers.append((reader, take))
            self._writers.append(node.create_publisher(String, f"{topic}/claim", STATUS_QOS))
        self._say(FREE)

    def settle(self) -> None:
        """Wait until executors of other machines that were running before have been discovered."""
        if not this_machine_only():
            time.sleep(max(0.0, self._end_of_wait - time.monotonic()))

    def take(self) -> None:
        """Claim the topics. Raises InputError that names the owner of one of them."""
        try:
            self._read()
            self._refuse(COMMANDING)
            for topic in self._topics:
                self._names.append(self._machine_wide(topic))
            self._say(CLAIMING)
            self._wait(self._acknowledged, lambda: "a subscriber of the claim did not acknowledge it (does it hang?)")
            self._wait(lambda: not self._silent(), lambda: f"{self._silent()} has not published its claim")
            self._refuse(COMMANDING, CLAIMING, older=True)
            self._wait(
                lambda: not self._others(COMMANDING, CLAIMING),
                lambda: f"also claimed by {', '.join(self._others(COMMANDING, CLAIMING))}",
            )
            self._say(COMMANDING)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the topics."""
        self._say(FREE)
        for name in self._names:
            name.close()
        self._names = []

    def _machine_wide(self, topic: str) -> socket.socket:
        """A socket whose name only one process of this machine can have. Raises InputError that names its owner.

        The name is not a file: a process that was killed leaves nothing behind, and no permission is needed.
        """
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if sys.platform != "linux":
            return made
        name = hashlib.sha256(f"{self._node.context.get_domain_id()} {topic}".encode()).hexdigest()
        try:
            made.bind(f"\0vla_ros {name}")
            made.listen()
        except OSError:
            made.close()  # its owner may have published its name
            self._wait(lambda: False, lambda: f"also commanded by {_owner(name)} on {topic}")
        return made

    # Messages

    def _acknowledged(self) -> bool:
        # Polled, because rclpy would wait with the interpreter's lock held.
        return all(writer.wait_for_all_acked(Duration()) for writer in self._writers)

    def _say(self, state: str) -> None:
        for writer in self._writers:
            writer.publish(String(data=f"{self._token} {state} {self._node.get_fully_qualified_name()}"))

    def _taker(self, topic: str) -> Callable[[bytes | Withheld], None]:
        def take(data: bytes | Withheld) -> None:
            try:
                words = _FORM.fullmatch(deserialize_message(data, String).data) if len(data) <= _LONGEST else None
            except Exception:  # whatever the decoder raises on foreign bytes
                words = None
            heard = self._heard[topic]
            if words and words[1] != self._token and (words[1] in heard or len(heard) < _MOST):
                heard[words[1]] = words[2], words[3]

        return take

    def _read(self) -> None:
        """Take what has arrived; the calling thread is the node's, which cannot spin meanwhile."""
        for reader, take in self._readers:
            with reader.handle:
                while (taken := take_next(reader.handle, _LONGEST)) is not None:
                    take(taken[0])

    def _present(self, topic: str) -> Counter[str]:
        """Number of discovered executors by name, without this one."""
        infos = self._node.get_publishers_info_by_topic(f"{topic}/claim")
        return Counter(node_name(info) for info in infos) - Counter([self._node.get_fully_qualified_name()])

    def _silent(self) -> str:
        """Executors that were discovered but whose claim has not arrived, in words."""
        words = []
        for topic in self._topics:
            heard = Counter(name for _, name in self._heard[topic].values())
            words += [f"{name} on {topic}/claim" for name in self._present(topic) - heard]
        return ", ".join(words)

    def _others(self, *states: str, older: bool = False) -> list[str]:
        """Executors in one of these states, in words; `older`: of those that are only claiming, just the older ones."""
        words = []
        for topic in self._topics:
            present = self._present(topic)
            nameless = any(not name.startswith("/") for name in present)
            self._heard[topic] = {t: s for t, s in self._heard[topic].items() if nameless or s[1] in present}
            for token, (state, name) in self._heard[topic].items():
                if state in states and (state == COMMANDING or not older or token < self._token):
                    words.append(f"{name} on {topic}")
        return words

    def _refuse(self, *states: str, older: bool = False) -> None:
        if others := self._others(*states, older=older):
            raise InputError(f"command topics: also commanded by {', '.join(others)}, expected no other node")

    def _wait(self, done: Callable[[], bool], words: Callable[[], str]) -> None:
        end = time.monotonic() + _PATIENCE
        while not done():
            if time.monotonic() > end:
                raise InputError(f"command topics: {words()}, expected no other node")
            time.sleep(0.002)
            self._read()
            self._refuse(COMMANDING)
        self._read()


def _owner(name: str) -> str:
    """The owner of a machine-wide name whose node is not discovered."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.setblocking(False)
        if asked.connect_ex(f"\0vla_ros {name}") != 0:
            return "another process of this machine"
        credentials = asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return f"process {struct.unpack('3i', credentials)[0]} of this machine"
