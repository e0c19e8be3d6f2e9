"""The robot file: one description read by recording, training, serving and simulation alike."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vla_ros.core.errors import InputError

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
        """Raises InputError that names the file, the field, the value and what was expected."""
        path = Path(path)
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"robot file {path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise InputError(f"robot file {path}: not YAML: {error}") from error
        try:
            return cls.from_dict(data)
        except InputError as error:
            raise InputError(f"robot file {path}: {error}") from None

    @classmethod
    def from_dict(cls, data: Any) -> "RobotSpec":
        """Build from the parsed YAML. Raises InputError."""
        if not isinstance(data, dict):
            raise InputError(f"expected a mapping at the top, got {type(data).__name__}")
        data = dict(data)
        lists = {}
        for key, kind in (("cameras", Camera), ("joints", Joint), ("groups", CommandGroup)):
            rows = data.pop(key, None)
            if not isinstance(rows, list) or not (rows or key == "cameras"):
                raise InputError(f"{key}: expected a list, got {rows!r}")
            lists[key] = tuple(_record(kind, row, f"{key}[{i}]") for i, row in enumerate(rows))
        robot = _record(cls, data | lists, "robot")
        robot._check()
        return robot

    def _check(self) -> None:
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


def _record(kind: type, row: Any, where: str) -> Any:
    """A dataclass from a mapping; unknown, missing and mistyped fields are errors that name them."""
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a mapping, got {row!r}")
    known = {field.name: field for field in fields(kind)}
    for key in row:
        if key not in known:
            raise InputError(f"{where}: unknown field {key!r}, expected some of {sorted(known)}")
    values = {}
    for name, value in row.items():
        wanted = known[name].type
        if wanted in (float, "float", float | None) and isinstance(value, (int, float)) and not isinstance(value, bool):
            value = float(value)
            if not np.isfinite(value):
                raise InputError(f"{where}.{name}: {value}, expected a finite number")
        elif wanted in (tuple[str, ...],) and isinstance(value, list):
            value = tuple(str(v) for v in value)
        elif wanted in (float, int, str, bool) and type(value) is not wanted:
            raise InputError(f"{where}.{name}: {value!r}, expected a {wanted.__name__}")
        elif wanted == float | None and value is not None:
            raise InputError(f"{where}.{name}: {value!r}, expected a number or null")
        values[name] = value
    try:
        return kind(**values)
    except TypeError:
        missing = [
            name for name, field in known.items()
            if name not in values and field.default is field.default_factory  # both are MISSING: required
        ]
        raise InputError(f"{where}: missing {missing}") from None
