"""When an inference begins: pure logic on the stamps of messages and the time."""

from collections.abc import Collection, Mapping

from vla_ros.messages.stamps import NS


class Trigger:
    """An inference is due when every stream that paces has a message newer than those of the last inference, every
    joint was measured at or after the newest of them, and the rate limit allows it.

    So the slowest camera sets the rate, one inference runs for each set of images, and in lockstep, where all streams
    have the same stamps, exactly one for each stamp.

    With a `pace`, one inference is due at each tick of a separate clock, which the first one starts: on the images that
    arrive then, or, if none arrive for another whole step, on the existing ones.

    Args:
        paced: streams that pace, usually cameras; if empty, every joint state is a new observation.
        joint_states: names of the streams of joint states.
        max_rate: Hz, 0 for no limit.
        max_ahead: s that a stamp may lie ahead of the clock; /clock and the other topics arrive in any order.
        pace: s from one inference to the next, exactly; 0 for none.
    """

    def __init__(
        self, paced: Collection[str], joint_states: Collection[str], max_rate: float = 0.0, max_ahead: float = 0.5,
        pace: float = 0.0,
    ) -> None:
        self._joint_states = tuple(joint_states)
        self._paced = tuple(paced) or self._joint_states
        # A hundredth of slack: 10 Hz images must pass a limit of 10 Hz in spite of jitter in their stamps.
        self._period_ns = round(0.99 * NS / max_rate) if max_rate > 0 else 0
        self._max_ahead_ns = round(max_ahead * NS)
        self._pace_ns = round(pace * NS)
        self._slack_ns = self._pace_ns // 10  # of jitter in stamps
        self.clear()

    def clear(self) -> None:
        """Forget everything: after a jump of the clock."""
        self._newest: dict[str, int] = {}
        self._used: dict[str, int] = {}
        self._last_ns: int | None = None  # newest image of the last inference
        self._due_ns: int | None = None  # with a pace: when the next one is due

    def restart(self) -> None:
        """Messages that have arrived may be used again."""
        self._used = {}
        self._last_ns = self._due_ns = None

    def newest(self) -> dict[str, int]:
        """stream -> its newest stamp, ns."""
        return dict(self._newest)

    def add(self, stream: str, stamp_ns: int) -> None:
        """A message of a stream arrived."""
        self._newest[stream] = max(stamp_ns, self._newest.get(stream, stamp_ns))

    def target(self, now_ns: int) -> int | None:
        """The instant to observe, ns, when an inference is due; else None."""
        streams = {*self._paced, *self._joint_states}
        if any(stream not in self._newest for stream in streams):
            return None
        newest = max(self._newest[stream] for stream in streams)
        observed = max(now_ns, newest) if newest - now_ns <= self._max_ahead_ns else None
        if self._due_ns is not None:
            reached = self._reached(self._newest)
            return None if observed is None or reached < self._due_ns else min(observed, reached + self._slack_ns)
        if any(self._newest[stream] <= self._used.get(stream, self._newest[stream] - 1) for stream in self._paced):
            return None
        newest_image = max(self._newest[stream] for stream in self._paced)
        if self._paced != self._joint_states and self._joints_ns() < newest_image:
            return None
        if self._last_ns is not None and newest_image - self._last_ns < self._period_ns:
            return None
        return observed

    def began(self, stamps_ns: Mapping[str, int]) -> None:
        """An inference began on messages with these stamps."""
        for stream, stamp in stamps_ns.items():  # messages that could not be paired stay used
            self._used[stream] = max(stamp, self._used.get(stream, stamp))
        self._last_ns = max(self._used[stream] for stream in self._paced)
        if self._due_ns is not None:
            self._due_ns = max(self._due_ns, self._reached(self._used) + self._pace_ns)
        elif self._pace_ns:
            self._due_ns = self._last_ns + self._pace_ns

    def problems(self, now_ns: int) -> dict[str, str]:
        """Streams whose stamps cannot be used although they are fresh: stream -> why."""
        found = {}
        for stream, stamp in self._newest.items():
            if stamp - now_ns > self._max_ahead_ns:
                found[stream] = f"stamp {(stamp - now_ns) / NS:.3f} s ahead of the clock"
        images = [self._newest[name] for name in self._paced if name in self._newest]
        for stream in set(self._joint_states).intersection(self._newest).difference(self._paced):
            behind = max(images, default=0) - self._newest[stream]
            if behind > self._max_ahead_ns:
                found.setdefault(stream, f"{behind / NS:.3f} s older than the newest image")
        return found

    def _reached(self, stamps_ns: Mapping[str, int]) -> int:
        """With a pace, the newest tick of its clock for which everything has arrived, or which the joints passed a step
        ago."""
        joints = min(stamps_ns[stream] for stream in self._joint_states)
        there = max(min(joints, *(stamps_ns[stream] for stream in self._paced)), joints - self._pace_ns)
        return self._due_ns + (there + self._slack_ns - self._due_ns) // self._pace_ns * self._pace_ns

    def _joints_ns(self) -> int:
        return min(self._newest[stream] for stream in self._joint_states)
