"""Records what the robot file names, chunks, commands and status to a rosbag2 bag.

Active means recording: each activation writes a new bag; deactivation and the end of the process finish it. With
`keep_last` active means that the last seconds are kept in memory; a failure, and `~/keep`, write them to a new bag.
"""

import math
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message

from vla_ros.bags.compress import FORMATS, SUFFIX, compressor
from vla_ros.bags.recording import Item, Recording
from vla_ros.bags.streams import CLOCK, CLOCK_TYPE, INSTRUCTION, LATCHED, OUTCOME, graph_streams
from vla_ros.bags.writer import COMPRESSIONS, BagWriter
from vla_ros.control.remedies import with_section
from vla_ros.core.errors import InputError
from vla_ros.core.stream import COMMAND, COMPRESSED_IMAGE, IMAGE, Stream
from vla_ros.messages.stamps import set_stamp
from vla_ros.msg import Outcome
from vla_ros.nodes.base import ManagedNode, spin_node
from vla_ros.nodes.followed import Followed
from vla_ros.nodes.keeping import Keeper
from vla_ros.nodes.parameters import NodeParameters, parameter
from vla_ros.nodes.qos import RECORDED_DEPTH
from vla_ros.nodes.streams import message_class

LOOK_PERIOD = 0.2  # s between checks of the publishers and the writer
QUEUE_DEPTH = 100  # messages per topic that may wait between two turns of rclpy's executor
EARLY_LIMIT = 10_000  # messages kept until simulated time is known
LOST_PREFIX = "vla_ros.lost."  # in custom_data: this and the topic -> messages the middleware lost


@dataclass(frozen=True)
class RecorderParameters(NodeParameters):
    output: str = parameter("", "folder of the bag, with strftime codes; empty: ROBOT_DATE_TIME here", live=True)
    topics: tuple[str, ...] = parameter((), "more topics to record; their types are taken from the graph")
    clock: bool = parameter(False, "record /clock; always done with use_sim_time")
    compressed_images: bool = parameter(False, "store raw images of the cameras compressed, as TOPIC/compressed")
    image_format: str = parameter("jpeg", "format of compressed images; 16-bit images are always png", choices=FORMATS)
    image_quality: int = parameter(95, "quality of jpeg", low=1, high=100)
    compression: str = parameter("none", "compression of the chunks inside the files", choices=tuple(COMPRESSIONS))
    max_file_size: float = parameter(0.0, "begin the next file of the bag beyond this, 0 = never", unit="MB", low=0.0)
    max_file_duration: float = parameter(0.0, "begin the next file after this time, 0 = never", unit="s", low=0.0)
    buffer_size: float = parameter(512.0, "messages that may wait for a slow disk", unit="MB", low=1.0)
    min_free_disk: float = parameter(500.0, "end the recording (the robot continues) when less is "
                                            "free", unit="MB", low=0.0,
                                     live=True)  # fmt: skip
    time_limit: float = parameter(0.0, "the recording ends after this time, 0 = never", unit="s", low=0.0)
    keep_last: float = parameter(
        0.0, "instead of recording, keep this much in memory (at most buffer_size), and write it after a failure or "
             "a call of ~/keep; 0 = record", unit="s", low=0.0, high=3600.0,
    )  # fmt: skip
    flush_period: float = parameter(1.0, "everything older than this survives a crash", unit="s", low=0.01, high=60.0)


class RecorderNode(ManagedNode):
    """See the module and `RecorderParameters`."""

    def __init__(self, name: str = "recorder_node", **options: Any) -> None:
        self.recording: Recording | None = None
        self._keeper: Keeper | None = None
        self._followed: dict[str, Followed] = {}  # by topic
        super().__init__(name, RecorderParameters, **options)

    def configure(self) -> None:
        robot = self.load_robot()
        self.robot_name = robot.name
        self._streams: dict[str, Stream] = {}
        self._unknown = [self.resolve_topic_name(topic) for topic in (*self.parameters.topics, *LATCHED)]
        self._last: dict[str, bytes] = {}  # messages that apply until they are replaced: statuses and the instruction
        self._marks: deque[tuple[int, Outcome]] = deque()
        self._early: list[tuple[str, bytes, int]] = []
        self._lost: Counter[str] = Counter()
        self._said: set[str] = set()
        self._compressors: dict[str, Callable[[bytes], bytes]] = {}
        self._depth = RECORDED_DEPTH if self._sim_time() else QUEUE_DEPTH
        found = [*robot.all_streams.values(), *graph_streams()]
        if self._sim_time() or self.parameters.clock:
            found.append(Stream(CLOCK, CLOCK, CLOCK_TYPE))
        # A best-effort driver would warn of a recorder that asks for more, although that then adapts.
        for stream in found:
            driven = stream.name in robot.all_streams and not stream.name.startswith(COMMAND)
            self._follow(stream, self.parameters.reliable_sensors or not driven)
        if self.parameters.compressed_images:
            for camera in robot.cameras:
                compress = compressor(camera, self.parameters.image_format, self.parameters.image_quality)
                if compress is not None:
                    self._compressors[self.resolve_topic_name(camera.topic)] = compress
        self.create_steady_timer(LOOK_PERIOD, self._look)
        if keep := self.parameters.keep_last:
            if self.parameters.time_limit:
                raise InputError(f"time_limit {self.parameters.time_limit:g} s: with keep_last {keep:g} s nothing is "
                                 "recorded that could end, expected 0")
            self._keeper = Keeper(self, keep, int(self.parameters.buffer_size * 1e6))

    def activate(self) -> None:
        p = self.parameters
        recording = None if self._keeper else self.open_bag(self.folder())
        self._drain()  # what arrived before is not part of the recording
        self._newest_ns = 0
        self.recording = recording
        if self._keeper:
            self._keeper.start()
        else:
            self.get_logger().info(f"recording to {recording.writer.path}")
        self._end = time.monotonic() + p.time_limit if p.time_limit else math.inf
        for topic, data in self._last.items():
            followed = self._followed[topic]
            if followed.latched and self.count_publishers(topic) > 1:
                followed.again()  # one message of each, as a late subscriber gets them
            else:
                self._store(topic, data, 0)
                self.heard(self._streams[topic].name, data)

    def folder(self) -> Path:
        """The folder of a bag that begins now."""
        return Path(time.strftime(self.parameters.output or f"{self.robot_name}_%Y-%m-%d_%H-%M-%S")).expanduser()

    def open_bag(self, folder: Path, more_bytes: int = 0) -> Recording:
        """A new bag. `more_bytes`: size of what will be written at once. Raises InputError."""
        p = self.parameters
        if full := self._is_full(next(parent for parent in folder.absolute().parents if parent.is_dir())):
            raise InputError(full)
        writer = BagWriter(
            folder,
            compression=p.compression,
            max_file_bytes=int(p.max_file_size * 1e6),
            max_file_seconds=p.max_file_duration,
        )
        return Recording(
            writer,
            buffer_bytes=int(p.buffer_size * 1e6) + more_bytes,
            flush_period=p.flush_period,
            on_problem=lambda text: self.get_logger().error(text),
        )

    def deactivate(self) -> None:
        if not self._storing:
            return
        self._drain()
        self._store_marks()
        if self._keeper and self._keeper.active:
            self._keeper.stop()
        if self.recording is None:
            return
        self._store_early()  # if simulated time never arrived
        recording, self.recording = self.recording, None
        custom = {"vla_ros.robot": self.robot_name}
        custom |= {LOST_PREFIX + topic: str(count) for topic, count in sorted(self._lost.items())}
        recording.close(custom)
        lost = "".join(f", {count} of {topic} lost on the way" for topic, count in sorted(self._lost.items()))
        self.get_logger().info(f"recorded {recording.report()}{lost}")
        self._lost.clear()

    def release(self) -> None:
        for followed in self._followed.values():
            followed.destroy()
        self._followed, self._keeper = {}, None

    def failed(self, reason: str) -> None:
        """The recording cannot continue, and the reason is logged. Become inactive."""
        self.trigger_deactivate()

    def mark(
        self, outcome: int, by: str = "operator", message: str = "", instruction: str = "", at_ns: int = 0
    ) -> None:
        """Record an outcome, a constant of Outcome, for the last instruction. From any thread.

        `message`: why. `instruction`, `at_ns`: for the last instruction with that text, given until that ROS time.
        """
        said = Outcome(outcome=outcome, by=by, message=message, instruction=instruction)
        self._marks.append(set_stamp(said, at_ns or self.now_ns()))

    def _store_marks(self) -> None:
        while self._marks:
            self._take(self.resolve_topic_name(OUTCOME), serialize_message(self._marks.popleft()), 0)

    def heard(self, name: str, data: bytes) -> None:
        """A message of the stream `name` was recorded, or kept."""
        if self._keeper:
            self._keeper.heard(name, data)

    # Subscriptions

    def _sim_time(self) -> bool:
        return bool(self.get_parameter("use_sim_time").value)

    def _follow(self, stream: Stream, reliable: bool = True) -> None:
        """Raises InputError for a type that is not installed."""
        topic = self.resolve_topic_name(stream.topic)
        if topic in self._streams:  # two streams may read one topic
            return

        def take(data: bytes, source_ns: int) -> None:
            self._take(topic, data, source_ns)

        def lost(count: int) -> None:
            self._lost[topic] += count

        kind = message_class(stream.type)
        self._streams[topic] = stream
        self._followed[topic] = Followed(self, topic, kind, self._depth, stream.once, take, lost, reliable)

    def _look(self) -> None:
        """Follow the publishers' QoS, look up the types of further topics, and check the writer and the disk."""
        self._store_marks()
        for topic, followed in self._followed.items():
            offers = self.get_publishers_info_by_topic(topic)
            self._check_types(topic, offers)
            followed.look(offers)
        if self._unknown:
            types = dict(self.get_topic_names_and_types())
            for topic in [topic for topic in self._unknown if topic in types]:
                self._unknown.remove(topic)
                offers = self.get_publishers_info_by_topic(topic)
                latched = all(o.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offers)
                try:
                    # max_age None: subscribed transient local at once; its publishers may be gone before the next look
                    reliable = all(o.qos_profile.reliability == ReliabilityPolicy.RELIABLE for o in offers)
                    self._follow(Stream(topic, topic, types[topic][0], max_age=None if latched else 0.5), reliable)
                except InputError as error:
                    self.get_logger().error(f"topic {topic}: not recorded: {with_section(error)}")
        recording = self.recording
        if self._keeper and self._keeper.active:
            try:
                self._keeper.look()
            except InputError as error:
                self.get_logger().error(f"the last seconds are not written: {error}")
        elif recording is not None and recording.error is not None:
            self.failed(recording.explain())
        elif recording is not None and (full := self._is_full(recording.writer.path)):
            reason = f"{full}: the recording ends, the bag is complete; the robot continues"
            self.get_logger().error(reason)
            self.failed(reason)
        elif recording is not None and time.monotonic() >= self._end:
            self.get_logger().info(f"time_limit: {self.parameters.time_limit:g} s are recorded")
            self.trigger_deactivate()

    def _is_full(self, path: Path) -> str:
        """What is wrong if less than `min_free_disk` is free on the disk of `path`; else ""."""
        try:
            free, least = shutil.disk_usage(path).free / 1e6, self.parameters.min_free_disk
        except OSError as error:  # the folder does not exist any more: the writer reports it
            self.get_logger().error(f"{path}: {error.strerror}", once=True)
            return ""
        if free >= least:
            return ""
        return f"{free:.0f} MB are free on the disk of {path}, less than min_free_disk ({least:g} MB)"

    def _check_types(self, topic: str, offers: list[Any]) -> None:
        wanted = self._streams[topic].type
        for offer in offers:
            if offer.topic_type != wanted and (problem := f"{topic}{offer.topic_type}") not in self._said:
                self._said.add(problem)
                self.get_logger().error(
                    f"topic {topic}: {offer.node_name} publishes {offer.topic_type}, expected {wanted}: not recorded"
                )

    # Messages

    def _take(self, topic: str, data: bytes, source_ns: int) -> None:
        if self._lasts(topic):
            self._last[topic] = data
        if self._storing:
            self._store(topic, data, source_ns)
            self.heard(self._streams[topic].name, data)

    @property
    def _storing(self) -> bool:
        return self.recording is not None or (self._keeper is not None and self._keeper.active)

    def _lasts(self, topic: str) -> bool:
        """Whether a message applies until it is replaced."""
        stream = self._streams[topic]
        return self._followed[topic].latched or stream.once or stream.name == INSTRUCTION

    def _drain(self) -> None:
        """Take the messages that wait in the queue: they belong to the time before the transition."""
        for followed in self._followed.values():
            followed.drain()

    def _store(self, topic: str, data: bytes, source_ns: int) -> None:
        if self.now_ns() == 0 and len(self._early) < EARLY_LIMIT:
            self._early.append((topic, data, source_ns))
            return
        self._store_early()
        self._put(topic, data, source_ns)

    def _store_early(self) -> None:
        early, self._early = self._early, []
        for item in early:
            self._put(*item)

    def _put(self, topic: str, data: bytes, source_ns: int) -> None:
        # If the clock jumps back, the bag's order must still be the order of arrival.
        self._newest_ns = now = max(self.now_ns(), self._newest_ns)
        item = Item(topic, now, data, source_ns or now)
        if self._keeper:
            self._keeper.put(item, self._lasts(topic))
        else:
            self.record(self.recording, item)

    def record(self, recording: Recording, item: Item) -> None:
        """Queue a message of a topic that is followed."""
        topic = item.topic
        compress = self._compressors.get(topic)
        stored = topic + SUFFIX if compress else topic
        if stored not in recording.writer.topics:
            offers = self.get_publishers_info_by_topic(topic)
            recording.add_topic(
                stored,
                COMPRESSED_IMAGE if compress else self._streams[topic].type,
                [_qos_mapping(offer.qos_profile) for offer in offers],
                compress,
                (topic, IMAGE) if compress else None,
            )
        recording.put(stored, item.log_ns, item.data, item.publish_ns)


def _qos_mapping(qos: QoSProfile) -> dict[str, Any]:
    """A profile as rosbag2's metadata writes it."""

    def span(duration: Any) -> dict[str, int]:
        seconds, nanoseconds = divmod(duration.nanoseconds, 1_000_000_000)
        return {"sec": seconds, "nsec": nanoseconds}

    return {
        "history": qos.history.name.lower(),
        "depth": qos.depth,
        "reliability": qos.reliability.name.lower(),
        "durability": qos.durability.name.lower(),
        "deadline": span(qos.deadline),
        "lifespan": span(qos.lifespan),
        "liveliness": qos.liveliness.name.lower(),
        "liveliness_lease_duration": span(qos.liveliness_lease_duration),
        "avoid_ros_namespace_conventions": qos.avoid_ros_namespace_conventions,
    }


def main(args: list[str] | None = None) -> int:
    return spin_node(RecorderNode, args)


if __name__ == "__main__":
    sys.exit(main())
