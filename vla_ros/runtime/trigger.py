"""When an inference begins: pure, told the stamps that arrive and the time."""

from collections.abc import Collection, Mapping

from vla_ros.messages.stamps import NS


class Trigger:
    """An inference is due when every camera has an image newer than the last inference's, a joint state not older
    than the newest of these images is there, and the rate limit allows it.

    So a slow camera sets the pace, one inference runs on each set of images, and in a simulation in lockstep, whose
    streams carry the same stamps, exactly one on each stamp.

    With a `pace`, one inference is due at each instant of a clock of its own, which the first one starts: on the
    images that arrive then, or, when none arrive for a whole step more, on those that are there.

    Args:
        cameras: streams of images that the policy needs; may be empty, then every joint state is a new observation.
        joint_states: name of the stream of joint states.
        max_rate: Hz, 0 for no limit.
        max_ahead: s that a stamp may lie ahead of the clock; /clock and the other topics arrive in any order.
        pace: s from one inference to the next, exactly; 0 for none.
    """

    def __init__(
        self, cameras: Collection[str], joint_states: str, max_rate: float = 0.0, max_ahead: float = 0.5,
        pace: float = 0.0,
    ) -> None:
        self._cameras = tuple(cameras)
        self._joint_states = joint_states
        # A hundredth of slack: 10 Hz images must pass a limit of 10 Hz in spite of jitter in their stamps.
        self._period_ns = round(0.99 * NS / max_rate) if max_rate > 0 else 0
        self._max_ahead_ns = round(max_ahead * NS)
        self._pace_ns = round(pace * NS)
        self.clear()

    def clear(self) -> None:
        """Forget everything: after a jump of the clock."""
        self._newest: dict[str, int] = {}
        self._used: dict[str, int] = {}
        self._last_ns: int | None = None  # newest image of the last inference
        self._due_ns: int | None = None  # with a pace: when the next one is due

    def restart(self) -> None:
        """What has arrived may be used (again)."""
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
        streams = (*self._cameras, self._joint_states)
        if any(stream not in self._newest for stream in streams):
            return None
        newest = max(self._newest[stream] for stream in streams)
        observed = max(now_ns, newest) if newest - now_ns <= self._max_ahead_ns else None
        if self._due_ns is not None:
            slack = self._pace_ns // 10  # of jitter in stamps
            there = min(self._newest[stream] for stream in streams) >= self._due_ns - slack
            late = self._newest[self._joint_states] >= self._due_ns + self._pace_ns - slack
            return observed if there or late else None
        paced = self._cameras or (self._joint_states,)
        if any(self._newest[stream] <= self._used.get(stream, self._newest[stream] - 1) for stream in paced):
            return None
        newest_image = max(self._newest[stream] for stream in paced)
        if self._newest[self._joint_states] < newest_image:
            return None
        if self._last_ns is not None and newest_image - self._last_ns < self._period_ns:
            return None
        return observed

    def began(self, stamps_ns: Mapping[str, int]) -> None:
        """An inference began on messages with these stamps."""
        self._used = dict(stamps_ns)
        self._last_ns = max(stamps_ns[stream] for stream in self._cameras or (self._joint_states,))
        if self._due_ns is not None:
            reached = max(self._last_ns, stamps_ns[self._joint_states] - self._pace_ns) + self._pace_ns // 10
            self._due_ns += self._pace_ns * max(0, (reached - self._due_ns) // self._pace_ns + 1)
        elif self._pace_ns:
            self._due_ns = self._last_ns + self._pace_ns

    def problems(self, now_ns: int) -> dict[str, str]:
        """Streams whose stamps cannot be used although they are fresh: stream -> why."""
        found = {}
        for stream, stamp in self._newest.items():
            if stamp - now_ns > self._max_ahead_ns:
                found[stream] = f"stamp {(stamp - now_ns) / NS:.3f} s ahead of the clock"
        joints = self._newest.get(self._joint_states)
        images = [self._newest[name] for name in self._cameras if name in self._newest]
        if joints is not None and images and max(images) - joints > self._max_ahead_ns:
            found.setdefault(self._joint_states, f"{(max(images) - joints) / NS:.3f} s older than the newest image")
        return found
