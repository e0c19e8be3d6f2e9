"""What the whole-graph tests share: domains of their own, and a probe that records what a peer sees."""

import itertools
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from vla_ros.graph.domains import reserve
from vla_ros.graph.processes import Graph
from vla_ros.nodes.qos import COMMAND_QOS

DEADLINE = 60.0  # s; never how long something takes, only when to give up
# ROS_DOMAIN_ID, where it is set, keeps two test runs on one machine apart: twenty domains from there on.
_first = int(os.environ.get("ROS_DOMAIN_ID", "1")) % 102  # those above overlap the kernel's ephemeral ports
_domains = range(_first, min(_first + (20 if "ROS_DOMAIN_ID" in os.environ else 100), 102))
# Workers begin far apart: a domain in which processes were killed is not used again soon.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_counter = itertools.count(os.getppid() + _worker * len(_domains) // 3)


def free_domain() -> int:
    """A ROS domain that nobody on this machine uses, the other workers of this test run included."""
    found = (domain for _ in range(200) if reserve(domain := _domains[next(_counter) % len(_domains)]))
    if (domain := next(found, None)) is None:
        raise RuntimeError("all ROS domains are in use")
    return domain


class Lasting:
    """A context that the tests of a module share. After a failure it is made anew: a second try must not begin with
    what the first one left."""

    broken = False

    def __init__(self) -> None:
        self._stack, self._made = ExitStack(), None

    def __enter__(self) -> "Lasting":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def get(self, make: Callable[[], AbstractContextManager[Any]]) -> Any:
        if self.broken:
            self._stack.close()
            self._made, self.broken = None, False
        if self._made is None:
            self._made = self._stack.enter_context(make())
        return self._made


class Probe:
    """A peer on the graph: records every message of the topics it was told, in order of arrival."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._messages: dict[str, list[Any]] = defaultdict(list)
        self._lock = threading.Lock()

    def record(self, topic: str, kind: type, qos: Any = COMMAND_QOS) -> None:
        def take(message: Any) -> None:
            with self._lock:
                self._messages[topic].append(message)

        self.graph.node.create_subscription(kind, topic, take, qos)

    def messages(self, topic: str) -> list[Any]:
        with self._lock:
            return list(self._messages[topic])

    def last(self, topic: str) -> Any:
        """The newest message or None."""
        with self._lock:
            found = self._messages[topic]
            return found[-1] if found else None

    def clear(self, topic: str) -> None:
        with self._lock:
            self._messages[topic].clear()

    def publisher(self, topic: str, kind: type, qos: Any = COMMAND_QOS, readers: int = 1) -> Any:
        """A publisher once `readers` subscriptions are matched, so that nothing sent is lost."""
        made = self.graph.node.create_publisher(kind, topic, qos)
        self.wait_for(lambda: made.get_subscription_count() >= readers, f"{readers} subscription(s) of {topic}")
        return made

    def wait_for(self, predicate: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
        return self.graph.wait_for(predicate, what, deadline)

    def wait_message(self, topic: str, accept: Callable[[Any], bool], what: str) -> Any:
        """The first recorded message of `topic` that `accept` takes, waiting for it."""
        return self.wait_for(lambda: next((m for m in self.messages(topic) if accept(m)), None), what)
