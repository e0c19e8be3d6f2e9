"""The robot file: the description that recording, training, serving and simulation read."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.core.chunk import PATH
from vla_ros.core.command_group import INTERFACES, OF_BASE, OF_TOOL, CommandGroup
from vla_ros.core.errors import InputError, shown
from vla_ros.core.joint import AXES, Joint
from vla_ros.core.records import Pixels, read_mapping, record
from vla_ros.core.resources import resolve_robot
from vla_ros.core.stream import (
    COMMAND,
    COMPRESSED_IMAGE,
    IMAGE,
    JOINT_STATE,
    JOINT_STATES,
    ODOMETRY,
    STAMPS,
    BaseState,
    Stream,
)  # fmt: skip
from vla_ros.core.tool import TOOL_COLUMNS, Tool

WIDEST = 7.0  # rad or m: no joint's data are further from zero, while data in degrees or percent are
ENCODINGS = (
    *(f"{colour}{bits}" for bits in (8, 16) for colour in ("rgb", "bgr", "rgba", "bgra", "mono")), "16UC1", "32FC1",
    "yuyv", "yuv422_yuy2", "uyvy", "yuv422", "nv12", "nv21", "nv24",
    *(f"bayer_{pattern}{bits}" for bits in (8, 16) for pattern in ("rggb", "bggr", "gbrg", "grbg")),
)  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """A camera stream. `compressed` says that the topic carries sensor_msgs/CompressedImage."""

    name: str  # the name of the camera in policies and datasets
    topic: str  # topic of its images
    width: Pixels  # pixels, nominal: the size that an image's message gives applies
    height: Pixels  # the same
    encoding: str = "rgb8"  # one of ENCODINGS; nominal: the encoding that an image's message gives applies
    compressed: bool = False  # the topic carries sensor_msgs/CompressedImage, not sensor_msgs/Image
    rate: float = 30.0  # Hz, nominal
    stamps: str = "header"  # or "arrival": use the time of arrival, because the camera has another clock


@dataclass(frozen=True)
class RobotSpec:
    """A robot. `load` reads it from a robot file such as `config/robots/NAME.yaml`.

    The state contains the joints of all joint-state topics; `streams` are further sensors.
    """

    name: str  # stored with recordings and datasets
    cameras: tuple[Camera, ...]  # may be empty
    joints: tuple[Joint, ...]  # their order is that of states and actions
    groups: tuple[CommandGroup, ...]  # which joints are commanded on which topic or action
    joint_state_topic: str | tuple[str, ...] = "joint_states"  # one topic or several, sensor_msgs/JointState
    joint_prefix: str | tuple[str, ...] = ""  # as `prefix` of a command group: one for all topics, or one for each
    streams: tuple[Stream, ...] = ()  # further sensors
    control_rate: float = 100.0  # rate of the commands, Hz
    position_margin: float = 0.0  # rad, for every joint in rad that has no `margin`
    tool: Tool | None = None  # what end-effector actions move; None: they are refused

    def margin(self, joint: Joint) -> float:
        """rad or m kept free at both ends of the joint's range."""
        if joint.margin is not None:
            return joint.margin
        return self.position_margin if joint.unit == "rad" else 0.0

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @property
    def tool_group(self) -> CommandGroup | None:
        """The group that is commanded by the tool's pose or twist, or None."""
        return next((group for group in self.groups if group.of_tool), None)

    @property
    def base_groups(self) -> tuple[CommandGroup, ...]:
        """The groups that drive a base."""
        return tuple(group for group in self.groups if group.of_base)

    @property
    def base_axes(self) -> dict[str, str]:
        """Velocity of a base -> its axis."""
        return {name: axis for group in self.base_groups for name, axis in zip(group.joints, group.axes, strict=True)}

    @property
    def path_axes(self) -> dict[str, str] | None:
        """Axis -> velocity of the base that follows paths; None if no base drives and turns, in the plane alone."""
        found = [dict(zip(group.axes, group.joints, strict=True)) for group in self.base_groups]
        return found[0] if len(found) == 1 and {"x", "yaw"} <= found[0].keys() <= set(PATH) else None

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    @property
    def joint_state_topics(self) -> tuple[str, ...]:
        topics = self.joint_state_topic
        return (topics,) if isinstance(topics, str) else topics

    @property
    def joint_prefixes(self) -> tuple[str, ...]:
        """One for each of `joint_state_topics`; the same for all of them if the file has one text."""
        prefixes = self.joint_prefix
        return (prefixes,) * len(self.joint_state_topics) if isinstance(prefixes, str) else prefixes

    @cached_property
    def all_streams(self) -> dict[str, Stream]:
        """Name -> stream: cameras, joint states ("joint_states", of several topics and of odometry
        "joint_states/TOPIC"), further sensors, commands ("command/GROUP")."""
        topics = self.joint_state_topics
        cameras = [
            Stream(c.name, c.topic, COMPRESSED_IMAGE if c.compressed else IMAGE, shape=(c.height, c.width, 3),
                   dtype="uint8", paces=True, stamps=c.stamps) for c in self.cameras
        ]  # fmt: skip
        states = [
            Stream(JOINT_STATES if len(topics) == 1 else f"{JOINT_STATES}/{topic}", topic, JOINT_STATE,
                   prefix=prefix)
            for topic, prefix in zip(topics, self.joint_prefixes, strict=True)
            if not all(joint.is_velocity for joint in self.joints)
        ]
        states += [
            BaseState(f"{JOINT_STATES}/{group.odometry}", group.odometry, ODOMETRY,
                      axes=tuple(zip(group.joints, group.axes, strict=True)))
            for group in self.base_groups
        ]
        commands = [
            Stream(COMMAND + group.name, group.topic, INTERFACES[group.interface], shape=(len(group.joints),))
            for group in self.groups
        ]
        return {stream.name: stream for stream in (*cameras, *states, *self.streams, *commands)}

    @property
    def state_streams(self) -> tuple[str, ...]:
        return tuple(name for name, stream in self.all_streams.items() if stream.is_state)

    @property
    def measured_streams(self) -> list[Stream]:
        """The streams that measure where the robot is: joint states, and the tool's pose if a driver publishes it."""
        topic = self.tool.pose_topic if self.tool else ""
        posed = [Stream("tool", topic, "geometry_msgs/msg/PoseStamped")] if topic else []
        return [*map(self.stream, self.state_streams), *posed]

    def stream(self, name: str) -> Stream:
        """Raises InputError for a stream that the robot file does not have."""
        if name not in self.all_streams:
            raise InputError(f"robot {self.name}: no stream {name!r}, expected one of {sorted(self.all_streams)}")
        return self.all_streams[name]

    def chosen_with(self, names: Collection[str]) -> tuple[Stream, ...]:
        """The streams `names` ("joint_states" means all topics) and those that are chosen together with them."""
        wanted = {n for name in names for n in (self.state_streams if name == JOINT_STATES else [name])}
        leaders = {self.stream(name).with_ or name for name in wanted}
        wanted |= {n for n, stream in self.all_streams.items() if n in leaders or (stream.with_ in leaders)}
        return tuple(stream for name, stream in self.all_streams.items() if name in wanted)

    @property
    def discrete(self) -> np.ndarray:
        """(J,) bool."""
        return np.array([joint.discrete for joint in self.joints], dtype=bool)

    @cached_property
    def velocities(self) -> np.ndarray:
        """(J,) bool, whether it is a velocity of a base."""
        return np.array([joint.is_velocity for joint in self.joints], dtype=bool)

    @classmethod
    def load(cls, path: str | Path) -> "RobotSpec":
        """From a robot file, or the name of one in `config/robots`.

        Raises InputError that names the file, the field, the value and what was expected.
        """
        path = resolve_robot(path)
        data = read_mapping(path, "robot file")
        try:
            return cls.from_dict(data)
        except InputError as error:
            raise InputError(f"robot file {path}: {error}") from None

    @classmethod
    def from_dict(cls, data: Any) -> "RobotSpec":
        """Build from the parsed YAML. Raises InputError."""
        robot = record(cls, data)
        for bad, said in robot._faults():
            if bad:
                raise InputError(said)
        return robot

    def _tool_group_faults(self) -> Iterator[tuple[bool, str]]:
        found = [group for group in self.groups if group.of_tool]
        for group in found:
            what = f"group {group.name}: interface {group.interface}"
            yield self.tool is None, f"{what}, and the robot file has no `tool`; expected one"
            yield len(group.joints) < 6, (
                f"{what} with {len(group.joints)} joints, expected six or more: fewer do not follow every pose; "
                "command them by an interface for joints, the executor then solves what they can do"
            )
            taken = [name for name in TOOL_COLUMNS if name in self.joint_names]
            yield bool(taken), f"{what}, and joints {taken}, expected other names: they are the tool's"
            discrete = [joint.name for joint in self.joints if joint.discrete and joint.name in group.joints]
            yield bool(discrete), f"{what} with discrete joints {discrete}, expected them in a group of their own"
        topic = self.tool.pose_topic if self.tool else ""
        yield bool(topic) and not found, (
            f"tool: pose_topic {topic!r}, and no command group of {' or '.join(OF_TOOL)}: joint states say where it is"
        )
        others = [("commands", [group.topic for group in self.groups]), ("joint states", self.joint_state_topics),
                  ("cameras", [camera.topic for camera in self.cameras]),
                  ("streams of another type",  # of its own type it is the measured pose, which a policy may observe
                   [stream.topic for stream in self.streams if stream.type != "geometry_msgs/msg/PoseStamped"])]
        for what, topics in others:
            yield bool(topic) and topic in topics, (
                f"tool: pose_topic {topic!r} is a topic of {what} too, expected that of the measured pose alone"
            )
        yield len(found) > 1, (
            f"groups {[group.name for group in found]} are commanded by poses or twists of the tool, expected one"
        )

    def _base_faults(self) -> Iterator[tuple[bool, str]]:
        units = {joint.name: joint.unit for joint in self.joints}
        topics = [group.odometry for group in self.base_groups]
        for group in self.groups:
            moving = [name for name in group.joints if units[name] in AXES.values()]
            yield bool(moving) and not group.of_base, (
                f"group {group.name}: {moving} are velocities, expected positions with interface {group.interface}, or "
                f"one of {OF_BASE}"
            )
            for name, axis in zip(group.joints, group.axes, strict=False):
                yield units[name] != AXES[axis], (
                    f"group {group.name}: joint {name} in {units[name]} is its {axis}, expected {AXES[axis]}"
                )
        others = [*self.joint_state_topics, *(group.topic for group in self.groups)]
        for topic in topics:
            yield topic in others or topics.count(topic) > 1, (
                f"odometry {topic!r} is also the name of another topic, expected its own"
            )

    def _faults(self) -> Iterator[tuple[bool, str]]:
        """Pairs of (whether this fault is present, its description)."""
        yield not (re.fullmatch(r"(?![.-])[^/\\%]+", self.name) and self.name.isprintable()), (
            f"name {shown(self.name)}, expected one for files: printable, without / \\ %, no . or - at the beginning"
        )
        for what, names in (
            ("camera", self.camera_names),
            ("joint", self.joint_names),
            ("command group", tuple(group.name for group in self.groups)),
            ("command topic", tuple(group.topic for group in self.groups)),
            ("topic of joint states", self.joint_state_topics),
            ("stream", (*self.camera_names, *(name for stream in self.streams for name in stream.readings))),
        ):
            yield from ((names.count(name) > 1, f"{what} {name!r} is duplicated, expected once") for name in names)
        for group in self.groups:
            yield group.topic in self.joint_state_topics, (
                f"command group {group.name!r}: topic {group.topic!r} is one of joint states too: what was commanded "
                "would count as measured"
            )
            yield from ((bad, f"group {group.name}: {said}") for bad, said in group.faults())
        for name in ("joints", "groups", "joint_state_topics"):
            yield not getattr(self, name), f"{name}: empty, expected at least one"
        yield len(self.joint_prefixes) != len(self.joint_state_topics), (
            f"joint_prefix {self.joint_prefix!r}, expected one for each of {len(self.joint_state_topics)} topics"
        )
        for joint in self.joints:
            yield from ((bad, f"joint {joint.name}: {said}") for bad, said in joint.faults(self.margin(joint)))
        for camera in self.cameras:
            what, encoding = f"camera {camera.name}", camera.encoding
            taken = camera.name in (JOINT_STATES, "state", "instruction") or not camera.name.isprintable()
            yield taken or "/" in camera.name or not camera.name, f"{what}: expected a name without / that is not taken"
            yield encoding not in ENCODINGS, f"{what}: encoding {encoding!r}, expected one of {ENCODINGS}"
            yield camera.stamps not in STAMPS, f"{what}: stamps {camera.stamps!r}, expected one of {STAMPS}"
            yield not 0 < camera.rate <= 10_000, f"{what}: rate {camera.rate} Hz, expected above 0, at most 10000"
        commanded = [name for group in self.groups for name in group.joints]
        yield sorted(commanded) != sorted(self.joint_names), (
            f"groups command {commanded}, expected each of {list(self.joint_names)} exactly once"
        )
        yield from self._base_faults()
        yield not 1 <= self.control_rate <= 1000, f"control_rate {self.control_rate} Hz, expected 1 to 1000"
        yield from ((bad, f"tool: {said}") for bad, said in (self.tool.faults() if self.tool else ()))
        yield from self._tool_group_faults()
        margin = self.position_margin
        yield not 0 <= margin < np.inf, f"position_margin {margin} rad, expected zero or more"
        for stream in self.streams:
            what = f"stream {stream.name}"
            yield from ((bad, f"{what}: {said}") for bad, said in stream.faults())
            leader = self.all_streams.get(stream.with_)
            alone = leader and not (
                leader.with_ or leader.window or leader.once or leader.is_command or leader.is_state
            )
            yield stream.with_ and not alone, (
                f"{what}: with {stream.with_!r}, expected a camera or sensor without `with` and window, and not once"
            )
        kinds: dict[str, Stream] = {}
        for stream in self.all_streams.values():
            other = kinds.setdefault(stream.topic, stream)
            yield other.type != stream.type, (
                f"topic {stream.topic!r}: {other.type} of {other.name} and {stream.type} of {stream.name}, expected "
                "messages of one type"
            )
