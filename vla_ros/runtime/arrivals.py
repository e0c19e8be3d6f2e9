"""Messages for the policy: those stamped ahead of the clock are held back until it reaches them."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from vla_ros.core.stream import JOINT_STATES
from vla_ros.messages.observation import ObservationBuilder, foreign_clock
from vla_ros.messages.stamps import FAR_NS, NS
from vla_ros.runtime.trigger import Trigger

_KEPT = 8  # held messages of a stream; in lockstep the newest of those ahead of /clock is needed


class Arrivals:
    """Passes messages to the observations and to the trigger, which rely on their stamps.

    So one image stamped an hour ahead does not affect those after it.

    Attributes:
        beats: streams that the trigger gets; the others never start an inference.

    Args:
        max_ahead: s that a stamp may lie ahead of the clock; /clock and the other topics arrive in any order.
    """

    def __init__(self, builder: ObservationBuilder, trigger: Trigger, max_ahead: float) -> None:
        self._builder, self._trigger = builder, trigger
        streams = builder.streams.items()
        self._states = frozenset(name for name, stream in streams if stream.is_state)
        self.beats = frozenset(name for name, stream in streams if stream.paces or stream.with_ or stream.is_state)
        self._max_ahead_ns = round(max_ahead * NS)
        self._waiting: dict[str, deque[tuple[int, Any]]] = {}
        self._newest_ns: int | None = None
        self._foreign: dict[str, str] = {}  # stream -> message about its clock

    def add(self, stream: str, message: Any, stamp_ns: int, now_ns: int) -> str:
        """Add a message. Returns why it is held back, if the one before was not; else ""."""
        self._foreign.pop(stream, None)
        kind = self._builder.streams[stream]
        if now_ns and abs(stamp_ns - now_ns) > FAR_NS and not kind.once:
            advice = "use_sim_time with a bag or a simulator"
            self._foreign[stream] = foreign_clock(kind, stamp_ns, now_ns, advice)
        if stamp_ns - now_ns <= self._max_ahead_ns:
            self._deliver(stream, message, stamp_ns)
            return ""
        first = stream not in self._waiting
        self._waiting.setdefault(stream, deque(maxlen=_KEPT)).append((stamp_ns, message))
        why = self._foreign.get(stream) or self._ahead(stamp_ns, now_ns)
        return f"{stream}: {why}" if first else ""

    def advance(self, now_ns: int) -> bool:
        """The clock is at `now_ns`: pass on what it has reached. True if it was set back: then clear everything."""
        back = self._newest_ns is not None and self._newest_ns - now_ns > self._max_ahead_ns
        self._newest_ns = now_ns
        for stream, waiting in list(self._waiting.items()):
            for stamp, message in waiting:
                if stamp <= now_ns:
                    self._deliver(stream, message, stamp)
            still = deque((entry for entry in waiting if entry[0] > now_ns), maxlen=_KEPT)
            if still:
                self._waiting[stream] = still
            else:
                del self._waiting[stream]
        return back

    def explained(self, problems: Mapping[str, str], now_ns: int) -> dict[str, str]:
        """The same problems, stream -> why, with a note if its messages are held back."""
        said = {name: self._ahead(waiting[-1][0], now_ns) for name, waiting in self._waiting.items()} | self._foreign
        said = {JOINT_STATES if name in self._states else name: why for name, why in said.items()}
        return {stream: said.get(stream, why) for stream, why in problems.items()}

    def clear(self) -> None:
        """Forget everything but what is published once: after a jump of the clock."""
        self._waiting.clear()
        self._foreign.clear()
        self._newest_ns = None
        self._builder.clear()
        self._trigger.clear()

    def _deliver(self, stream: str, message: Any, stamp_ns: int) -> None:
        self._builder.add(stream, message, stamp_ns)
        if stream in self._states:
            if (complete_ns := self._builder.joints.complete_ns) is not None:
                self._trigger.add(JOINT_STATES, complete_ns)
        elif stream in self.beats:
            self._trigger.add(stream, stamp_ns)

    @staticmethod
    def _ahead(stamp_ns: int, now_ns: int) -> str:
        return f"stamp {(stamp_ns - now_ns) / NS:.3f} s ahead of the clock"
