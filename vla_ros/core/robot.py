"""The robot file: one description read by recording, training, serving and simulation alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.records import read_mapping, record
from vla_ros.core.resources import resolve_robot

INTERFACES = ("joint_trajectory", "float64_multi_array", "joint_state")
ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "16UC1", "32FC1")


@dataclass(frozen=True)
class Camera:
    """A camera stream. `compressed` says that the topic carries sensor_msgs/CompressedImage."""

    name: str
    topic: str
    width: int
    height: int
    encoding: str = "rgb8"
    compressed: bool = False
    rate: float = 30.0  # Hz, nominal


@dataclass(frozen=True)
class Joint:
    """A joint and its limits: position in `unit` (rad or m), velocity in unit/s, acceleration in unit/s²."""

    name: str
    lower: float
    upper: float
    velocity: float
    acceleration: float
    unit: str = "rad"
    jerk: float | None = None  # unit/s³, not limited when None
    discrete: bool = False  # takes the newest value instead of an average (a gripper)


@dataclass(frozen=True)
class CommandGroup:
    """Joints that are commanded through one topic."""

    name: str
    topic: str
    interface: str  # one of INTERFACES
    joints: tuple[str, ...]


@dataclass(frozen=True)
class RobotSpec:
    """A robot, as every part of vla_ros sees it. `load` reads it from `config/robots/NAME.yaml`."""

    name: str
    cameras: tuple[Camera, ...]
    joints: tuple[Joint, ...]
    groups: tuple[CommandGroup, ...]
    joint_state_topic: str = "joint_states"
    control_rate: float = 100.0  # Hz
    position_margin: float = 0.0  # rad or m kept free at both ends of every joint's range

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    @property
    def discrete(self) -> np.ndarray:
        """(J,) bool."""
        return np.array([joint.discrete for joint in self.joints], dtype=bool)

    def camera(self, name: str) -> Camera:
        """Raises KeyError for a camera that the robot file does not have."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise KeyError(name)

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
        robot._check()
        return robot

    def _check(self) -> None:
        for name in ("joints", "groups"):
            if not getattr(self, name):
                raise InputError(f"{name}: empty, expected at least one")
        for what, names in (
            ("camera", self.camera_names),
            ("joint", self.joint_names),
            ("command group", tuple(group.name for group in self.groups)),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise InputError(f"{what} {name!r} stands there {names.count(name)} times, expected once")
        for joint in self.joints:
            if joint.unit not in ("rad", "m"):
                raise InputError(f"joint {joint.name}: unit {joint.unit!r}, expected rad or m")
            if not joint.lower + 2 * self.position_margin < joint.upper:
                raise InputError(
                    f"joint {joint.name}: lower {joint.lower} must lie below upper {joint.upper} "
                    f"by more than twice the position_margin {self.position_margin}"
                )
            for field in ("velocity", "acceleration", "jerk"):
                value = getattr(joint, field)
                if value is not None and not 0 < value < np.inf:
                    raise InputError(f"joint {joint.name}: {field} {value}, expected a positive number")
        for camera in self.cameras:
            if camera.encoding not in ENCODINGS:
                raise InputError(f"camera {camera.name}: encoding {camera.encoding!r}, expected one of {ENCODINGS}")
            if camera.width <= 0 or camera.height <= 0:
                raise InputError(f"camera {camera.name}: {camera.width}x{camera.height}, expected positive")
        for group in self.groups:
            if group.interface not in INTERFACES:
                raise InputError(
                    f"group {group.name}: interface {group.interface!r}, expected one of {INTERFACES}"
                )
        commanded = [name for group in self.groups for name in group.joints]
        if sorted(commanded) != sorted(self.joint_names):
            raise InputError(f"groups command {commanded}, expected each of {list(self.joint_names)} exactly once")
        if not 1 <= self.control_rate <= 1000:
            raise InputError(f"control_rate {self.control_rate} Hz, expected 1 to 1000")
        if not 0 <= self.position_margin < np.inf:
            raise InputError(f"position_margin {self.position_margin}, expected zero or more")
