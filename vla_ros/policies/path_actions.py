"""Actions that are a path of the base, made of the velocities that datasets hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.core.chunk import PATH, Part, Space, Targets
from vla_ros.core.errors import InputError
from vla_ros.policies.dimension import Dimension

_MOST = 1.5  # rad that half a row turns at most, as the executor follows a path


@dataclass(frozen=True)
class PathActions:
    """Which of the policy's action dimensions are the path of a base: x, y and yaw of `core.chunk.PATH`, m and rad
    except for `scale` and `offset` of the dimensions.

    Attributes:
        joints: "x", "y", "yaw" -> velocity of the base in the robot file; without y where it cannot drive sideways.
        first: index, from 0, of the first of the three dimensions in `actions`, which has `joint: null` for all of
            them; the velocities are among the joints that are held.
    """

    joints: dict[str, str]
    first: int = 0

    def __post_init__(self) -> None:
        if not {"x", "yaw"} <= self.joints.keys() <= set(PATH):
            raise InputError(f"path: velocities of {sorted(self.joints)}, expected those of x and yaw, perhaps of y")

    @property
    def columns(self) -> range:
        return range(self.first, self.first + len(PATH))

    def check(self, hold: Sequence[str]) -> None:
        """Raises InputError unless its velocities are held."""
        if free := [name for name in self.joints.values() if name not in hold]:
            raise InputError(f"path: {free} not in `hold`, expected all velocities that the path stands for")

    def part(self, rows: np.ndarray, actions: Sequence[Dimension]) -> Part:
        """The path of (H, A) actions in the policy's units, which `actions` say."""
        return Part(PATH, self._values(rows, actions), Space.BASE_PATH)

    def to_policy(
        self, targets: np.ndarray, joints: Sequence[str], actions: Sequence[Dimension], step_dt: float
    ) -> np.ndarray:
        """(..., H, J) joint targets to the path (..., H, 3) in the policy's units."""
        values = np.zeros((*targets.shape[:-1], len(PATH)))
        for axis, name in self.joints.items():
            values[..., PATH.index(axis)] = targets[..., list(joints).index(name)]
        way = driven(values, step_dt)
        return np.stack([actions[i].to_policy(way[..., k]) for k, i in enumerate(self.columns)], axis=-1)

    def to_robot(self, rows: np.ndarray, actions: Sequence[Dimension], step_dt: float) -> Mapping[str, np.ndarray]:
        """(..., H, A) actions in the policy's units to the velocities (..., H) of each row."""
        values = driving(self._values(rows, actions), step_dt)
        return {name: values[..., PATH.index(axis)] for axis, name in self.joints.items()}

    def _values(self, rows: np.ndarray, actions: Sequence[Dimension]) -> np.ndarray:
        """(..., A) to (..., 3), m and rad."""
        return np.stack([actions[i].to_robot(rows[..., i]) for i in self.columns], axis=-1)


def as_velocities(targets: Targets, axes: Mapping[str, str], step_dt: float) -> Targets:
    """The same with the velocities that drive it in the place of a path; `axes`: those of `PathActions.joints`."""
    if (part := targets.path) is None:
        return targets
    values = driving(part.data[:, [part.names.index(name) for name in PATH]], step_dt)
    speeds = Part(tuple(axes.values()), values[:, [PATH.index(axis) for axis in axes]])
    return Targets(tuple(speeds if one is part else one for one in targets.parts))


def driven(velocities: np.ndarray, step_dt: float) -> np.ndarray:
    """(..., H, 3) velocities along and about the base's own axes, each for `step_dt`, to where it is after each of
    them, seen from where it was before the first: arcs, of which `driving` is the inverse."""
    turns = velocities[..., 2] * step_dt
    yaw = np.cumsum(turns, axis=-1)
    middle, chord = yaw - turns / 2, step_dt * np.sinc(turns / 2 / np.pi)
    x, y = velocities[..., 0] * chord, velocities[..., 1] * chord
    cos, sin = np.cos(middle), np.sin(middle)
    return np.stack([np.cumsum(cos * x - sin * y, axis=-1), np.cumsum(sin * x + cos * y, axis=-1), yaw], axis=-1)


def driving(way: np.ndarray, step_dt: float) -> np.ndarray:
    """(..., H, 3) a path to the velocities, of which each leads to its row from the one before in `step_dt`."""
    steps = np.diff(way, axis=-2, prepend=np.zeros_like(way[..., :1, :]))
    turns = steps[..., 2]
    middle, chord = way[..., 2] - turns / 2, step_dt * np.sinc(np.clip(turns / 2, -_MOST, _MOST) / np.pi)
    cos, sin = np.cos(middle), np.sin(middle)
    x, y = cos * steps[..., 0] + sin * steps[..., 1], cos * steps[..., 1] - sin * steps[..., 0]
    return np.stack([x / chord, y / chord, turns / step_dt], axis=-1)
