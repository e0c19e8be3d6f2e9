"""What is in a bag: counts, rates, gaps and order of every topic."""

import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vla_ros.bags.index import Verdict, verdict
from vla_ros.bags.reader import Bag
from vla_ros.bags.streams import OUTCOME_TYPE
from vla_ros.core.errors import InputError, shown

LOSS_PREFIXES = ("vla_ros.dropped.", "vla_ros.lost.")


@dataclass
class TopicSummary:
    """One topic."""

    name: str
    type: str
    # ns, of the headers where messages have them, else of the recording; in the order of the recording
    stamps: array = field(default_factory=lambda: array("q"))
    size: int = 0  # bytes of all messages
    lost: int = 0  # messages that the recorder dropped or never received

    @property
    def rate(self) -> float:
        """Hz between the first and the newest message, 0 for fewer than two."""
        newest = self._newest()
        span = int(newest[-1] - newest[0]) if len(newest) else 0
        return (len(newest) - 1) / span * 1e9 if span else 0.0

    @property
    def gap(self) -> tuple[int, int]:
        """The longest time without a message, and when it began; ns."""
        newest = self._newest()
        if len(newest) < 2:
            return 0, 0
        gaps = np.diff(newest)
        return int(gaps.max()), int(newest[gaps.argmax()])

    @property
    def backwards(self) -> int:
        """Number of stamps that are older than an earlier one."""
        return int((np.asarray(self.stamps) < self._newest()).sum())

    def _newest(self) -> np.ndarray:
        return np.maximum.accumulate(np.asarray(self.stamps, dtype=np.int64))


def summarise(path: str | Path) -> tuple[Bag, list[TopicSummary], list[Verdict]]:
    """Read a bag once: what is in it, and the outcomes that it holds. The bag is closed, its attributes remain.

    Raises InputError.
    """
    verdicts = []
    with Bag(path) as bag:
        told = {name for name, info in bag.topics.items() if info.type == OUTCOME_TYPE and not info.problem}
        topics = {name: TopicSummary(name, info.type) for name, info in sorted(bag.topics.items())}
        for record in bag.records():
            topics[record.topic].stamps.append(bag.header_ns(record) or record.log_ns)
            topics[record.topic].size += len(record.data)
            if record.topic in told and (message := bag.decode_or_note(record)):
                verdicts.append(verdict(message, record.log_ns))
    for key, value in bag.custom.items():
        for prefix in LOSS_PREFIXES:
            if key.startswith(prefix):
                name = key.removeprefix(prefix)
                if not re.fullmatch(r"\d{1,18}", value):
                    raise InputError(f"bag {bag.path}: custom_data {shown(key)}: {shown(value)}, expected a number")
                topics.setdefault(name, TopicSummary(name, "")).lost += int(value)
    return bag, list(topics.values()), verdicts
