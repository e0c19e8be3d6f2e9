"""The last seconds of what would be recorded, in memory."""

from collections import deque

from vla_ros.bags.recording import Item
from vla_ros.messages.stamps import NS


class Ring:
    """Messages younger than `seconds`, as many as fit into `most_bytes`.

    For topics whose last message applies until it is replaced (an instruction, a status), the last one before is kept
    too.

    Attributes:
        full: s that fitted into `most_bytes`, if less than `seconds`; else 0.
    """

    def __init__(self, seconds: float, most_bytes: int) -> None:
        self._window_ns, self._most = round(seconds * NS), most_bytes
        self.full = 0.0
        self._clear()

    def _clear(self) -> None:
        self._items: deque[tuple[Item, bool]] = deque()
        self._before: dict[str, Item] = {}
        self._bytes = 0

    def __bool__(self) -> bool:
        """Anything is kept."""
        return bool(self._items or self._before)

    def put(self, item: Item, lasting: bool) -> None:
        """A message, in the order of arrival; `lasting`: it holds until it is replaced."""
        self._items.append((item, lasting))
        self._bytes += len(item.data)
        while self._bytes > self._most or item.log_ns - self._items[0][0].log_ns > self._window_ns:
            old, lasted = self._items.popleft()
            self._bytes -= len(old.data)
            if lasted:
                self._before[old.topic] = old
            age = item.log_ns - old.log_ns
            if age <= self._window_ns:
                self.full = age / NS
            if not self._items:  # larger than all that may be kept
                return

    def take(self) -> list[Item]:
        """Take everything that is kept, beginning with the messages that applied then. Only those that still apply
        stay."""
        items, before = [item for item, _ in self._items], list(self._before.values())
        start = items[0].log_ns if items else max((item.log_ns for item in before), default=0)
        lasting = self._before | {item.topic: item for item, lasts in self._items if lasts}
        self._clear()
        self._before = lasting
        return [item._replace(log_ns=start) for item in before] + items
