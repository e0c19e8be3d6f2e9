"""Choose the messages of each stream for an observation: one rule, for a live graph and for a bag."""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence

from vla_ros.core.stream import Stream

Rows = tuple[int, ...]
LOOK_BACK_NS = 10_000_000_000  # for a time at which all streams of a group have a message


def rows_at(stamps: Mapping[str, Sequence[int]], streams: Collection[Stream], time: int) -> dict[str, Rows | None]:
    """Stream name -> rows of its messages for an observation at `time`, ns; None if there are none.

    That is the last message at or before `time`; for each value of a window, the last one at or before its own time;
    for a group, the newest time at which all have a message; for a stream that is published once, the first one if none
    is older.

    Args:
        stamps: stream name -> the stamps of its messages in ascending order, ns.
    """
    found: dict[str, Rows | None] = {}
    groups: dict[str, list[Stream]] = {}
    for stream in streams:
        times = stamps[stream.name]
        row = bisect_right(times, time) - 1
        if row < 0 and stream.once and len(times):
            row = 0
        found[stream.name] = (row,) if row >= 0 else None
        if stream.with_:
            groups.setdefault(stream.with_, []).append(stream)
        elif stream.window:
            rows = tuple(bisect_right(times, time - offset) - 1 for offset in stream.offsets_ns)
            found[stream.name] = rows if rows[0] >= 0 else None
    for leader, followers in groups.items():
        found |= _together(stamps, leader, followers, time)
    return found


def partners(stream: Stream, streams: Collection[Stream]) -> str:
    """Names of the streams that are chosen together with this one, for messages; empty if there are none."""
    leader = stream.with_ or stream.name
    return ", ".join(other.name for other in streams if leader in (other.name, other.with_) and other is not stream)


def _together(
    stamps: Mapping[str, Sequence[int]], leader: str, followers: Sequence[Stream], time: int
) -> dict[str, Rows | None]:
    times = stamps[leader]
    for row in range(bisect_right(times, time) - 1, -1, -1):
        if times[row] < time - LOOK_BACK_NS:
            break
        rows: dict[str, Rows | None] = {leader: (row,)}
        for stream in followers:
            other = _nearest(stamps[stream.name], times[row], time)
            if other < 0 or abs(stamps[stream.name][other] - times[row]) > round(stream.slop * 1e9):
                break
            rows[stream.name] = (other,)
        else:
            return rows
    return dict.fromkeys((leader, *(stream.name for stream in followers)), None)


def _nearest(times: Sequence[int], wanted: int, limit: int) -> int:
    """The row not after `limit` whose time is nearest to `wanted`, the earlier one of two; -1 for none."""
    row = bisect_right(times, wanted) - 1
    after = row + 1
    if after < len(times) and times[after] <= limit and (row < 0 or times[after] - wanted < wanted - times[row]):
        return after
    return row
