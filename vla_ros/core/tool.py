"""The tool that end-effector actions move, and the names of a pose's columns in a chunk and in a dataset."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.core.chunk import Part
from vla_ros.core.rotations import SIZES, to_matrix

Triple = tuple[float, float, float]
POSITION = ("x", "y", "z")
# Of a tool that is commanded in place of joints: its position, and its rotation from how it was first measured.
TOOL_COLUMNS = (*POSITION, "turned_x", "turned_y", "turned_z")


@dataclass(frozen=True)
class Tool:
    """A link of the robot's URDF, with the limits of its position and speed.

    Attributes:
        link: link of the URDF whose frame is the tool's.
        frame: link of the URDF in whose frame poses are given; it must be between the URDF's root and the tool.
        lower, upper: x, y and z of the two corners of the box that the tool's target must be in, m, in `frame`.
        velocity, acceleration: limits of the tool's target, m/s and m/s².
        rotation_velocity, rotation_acceleration: limits of its rotation, rad/s and rad/s².
        pose_topic: topic of the tool's measured pose in `frame` (geometry_msgs/PoseStamped), for an arm whose tool is
            commanded; empty: the pose is computed from the joint states with the URDF.
    """

    link: str
    frame: str
    lower: Triple
    upper: Triple
    velocity: float
    acceleration: float
    rotation_velocity: float
    rotation_acceleration: float
    pose_topic: str = ""

    def faults(self) -> Iterator[tuple[bool, str]]:
        """Pairs of (whether this fault is present, its description)."""
        for name in ("link", "frame"):
            yield not getattr(self, name), f"{name}: empty, expected a link of the URDF"
        yield self.link == self.frame, f"frame {self.frame!r} is the link, expected one that carries it"
        for axis, low, high in zip(POSITION, self.lower, self.upper, strict=True):
            yield not low < high, f"lower {low} m, expected less than upper {high} m along {axis}"
        for name in ("velocity", "acceleration", "rotation_velocity", "rotation_acceleration"):
            value = getattr(self, name)
            yield not 0 < value < np.inf, f"{name} {value}, expected a positive number"


def pose_names(form: str) -> tuple[str, ...]:
    """Names of a pose's columns: x, y, z, then the numbers of the rotation's form as FORM[0], FORM[1], ..."""
    return (*POSITION, *(f"{form}[{i}]" for i in range(SIZES[form])))


def rotation_form(names: Sequence[str]) -> str:
    """The form of the rotation in a pose with these columns, in any order; "" if they are not those of a pose."""
    return next((form for form in SIZES if sorted(names) == sorted(pose_names(form))), "")


def places(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """(H, 3) positions, m, and (H, 3, 3) rotations of a part whose columns are a pose. Raises InputError if they are no
    rotations.
    """
    form = rotation_form(part.names)
    values = part.data[:, [part.names.index(name) for name in pose_names(form)]]
    return values[:, :3], to_matrix(values[:, 3:], form)


@dataclass(frozen=True)
class ToolColumns:
    """Actions of a dataset that are poses of a tool: x, y, z, then the rotation, m and rad; and targets of `joints`.

    Attributes:
        rotation: form of the rotation, of `core.rotations`.
        frame: link of the robot's URDF in whose frame they are.
        link: of the URDF, the tool.
        joints: commanded together with it; they do not move it.
    """

    rotation: str
    frame: str
    link: str
    joints: tuple[str, ...]

    @property
    def pose(self) -> tuple[str, ...]:
        """Names of the pose's columns, which come first."""
        return pose_names(self.rotation)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.pose, *self.joints)
