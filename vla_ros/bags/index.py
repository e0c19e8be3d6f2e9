"""One pass over a bag that decodes no images: joint states, times of the other streams, instructions, tasks."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import inf
from typing import Any

import numpy as np

from vla_ros.bags.compress import DEPTH_SUFFIX, SUFFIX
from vla_ros.bags.reader import Bag, Record
from vla_ros.bags.streams import (
    CLOCK,
    CLOCK_TYPE,
    EXECUTOR_STATUS,
    EXECUTOR_STATUS_TYPE,
    INSTRUCTION,
    INSTRUCTION_TYPE,
    OUTCOME,
    OUTCOME_TYPE,
    TASK_STATUS,
    TASK_STATUS_TYPE,
    resolve,
)
from vla_ros.core.errors import InputError
from vla_ros.core.joint_states import JointStates
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import COMPRESSED_IMAGE, IMAGE, Stream
from vla_ros.messages.joints import measured
from vla_ros.messages.observation import foreign_clock
from vla_ros.messages.stamps import FAR_NS, stamp_ns

REORDERING_NS = 500_000_000  # joint states may come so late; a stamp further back is of a clock that was set
RUNNING, ENDED = (2, 3), {4: "succeeded", 5: "canceled", 6: "aborted"}  # action_msgs/GoalStatus
BY_PERSON = (0, 1, 7)  # of ExecutorStatus.msg: it does not command, or has been taken over
OUTCOMES = {1: "success", 2: "failure", 3: "aborted"}  # of Outcome.msg
Progress = Callable[[int], None]  # called with the number of messages read since the last call


@dataclass(frozen=True)
class StreamIndex:
    """The times of a topic's messages, in the order of the bag."""

    stream: Stream
    topic: str
    stamps: np.ndarray  # (N,) int64 ns on the robot's clock: of the header, else of the recording
    faults: tuple[tuple[int, str], ...] = ()  # (ns, what is wrong with the stamp of a message recorded then)

    @cached_property
    def times(self) -> list[int]:
        """The stamps, sorted for a search: those that go backwards are refused elsewhere."""
        return np.maximum.accumulate(self.stamps).tolist()


@dataclass(frozen=True)
class Task:
    """One run of the RunInstruction action."""

    start_ns: int
    stop_ns: int
    outcome: str  # succeeded, canceled, aborted or unfinished


class JointIndex:
    """The joint states of a bag.

    Attributes:
        states: of all topics, at every instant of the bag.
        topics: their names, for messages.
        faults: (ns, what is wrong with a message of that time).
        first_ns, last_ns: of all messages.
    """

    def __init__(self, names: tuple[str, ...], topics: Iterable[str]) -> None:
        self.states = JointStates(names, history=inf)
        self.topics = ", ".join(topics)
        self.faults: list[tuple[int, str]] = []
        self.first_ns, self.last_ns = np.iinfo(np.int64).max, np.iinfo(np.int64).min
        self._newest: dict[str, int] = {}  # topic -> ns

    def add(self, bag: Bag, record: Record, stream: Stream, ns: int) -> None:
        """A message of a stream, stamped `ns`."""
        self.first_ns, self.last_ns = min(self.first_ns, ns), max(self.last_ns, ns)
        before = self._newest.get(record.topic, ns)
        self._newest[record.topic] = ns if before - ns > REORDERING_NS else max(before, ns)
        if before - ns > REORDERING_NS:
            said = f"stamps go backwards at {bag.when(before)}: the next one is {(before - ns) / 1e9:.3f} s older"
            self.faults.append((before, f"topic {record.topic}: {said}"))
            return
        try:
            message = bag.decode(record)
            self.states.add(ns, *measured(stream, message))
        except InputError as error:
            said = str(error).removeprefix(f"{bag.where(record)}: ")
            self.faults.append((ns, f"topic {record.topic}: {bag.when(ns)}: {said}"))


@dataclass(frozen=True)
class Verdict:
    """A reported outcome of an instruction."""

    ns: int
    outcome: str  # one of OUTCOMES
    by: str
    message: str
    instruction: str  # empty: the one in force, or the last one

    def __str__(self) -> str:
        said = f"{self.outcome} ({self.by})" if self.by else self.outcome
        return f"{said}: {self.message}" if self.message else said


@dataclass(frozen=True)
class BagIndex:
    """What `index_bag` found."""

    streams: dict[str, StreamIndex]  # by the names of the robot's streams (`RobotSpec.all_streams`), but joint states
    joints: JointIndex
    texts: list[tuple[int, str]]  # (ns, instruction) as published; the text is stripped, empty = stop
    tasks: list[Task]
    markers: list[tuple[int, str | bool]]  # (ns, string or boolean) of the marker topic
    verdicts: list[Verdict]
    by_person: list[tuple[int, bool]]  # (ns, whether from then on a person commands, not a policy)
    start_ns: int  # the first instant of any of the streams
    stop_ns: int  # the last one
    notes: list[str]  # of the bag, and of messages that could not be read


class RosTime:
    """The time of messages on the robot's clock.

    A message with a header has its stamp. One without has the time of its recording or, in a bag with /clock
    (simulated time, which a recorder may see late or not at all), the newest /clock value recorded before it.
    """

    def __init__(self, bag: Bag) -> None:
        self._bag = bag
        self._clock: int | None = None
        self._has_clock = _readable(bag, CLOCK, CLOCK_TYPE)
        for record in islice(bag.records([CLOCK] if self._has_clock else []), 1):
            self.of(record)

    def of(self, record: Record, stream: Stream | None = None) -> int:
        """ns, of a message of a stream. Records must come in the order of the bag, those of /clock among them.

        Raises InputError for a stamp that is not of the clock of the recording.
        """
        if record.topic == CLOCK and self._has_clock:
            self._clock = stamp_ns(self._bag.decode(record).clock)
            return self._clock
        stamp = self._bag.header_ns(record) if stream is None or stream.stamps == "header" else None
        if stamp:
            # What is published once is as old as its publisher.
            if stream and not stream.once and self._clock is None and abs(stamp - record.log_ns) > FAR_NS:
                advice = "if there is simulated time, record with it, so that /clock is in the bag"
                said = foreign_clock(stream, stamp, record.log_ns, advice)
                raise InputError(f"{self._bag.where(record)}: {said}")
            return stamp
        return record.log_ns if self._clock is None else self._clock


def find_streams(bag: Bag, robot: RobotSpec, namespace: str = "/") -> dict[str, tuple[Stream, str]]:
    """Stream name -> (stream, topic in the bag). Images may be in it compressed, as TOPIC/compressed or
    TOPIC/compressedDepth: of several, where there are most messages.

    Raises InputError that names every topic that is missing, empty or of another type.
    """
    found, problems = {}, []
    for stream in robot.all_streams.values():
        topic = resolve(stream.topic, namespace)
        types = (IMAGE, COMPRESSED_IMAGE) if stream.is_camera or stream.type == IMAGE else (stream.type,)
        if len(types) > 1:
            there = [topic + suffix for suffix in ("", SUFFIX, DEPTH_SUFFIX) if topic + suffix in bag.topics]
            topic = max(there, key=lambda name: bag.topics[name].count, default=topic)
        info = bag.topics.get(topic)
        if info is None:
            problems.append(f"topic {topic} ({stream.name}) is missing")
        elif info.type not in types:
            problems.append(f"topic {topic} ({stream.name}) is a {info.type}, expected {' or '.join(types)}")
        elif info.problem:
            problems.append(f"topic {topic} ({stream.name}): {info.problem}")
        elif info.count == 0:
            problems.append(f"topic {topic} ({stream.name}) has no messages")
        else:
            found[stream.name] = stream, topic
    if problems:
        has = ", ".join(sorted(bag.topics)) or "no topics"
        raise InputError(f"bag {bag.path}: {'; '.join(problems)}. It has {has}")
    return found


def _readable(bag: Bag, topic: str, kind: str) -> bool:
    """Whether a topic is in a bag and of the type that one of that name has; others may use the name too."""
    info = bag.topics.get(topic)
    return info is not None and info.type == kind and not info.problem


def counted(records: Iterable[Record], progress: Progress | None) -> Iterator[Record]:
    """The same records; `progress` is called for every 256."""
    for count, record in enumerate(records, start=1):
        if progress and count % 256 == 0:
            progress(256)
        yield record


def index_bag(
    bag: Bag, robot: RobotSpec, namespace: str = "/", marker: str | None = None, progress: Progress | None = None
) -> BagIndex:
    """Read a bag once. `marker`: a topic of std_msgs/String or Bool. Raises InputError."""
    found = find_streams(bag, robot, namespace)
    marker = resolve(marker, namespace) if marker else None
    if marker and marker not in bag.topics:
        raise InputError(f"bag {bag.path}: marker topic {marker} is missing. It has {', '.join(sorted(bag.topics))}")
    ours = {INSTRUCTION: INSTRUCTION_TYPE, EXECUTOR_STATUS: EXECUTOR_STATUS_TYPE, OUTCOME: OUTCOME_TYPE}
    text_topic, status_topic, outcome_topic = (
        topic if _readable(bag, topic := resolve(name, namespace), kind) else None for name, kind in ours.items()
    )
    task_topics = {name for name in bag.topics if name.endswith(TASK_STATUS) and _readable(bag, name, TASK_STATUS_TYPE)}
    joint_topics = {topic: stream for stream, topic in found.values() if stream.is_state}
    joints = JointIndex(robot.joint_names, sorted(joint_topics))
    stamps = {name: array("q") for name in found}
    faults: list[tuple[str, int, str]] = []  # (stream, ns of the recording, what is wrong with the stamp)
    of_topic: dict[str, list[Stream]] = {}
    for stream, topic in found.values():
        of_topic.setdefault(topic, []).append(stream)
    told = {text_topic, status_topic, outcome_topic, *task_topics}
    wanted = {*of_topic, *told, CLOCK} | ({marker} if marker else set())
    time = RosTime(bag)
    texts: list[tuple[int, str]] = []
    markers: list[tuple[int, str | bool]] = []
    verdicts: list[Verdict] = []
    by_person: list[tuple[int, bool]] = []
    goals: dict[bytes, list] = {}
    for record in counted(bag.records(wanted), progress):
        foreign = False
        for stream in of_topic.get(record.topic, ()):
            try:
                stamps[stream.name].append(time.of(record, stream))
            except InputError as error:
                foreign = True
                stamps[stream.name].append(record.log_ns)
                faults.append((stream.name, record.log_ns, str(error)))
        ns = record.log_ns if foreign else time.of(record)
        if record.topic in joint_topics and not foreign:
            joints.add(bag, record, joint_topics[record.topic], ns)
        if record.topic == marker:
            markers.append((ns, _marker_value(bag, record)))
        elif record.topic in told:
            message = bag.decode_or_note(record)
            if message is None:
                if record.topic == text_topic:
                    texts.append((ns, ""))  # the instruction is unknown from here on
                continue
            if record.topic == text_topic:
                texts.append((ns, str(message.data).strip()))
            elif record.topic == status_topic:
                text = "" if texts else str(message.instruction).strip()  # given before the recording began
                if text:
                    texts.append((ns, text))
                person = int(message.state) in BY_PERSON or bool(message.dry_run)
                if not by_person or by_person[-1][1] != person:
                    by_person.append((ns, person))
            elif record.topic == outcome_topic:
                verdicts.append(verdict(message, ns))
            for status in message.status_list if record.topic in task_topics else ():
                _follow_goal(goals, bytes(status.goal_info.goal_id.uuid), int(status.status), ns)
    many = Counter(name for name, _, _ in faults)
    for name, ns, said in faults:
        if 2 * many[name] > len(stamps[name]):  # its clock is another one; few cost the episodes they are in
            raise InputError(said)
        if found[name][0].is_state:
            joints.faults.append((ns, said))
    streams = {
        name: StreamIndex(
            stream, topic, np.frombuffer(stamps[name], np.int64),
            tuple((ns, said) for of, ns, said in faults if of == name),
        )
        for name, (stream, topic) in found.items()
        if not stream.is_state
    }
    stop = max(joints.last_ns, *(int(index.stamps.max()) for index in streams.values()))
    return BagIndex(
        streams=streams,
        joints=joints,
        texts=texts,
        tasks=[Task(row[0], row[1] if row[1] is not None else stop, row[2]) for row in goals.values()],
        markers=markers,
        verdicts=verdicts,
        by_person=by_person,
        start_ns=min(joints.first_ns, *(int(index.stamps.min()) for index in streams.values())),
        stop_ns=stop,
        notes=bag.notes,
    )


def verdict(message: Any, ns: int) -> Verdict:
    """The verdict of an Outcome message; an unknown outcome counts as none."""
    texts = (str(getattr(message, name)).strip() for name in ("by", "message", "instruction"))
    return Verdict(ns, OUTCOMES.get(int(message.outcome), ""), *texts)


def _marker_value(bag: Bag, record: Record) -> str | bool:
    value = getattr(bag.decode(record), "data", None)
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, str):
        return value.strip()
    raise InputError(f"{bag.where(record)}: a marker is a {record.type}, expected std_msgs/msg/String or Bool")


def _follow_goal(goals: dict[bytes, list], goal: bytes, status: int, ns: int) -> None:
    """`goals`: goal -> [start, stop or None, outcome]."""
    if goal not in goals and status in RUNNING:
        goals[goal] = [ns, None, "unfinished"]
    elif goal in goals and goals[goal][1] is None and status in ENDED:
        goals[goal][1:] = [ns, ENDED[status]]
