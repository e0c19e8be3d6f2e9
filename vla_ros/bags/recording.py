"""Recording: a bounded buffer between the subscriptions and the disk."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vla_ros.bags.writer import BagWriter
from vla_ros.core.errors import InputError

DROPPED_PREFIX = "vla_ros.dropped."  # in custom_data: this and the topic -> number of messages
KEPT = "vla_ros.kept"  # in custom_data: why the last seconds were kept
Transform = Callable[[bytes], bytes]


class Item(NamedTuple):
    """A serialized message; times in ns."""

    topic: str
    log_ns: int
    data: bytes
    publish_ns: int


class Recording:
    """Writes messages to a bag in a separate thread, so that a slow disk does not delay the subscriptions.

    Nothing is lost until the buffer is full. A message that finds it full is dropped and counted by topic: the
    counts are reported through `on_problem` when dropping begins and ends, and are in the bag's metadata.

    Args:
        writer: an open bag; this object closes it.
        buffer_bytes: bound on the messages that wait for the disk.
        flush_period: s; messages older than this survive a crash of the process and, if the disk really writes, of the
            machine.
        on_problem: called with a sentence, from either thread.
    """

    def __init__(
        self,
        writer: BagWriter,
        buffer_bytes: int = 512 << 20,
        flush_period: float = 1.0,
        on_problem: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.writer = writer
        self.dropped: Counter[str] = Counter()
        self.error: Exception | None = None
        self.waiting_bytes = 0
        self._buffer_bytes = buffer_bytes
        self._flush_period = flush_period
        self._on_problem = on_problem
        self._transforms: dict[str, Transform] = {}
        self._raw: dict[str, tuple[str, str]] = {}  # topic -> topic and type of what cannot be converted
        self._refused: set[str] = set()  # topics of which a message could not be converted
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._dropping = False
        self._thread = threading.Thread(target=self._run, name="bag writer", daemon=True)
        self._thread.start()

    def add_topic(
        self, name: str, typename: str, qos: Sequence[Mapping[str, Any]] = (), transform: Transform | None = None,
        raw: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Announce a topic.

        Args:
            transform: converts messages for storage, in the writer's thread.
            raw: given with it: topic and type for messages that it cannot convert, which are stored unchanged.
        """
        if (transform is None) != (raw is None):
            raise ValueError("expected transform and raw together")
        problem = None
        with self._changed:
            try:
                self.writer.add_topic(name, typename, qos)
            except InputError as error:
                self.writer.add_topic(name, typename, qos, definition="")
                problem = f"topic {name}: recorded without the definition of its messages: {error}"
            if transform is not None:
                self._transforms[name], self._raw[name] = transform, raw
        if problem:
            self._on_problem(problem)

    def put(self, topic: str, log_ns: int, data: bytes, publish_ns: int | None = None) -> bool:
        """Queue a message; never waits. False when it was dropped."""
        item = Item(topic, log_ns, data, log_ns if publish_ns is None else publish_ns)
        with self._changed:
            if self._closing or self.error is not None:
                self.dropped[topic] += 1
                return False
            if self.waiting_bytes + len(data) <= self._buffer_bytes:
                self._items.append(item)
                self.waiting_bytes += len(data)
                self._changed.notify()
                return True
            self.dropped[topic] += 1
            begins, self._dropping = not self._dropping, True
        if begins:
            self._on_problem(
                f"the disk is too slow: the buffer of {self._buffer_bytes / 1e6:.0f} MB is full, "
                f"dropping messages, first one of {topic}"
            )
        return False

    def close(self, custom: Mapping[str, str] | None = None) -> None:
        """Write the queue and finish the bag. Raises InputError if the bag could not be written completely.

        `custom` and the counts of what was dropped become the bag's custom_data.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if self.error is None:
            try:
                dropped = {DROPPED_PREFIX + topic: str(n) for topic, n in sorted(self.dropped.items())}
                self.writer.close({**(custom or {}), **dropped})
            except (OSError, InputError) as error:
                self._fail(error)
        if self.error is not None:
            raise InputError(self.explain()) from self.error

    def report(self) -> str:
        """One sentence: how much was stored, and what was dropped by topic."""
        text = f"{self.writer.message_count} messages in {self.writer.path}"
        if self.dropped:
            text += ", dropped " + ", ".join(f"{n} of {topic}" for topic, n in sorted(self.dropped.items()))
        return text

    def _run(self) -> None:
        last_flush = time.monotonic()
        item = None
        try:
            while True:
                with self._changed:
                    if not self._items and not self._closing:
                        self._changed.wait(self._flush_period)
                    item = self._items.popleft() if self._items else None
                    if item is None and self._closing:
                        return
                if item is not None:
                    self._write(item)
                if time.monotonic() - last_flush >= self._flush_period:
                    self.writer.flush()
                    last_flush = time.monotonic()
        except Exception as error:  # mostly of the disk; any error is reported
            self._fail(error, item)

    def _write(self, item: Item) -> None:
        transform, topic, data = self._transforms.get(item.topic), item.topic, item.data
        try:
            data = data if transform is None else transform(data)
        except Exception as error:  # one message that cannot be converted must not end the recording, nor be lost
            topic, kind = self._raw[item.topic]
            if topic not in self.writer.topics:
                self.add_topic(topic, kind, self.writer.topics[item.topic].qos)
            if item.topic not in self._refused:
                self._refused.add(item.topic)
                self._on_problem(f"{item.topic}: stored as it is, on {topic}: {error}")
        self.writer.write(topic, item.log_ns, data, item.publish_ns)
        with self._changed:
            # Counted until it is written: the bound is on all that this process holds.
            self.waiting_bytes -= len(item.data)
            ended = self._dropping and not self._items
            if ended:
                self._dropping = False
        if ended:
            self._on_problem(f"the disk caught up; so far {self.report()}")

    def _fail(self, error: Exception, item: Item | None = None) -> None:
        with self._changed:
            self.error = error
            if item is not None:
                error.add_note(f"at topic {item.topic}, t={item.log_ns / 1e9:.3f} s")
                self.dropped[item.topic] += 1
            for waiting in self._items:
                self.dropped[waiting.topic] += 1
            self._items.clear()
            self.waiting_bytes = 0
        self.writer.abort()
        self._on_problem(self.explain())

    def explain(self) -> str:
        """Why writing stopped, and what to do."""
        error = self.error
        where = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
        what = getattr(error, "strerror", None) or str(error)
        return (
            f"bag {self.writer.path}: writing stopped{where}: {what}. What was written before can be recovered "
            f"with: vla-ros bag repair {self.writer.path}"
        )
