"""Divide a bag into episodes, and each episode into frames on the policy's clock.

The rule of resampling: the frame at time t has the last value of every stream at or before t, and the last command,
which is its action. A running policy gets its observations by the same rule. A value that is older than a limit is a
gap: the episode is refused, with the place of the gap.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np

from vla_ros.bags.index import BagIndex, JointIndex, StreamIndex, Task, Verdict
from vla_ros.core.errors import InputError
from vla_ros.core.joint_states import NEVER
from vla_ros.core.stream import Stream
from vla_ros.messages.selection import partners, rows_at

Where = Callable[[int], str]  # ns -> a time in words
OF_TASK = {"succeeded": "success", "canceled": "aborted", "aborted": "aborted"}  # the default
CUTS = ("instruction", "task", "marker", "whole")


@dataclass(frozen=True)
class CutOptions:
    """How episodes are found and sampled.

    Attributes:
        by: "instruction": from one instruction until another one or an empty one. "task": runs of the RunInstruction
            action. "marker": messages on a topic, a string (empty = end) or a boolean. "whole": the bag is one
            episode.
    """

    by: str = "instruction"
    fps: float = 10.0  # frames per second; the policy's clock
    instruction: str | None = None  # of all episodes, in place of the recorded ones; needed if the bag has none
    marker: str | None = None  # topic, for by = "marker"
    succeeded: bool = False  # take the episodes with the outcome "success" only
    max_gap: float = 0.5  # s; oldest image or joint that a frame may use (other streams: their max_age)
    max_command_gap: float = 0.5  # s; oldest command that a frame may use
    min_seconds: float = 1.0  # shorter episodes are refused

    def __post_init__(self) -> None:
        if self.by not in CUTS:
            raise InputError(f"episodes by {self.by!r}, expected one of {CUTS}")
        if self.by == "marker" and not self.marker:
            raise InputError("episodes by marker: expected the name of the marker topic")
        if not 0 < self.fps <= 1000:
            raise InputError(f"fps {self.fps}, expected above 0 and at most 1000")
        for name in ("max_gap", "max_command_gap"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)} s, expected a positive number")


@dataclass(frozen=True)
class Cut:
    """From `start_ns` to before `stop_ns` the robot followed one instruction."""

    start_ns: int
    stop_ns: int
    instruction: str
    outcome: str = ""  # success, failure or aborted; "" if not reported
    by: str = ""  # who reported it
    message: str = ""  # and why


@dataclass(frozen=True)
class Episode:
    """A cut with its frames."""

    number: int  # its place among the cuts of the bag, from 0
    cut: Cut
    times: np.ndarray  # (K,) int64 ns, the instants of the frames
    rows: dict[str, np.ndarray]  # stream name -> (K, n) the messages that each frame uses: one, or those of a window
    positions: np.ndarray  # (K, J) of the joints, rad or m
    measured_ns: np.ndarray  # (K, J) int64, when each was measured
    by_person: np.ndarray  # (K,) bool, a person commanded, not a policy

    @property
    def name(self) -> str:
        return episode_name(self.number, self.cut)


def episode_name(number: int, cut: Cut) -> str:
    return f"episode {number} ({cut.instruction!r})"


def cut_bag(index: BagIndex, options: CutOptions) -> list[Cut]:
    """The episodes of a bag in order; empty if there are none. Raises InputError for one without its text."""
    end = index.stop_ns + 1
    if options.by == "whole":
        text = options.instruction or next((text for _, text in index.texts if text), "")
        cuts = [Cut(index.start_ns, end, text)]
    elif options.by == "task":
        cuts = [_task_cut(index, task) for task in index.tasks]
        if any(cut.instruction for cut in cuts):
            cuts = [cut for cut in cuts if cut.instruction]  # the others ended before their instruction was published
    elif options.by == "marker":
        cuts = [
            replace(cut, instruction=_text_at(index, cut.stop_ns)) if cut.instruction is True else cut
            for cut in _spans(index.markers, end)
        ]
    else:
        cuts = _spans(index.texts, end)
    if options.instruction:
        cuts = [replace(cut, instruction=options.instruction.strip()) for cut in cuts]
    cuts = _judged(cuts, index.verdicts)
    if options.succeeded:
        cuts = [cut for cut in cuts if cut.outcome == "success"]
    for number, cut in enumerate(cuts):
        if not cut.instruction:
            raise InputError(f"episode {number}: has no instruction in the bag, expected one (or give it yourself)")
    return cuts


def _task_cut(index: BagIndex, task: Task) -> Cut:
    """A run of the action, as long as its own instruction was valid: task_node publishes it just before the run begins.

    A run that is pre-empted ends after the newer text was published, one that ends by itself after the empty one.
    """
    text, stop = "", task.stop_ns
    for at, said in index.texts:
        if at >= stop:
            break
        if at <= task.start_ns or not text:
            text = said
        elif said != text:
            stop = at
    return Cut(task.start_ns, stop, text, OF_TASK.get(task.outcome, ""), "run_instruction")


def _judged(cuts: Sequence[Cut], verdicts: Sequence[Verdict]) -> list[Cut]:
    """With the last outcome reported for each, before the next one begins or by the name of its instruction."""
    judged = list(cuts)
    for said in verdicts:
        last = next((k for k, cut in reversed(list(enumerate(cuts))) if cut.start_ns <= said.ns
                     and said.instruction in ("", cut.instruction)), None)  # fmt: skip
        if last is not None:
            judged[last] = replace(judged[last], outcome=said.outcome, by=said.by, message=said.message)
    return judged


def _spans(changes: list, end: int) -> list[Cut]:
    """From each change to a true value until the next change; repetitions do not count."""
    starts = [next(same) for _, same in groupby(changes, key=lambda change: change[1])]
    return [Cut(start, stop, value) for (start, value), (stop, _) in pairwise([*starts, (end, None)]) if value]


def _text_at(index: BagIndex, ns: int) -> str:
    """The last instruction before an instant."""
    return next((text for at, text in reversed(index.texts) if at < ns and text), "")


def plan_episode(number: int, cut: Cut, index: BagIndex, options: CutOptions, where: Where) -> Episode:
    """Frames of a cut. `where`: ns -> text, for messages.

    The first frame is at the first time at which every sensor has sent something and every joint was measured within
    the cut (streams that are published once: ever) and every command is known; so frames coincide with the stamps of
    the slowest stream.

    Raises InputError: too short, a gap above the limit, stamps that go backwards, inconsistent joint states. The
    message names topic, joint and time.
    """
    streams = {name: found.stream for name, found in index.streams.items()}
    stamps = {name: found.times for name, found in index.streams.items()}
    first = {name: _first_use(name, streams, stamps, cut, options) for name in streams}
    first |= zip(index.joints.states.names, index.joints.states.first_since(cut.start_ns).tolist(), strict=True)
    missing, start = max(first.items(), key=lambda item: item[1])
    if start >= cut.stop_ns:
        found = index.streams.get(missing)
        what = f"topic {found.topic}" if found else f"topic {index.joints.topics}: joint {missing}"
        raise InputError(f"{what}: nothing from {where(cut.start_ns)} to {where(cut.stop_ns)}")
    count = int(np.ceil((cut.stop_ns - start) * options.fps / 1e9))
    times = start + np.round(np.arange(count) * (1e9 / options.fps)).astype(np.int64)
    times = times[times < cut.stop_ns]
    chosen = [rows_at(stamps, streams.values(), time) for time in times.tolist()]
    rows = {}
    for name, found in index.streams.items():
        lost = next((k for k, row in enumerate(chosen) if row[name] is None), None)
        if lost is not None:
            others = partners(found.stream, streams.values())
            raise InputError(f"topic {found.topic}: nothing at the same instant as {others} at {where(times[lost])}")
        rows[name] = np.array([row[name] for row in chosen], dtype=np.int64)
        if said := next((said for at, said in found.faults if cut.start_ns <= at < cut.stop_ns), None):
            raise InputError(said)
        _check_order(found, rows[name], where)
        if not found.stream.once:
            instants = times[:, None] - np.array(found.stream.offsets_ns)
            _check_gaps(found, rows[name], instants, _limit(found.stream, options), where)
    positions, measured_ns = map(np.stack, zip(*map(index.joints.states.at, times.tolist()), strict=True))
    _check_joints(index.joints, measured_ns, times, options.max_gap, where)
    if len(times) < max(options.min_seconds * options.fps, 2):
        raise InputError(
            f"{len(times)} frames from {where(start)} to {where(cut.stop_ns)}, "
            f"expected at least {options.min_seconds:g} s of {options.fps:g} frames/s"
        )
    return Episode(number, cut, times, rows, positions, measured_ns, _by_person(index.by_person, times))


def _by_person(changes: Sequence[tuple[int, bool]], times: np.ndarray) -> np.ndarray:
    """(K,) bool, of each instant; where there is no executor it is a person."""
    starts, values = [ns for ns, _ in changes], [value for _, value in changes] or [True]
    return np.array([values[max(bisect_right(starts, time) - 1, 0)] for time in times.tolist()])


def _check_joints(joints: JointIndex, measured_ns: np.ndarray, times: np.ndarray, limit: float, where: Where) -> None:
    """`measured_ns`: (K, J); `times`: (K,)."""
    if said := next((said for at, said in joints.faults if measured_ns.min() <= at <= times[-1]), None):
        raise InputError(said)
    gaps = np.argwhere((times[:, None] - measured_ns) / 1e9 > limit)
    if gaps.size:
        frame, joint = gaps[0]
        at = int(measured_ns[frame, joint])
        after = joints.states.first_since(at + 1)[joint]
        length = "the rest of the bag" if after == NEVER else f"{(after - at) / 1e9:.3f} s"
        raise InputError(
            f"topic {joints.topics}: joint {joints.states.names[joint]}: nothing after {where(at)} for {length}, "
            f"expected at most {limit:g} s"
        )


def _check_order(stream: StreamIndex, rows: np.ndarray, where: Where) -> None:
    used = stream.stamps[rows.min() : rows.max() + 1]
    back = np.flatnonzero(np.diff(used) < 0)
    if back.size:
        before, after = used[back[0]], used[back[0] + 1]
        raise InputError(
            f"topic {stream.topic}: stamps go backwards at {where(before)}: "
            f"the next one is {(before - after) / 1e9:.3f} s older"
        )


def _check_gaps(stream: StreamIndex, rows: np.ndarray, times: np.ndarray, limit: float, where: Where) -> None:
    gaps = np.argwhere((times - stream.stamps[rows]) / 1e9 > limit)
    if gaps.size:
        at = rows[tuple(gaps[0])]
        length = "the rest of the bag"
        if at + 1 < len(stream.stamps):
            length = f"{(stream.stamps[at + 1] - stream.stamps[at]) / 1e9:.3f} s"
        raise InputError(
            f"topic {stream.topic}: nothing after {where(stream.stamps[at])} for {length}, expected at most {limit:g} s"
        )


def _limit(stream: Stream, options: CutOptions) -> float:
    if stream.is_command:
        return options.max_command_gap
    return options.max_gap if stream.is_camera else stream.max_age


def _first_use(
    name: str, streams: Mapping[str, Stream], stamps: Mapping[str, Sequence[int]], cut: Cut, options: CutOptions
) -> int:
    """When a stream is first usable in a cut. A command given shortly before the cut still holds."""
    stream, times = streams[name], stamps[name]
    after = bisect_left(times, cut.start_ns)
    if stream.once or (
        stream.is_command and after and (cut.start_ns - times[after - 1]) / 1e9 <= options.max_command_gap
    ):
        return cut.start_ns
    if stream.with_:
        # once all of the group have sent something within the cut, at the same instant
        group = [other for other in streams.values() if stream.with_ in (other.name, other.with_)]
        begin = bisect_left(stamps[stream.with_], cut.start_ns)
        for time in sorted({time for other in group for time in stamps[other.name] if time >= cut.start_ns}):
            rows = rows_at({s.name: stamps[s.name] for s in group}, group, time)
            if time >= cut.stop_ns or (rows[name] is not None and rows[stream.with_][0] >= begin):
                return time
        return cut.stop_ns
    first = times[after] if after < len(times) else cut.stop_ns
    return max(first, times[0] + stream.offsets_ns[0])
