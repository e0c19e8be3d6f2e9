"""What is in a bag: counts, rates, gaps and order of every topic."""

from dataclasses import dataclass
from pathlib import Path

from vla_ros.bags.reader import Bag

LOSS_PREFIXES = ("vla_ros.dropped.", "vla_ros.lost.")


@dataclass
class TopicSummary:
    """One topic. Times in ns; of the headers' stamps where messages have them, else of the recording.

    Attributes:
        rate: Hz between the first and the last message, 0 for fewer than two.
        gap_ns, gap_at_ns: the longest time without a message, and when it began.
        backwards: how often a stamp was older than the one before.
        lost: messages that the recorder dropped or never received.
    """

    name: str
    type: str
    count: int = 0
    size: int = 0
    first_ns: int = 0
    last_ns: int = 0
    gap_ns: int = 0
    gap_at_ns: int = 0
    backwards: int = 0
    lost: int = 0
    stamped: bool = False

    @property
    def rate(self) -> float:
        span = self.last_ns - self.first_ns
        return (self.count - 1) / span * 1e9 if self.count > 1 and span > 0 else 0.0

    def add(self, ns: int, size: int) -> None:
        if self.count == 0:
            self.first_ns = self.last_ns = ns
        elif ns < self.last_ns:
            self.backwards += 1
        elif ns - self.last_ns > self.gap_ns:
            self.gap_ns, self.gap_at_ns = ns - self.last_ns, self.last_ns
        self.last_ns = max(self.last_ns, ns)
        self.count += 1
        self.size += size


def summarise(path: str | Path) -> tuple[Bag, list[TopicSummary]]:
    """Read a bag once; the bag is closed again, its facts stay. Raises InputError."""
    with Bag(path) as bag:
        topics = {name: TopicSummary(name, info.type) for name, info in sorted(bag.topics.items())}
        for record in bag.records():
            topic = topics[record.topic]
            stamp = bag.header_ns(record)
            topic.stamped = bool(stamp)
            topic.add(stamp or record.log_ns, len(record.data))
    for key, value in bag.custom.items():
        for prefix in LOSS_PREFIXES:
            if key.startswith(prefix):
                name = key.removeprefix(prefix)
                topics.setdefault(name, TopicSummary(name, "")).lost += int(value)
    return bag, list(topics.values())
