"""States and actions in groups (an arm, a gripper, a hand), each with its own normalisation.

Sources: the Isaac GR00T code, `state_action.py` of N1 and N1.5, `state_action_processor.py` of N1.6 and N1.7.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.records import Range, value_of
from vla_ros.core.rotations import SIZES, check_form, from_matrix, to_matrix
from vla_ros.policies.dimension import Dimension

SIX = "rotation_6d_rows"
# mode: the statistics that it needs
MODES = {
    "identity": (), "sin_cos": (), "binary": (), "min_max": ("min", "max"), "percentiles": ("q01", "q99"),
    "q99": ("q01", "q99"), "scale": ("min", "max"), "mean_std": ("mean", "std"), "mean_std_passed": ("mean", "std"),
}
# Isaac's name of a rotation: our form.
ROTATIONS = {"axis_angle": "vector", "quaternion": "quaternion_wxyz", "rotation_6d": SIX, "matrix": "matrix",
             **{f"euler_angles_{order}": "euler_" + order.translate(str.maketrans("rpy", "xyz"))
                for order in ("rpy", "ryp", "pry", "pyr", "yrp", "ypr")}}
POSES = {"pose": SIX, "pose_vector": "vector"}  # kind of a pose: form of its rotation
RELATIVE = ("", "joints", *POSES)


@dataclass(frozen=True)
class Group:
    """Consecutive numbers of a state or an action.

    Attributes:
        size: how many numbers it has on the robot's side.
        mode: "min_max" and "percentiles" map their bounds to ± 1 and a constant number to 0; "q99" maps like
            "percentiles" and clips, but does not change a constant number; "mean_std" has unit deviation, does not
            change a constant number and restores it as the mean; with "mean_std_passed" (N1.6, N1.7) restoring does not
            change it either; "scale" divides by the largest magnitude; "binary" is 0 or 1; "sin_cos" gives sines, then
            cosines, of angles in rad.
        clip, clip_back: numbers are limited to ± 1 after normalising, and before restoring.
        rotation: form of the rotation that the numbers represent (see `core.rotations`); "": not a rotation.
        seen: form in which the network sees the rotation; "": unchanged. If it is another form, the bounds of "min_max"
            are those of that form, whatever the data's are.
        relative: of actions, relative to the newest state of the group `reference`: "joints" are differences from it, a
            pose is expressed in its frame: "pose" is position and six numbers (the first two rows of the rotation),
            "pose_vector" is position and axis times angle.
        rows: number of rows of a chunk with their own statistics; 0: the same for all.
        difference: actions that are differences in the data already; the embodiment's mode says from what.
    """

    name: str
    size: Annotated[int, Range(1, 1000)]
    mode: str = "min_max"
    clip: bool = False
    clip_back: bool = False
    rotation: str = ""
    relative: str = ""
    reference: str = ""
    rows: Annotated[int, Range(0, 10_000)] = 0
    difference: bool = False
    seen: str = ""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"group {self.name!r}: mode {self.mode!r}, expected one of {sorted(MODES)}")
        if self.relative not in RELATIVE:
            raise InputError(f"group {self.name!r}: relative {self.relative!r}, expected one of {list(RELATIVE)}")
        for form in filter(None, (self.rotation, self.seen)):
            check_form(form)
        able = ("identity",) if self.difference else ("min_max", "identity")
        if self.seen and (not self.rotation or self.turned and self.mode not in able):
            raise InputError(f"group {self.name!r}: {self.mode} {self.rotation or 'numbers that are no rotation'} as "
                             f"{self.seen}, expected a rotation, and of one in another form mode {' or '.join(able)}"
                             f"{': it is a difference' if self.difference else ''}")
        pose = POSES.get(self.relative, "")
        for what, form, more in (("rotation", self.rotation, 0), ("pose", pose, 3)):
            if form and self.size != SIZES[form] + more:
                raise InputError(f"group {self.name!r}: {self.size} numbers, a {what} as {form} has "
                                 f"{SIZES[form] + more}")

    @property
    def turned(self) -> bool:
        """Whether the network sees the rotation in another form than the robot's side."""
        return bool(self.seen) and self.seen != self.rotation

    @property
    def numbers(self) -> int:
        """How many numbers are normalised."""
        return SIZES[self.seen] if self.turned else self.size

    @property
    def width(self) -> int:
        """How many numbers the network sees."""
        return self.numbers * (2 if self.mode == "sin_cos" else 1)

    @property
    def count(self) -> int:
        """How many numbers each of its statistics has, those of all rows together."""
        return self.numbers * (self.rows or 1)

    def described(self) -> str:
        """For `vla-ros info`."""
        words = [self.mode, self.rotation, f"as {self.seen}" if self.turned else "",
                 "differences" if self.difference else "", f"relative to {self.reference}" if self.relative else ""]
        return " ".join(filter(None, words))

    def normalise(self, x: np.ndarray, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """(..., H, numbers) to (..., H, width) with the statistics (1 or rows, numbers) each."""
        if self.mode == "identity":
            y = x
        elif self.mode == "sin_cos":
            y = np.concatenate([np.sin(x), np.cos(x)], axis=-1)
        elif self.mode == "binary":
            y = (x > 0.5).astype(np.float64)
        else:
            low, high = self._statistics(rows, x.shape[-2])
            if self.mode.startswith("mean_std"):
                y = np.where(high == 0, x, (x - low) / np.where(high == 0, 1, high))
            elif self.mode == "scale":
                most = np.maximum(np.abs(low), np.abs(high))
                y = np.where(most == 0, 0, x / np.where(most == 0, 1, most))
            else:
                constant, width = low == high, np.where(low == high, 1, high - low)
                y = np.where(constant, x if self.mode == "q99" else 0, 2 * (x - low) / width - 1)
        return np.clip(y, -1, 1) if self.clip or self.mode == "q99" else y

    def restore(self, y: np.ndarray, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """The inverse of `normalise`. Raises InputError for a mode that has none."""
        if self.mode in ("sin_cos", "scale"):
            raise InputError(f"group {self.name!r}: mode {self.mode} of an action, expected one with an inverse")
        y = np.clip(y, -1, 1) if self.clip_back else y
        if self.mode == "identity":
            return y
        if self.mode == "binary":
            return (y > 0.5).astype(np.float64)
        low, high = self._statistics(rows, y.shape[-2])
        if self.mode.startswith("mean_std"):
            return np.where((high == 0) & (self.mode == "mean_std_passed"), y, y * high + low)
        return (y + 1) / 2 * (high - low) + low

    def _statistics(self, rows: Mapping[str, np.ndarray], horizon: int) -> tuple[np.ndarray, np.ndarray]:
        low, high = (rows[name] for name in MODES[self.mode])
        return (low[:horizon], high[:horizon]) if self.rows else (low, high)


def to_network(
    groups: Sequence[Group], x: np.ndarray, statistics: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """(..., H, A) numbers of the robot's side, one group after another, to (..., H, width) normalised.

    Args:
        statistics: name -> (sum of `count`,), one group after another.
        reference: for actions, group of the state -> (..., n) its newest numbers.
    """
    parts, rows = [], split_statistics(groups, statistics)
    for group, part, found in zip(groups, _split(x, [g.size for g in groups]), rows, strict=True):
        if group.relative:
            start = reference[group.reference][..., None, :]
            part = part - start if group.relative == "joints" else relative_pose(part, start, POSES[group.relative])
        if group.turned:
            part = from_matrix(to_matrix(part, group.rotation), group.seen)
        parts.append(group.normalise(part, found))
    return np.concatenate(parts, axis=-1)


def to_robot(
    groups: Sequence[Group], y: np.ndarray, statistics: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """The inverse of `to_network`."""
    parts, rows = [], split_statistics(groups, statistics)
    for group, part, found in zip(groups, _split(y, [g.width for g in groups]), rows, strict=True):
        part = group.restore(part, found)
        if group.turned:
            part = from_matrix(to_matrix(part, group.seen), group.rotation)
        if group.relative:
            start = reference[group.reference][..., None, :]
            part = part + start if group.relative == "joints" else absolute_pose(part, start, POSES[group.relative])
        parts.append(part)
    return np.concatenate(parts, axis=-1)


def by_name(groups: Sequence[Group], x: np.ndarray) -> dict[str, np.ndarray]:
    """Split (..., S) numbers of the robot's side by group."""
    return dict(zip((group.name for group in groups), _split(x, [g.size for g in groups]), strict=True))


def split_statistics(groups: Sequence[Group], statistics: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Statistics of each group, (1 or rows, numbers) each."""
    result: list[dict[str, np.ndarray]] = [{} for _ in groups]
    for name, values in statistics.items():
        for row, group, part in zip(result, groups, _split(np.asarray(values), [g.count for g in groups]), strict=True):
            row[name] = part.reshape(-1, group.numbers)
    return result


def plain_statistics(
    groups: Sequence[Group], dimensions: Sequence[Dimension], statistics: Mapping[str, np.ndarray]
) -> tuple[tuple[Dimension, ...], dict[str, np.ndarray]]:
    """Dimensions and statistics, (D,) each, with the widest bounds of all rows; relative numbers are differences, and
    those of a rotation have no joint."""
    if sum(group.size for group in groups) != len(dimensions):
        return tuple(dimensions), dict(statistics)
    said = []
    for group, part in zip(groups, _split(np.arange(len(dimensions)), [g.size for g in groups]), strict=True):
        changes = {"mode": "delta"} if group.relative else {"joint": None} if group.rotation else {}
        said += [replace(dimensions[i], **changes) for i in part]
    rows: dict[str, list[np.ndarray]] = {}
    for group, found in zip(groups, split_statistics(groups, statistics), strict=True):
        for name, values in found.items():
            widest = values.min(axis=0) if name in ("min", "q01") else values.max(axis=0)
            rows.setdefault(name, []).append(np.zeros(group.size) if group.rotation else widest)
    return tuple(said), {name: np.concatenate(parts) for name, parts in rows.items()}


def check_statistics(groups: Sequence[Group], statistics: Mapping[str, np.ndarray], what: str) -> None:
    """Raises InputError unless the statistics contain what the modes of all groups need."""
    count = sum(group.count for group in groups)
    for group in groups:
        for name in MODES[group.mode]:
            found = np.size(statistics.get(name, ()))
            if found != count:
                raise InputError(f"{what} {group.name!r} is normalised by {group.mode}: {found} numbers of {name!r} in "
                                 f"the statistics, the groups have {count}")


def check_references(actions: Sequence[Group], states: Sequence[Group]) -> None:
    """Raises InputError unless each relative group of actions has its group of the state, of the same size."""
    sizes = {group.name: group.size for group in states}
    for group in actions:
        if group.relative and sizes.get(group.reference) != group.size:
            raise InputError(f"action {group.name!r} is relative to the state {group.reference!r}, expected one of "
                             f"{group.size} numbers among {sizes}")
        if group.mode in ("sin_cos", "scale"):
            raise InputError(f"action {group.name!r}: mode {group.mode}, expected one with an inverse")


def regrouped(groups: Sequence[Group], said: Any, where: str, chooses: bool = False) -> tuple[Group, ...]:
    """The groups with the settings of the policy file: a mapping of each group to its mode, or to the form in which the
    network sees its rotation, or to both ("axis_angle identity").

    Args:
        chooses: the mapping also selects the groups and their order.

    Raises InputError.
    """
    if said is None:
        return tuple(groups)
    modes, known = value_of(dict[str, str], said, where), {group.name: group for group in groups}
    if unknown := sorted(set(modes) - set(known)):
        raise InputError(f"{where}: no group {unknown}, expected some of {[*known]}")
    return tuple(_changed(known[name], modes.get(name, "").split()) for name in (modes if chooses else known))


def _changed(group: Group, words: Sequence[str]) -> Group:
    forms = [ROTATIONS[word] for word in words if word in ROTATIONS]
    modes = [word for word in words if word not in ROTATIONS]
    if len(modes) > 1 or len(forms) > 1:
        raise InputError(f"group {group.name!r}: {' '.join(words)!r}, expected one of {sorted(MODES)} and, of a "
                         f"rotation, one of {sorted(ROTATIONS)}")
    if forms and not modes:  # as in Isaac, which has no bounds of differences
        modes = ["identity" if group.difference else "min_max"]
    changes = {"mode": modes[0], "seen": forms[0] if forms else ""} if words else {}
    return replace(group, **changes)


def bounds(group: Group) -> dict[str, list[float]]:
    """Statistics of a rotation in another form than the data's: the range of its numbers."""
    most = np.pi if group.seen == "vector" or group.seen.startswith("euler") else 1.0
    return {"min": [-most] * group.numbers, "max": [most] * group.numbers}


def relative_pose(pose: np.ndarray, start: np.ndarray, form: str) -> np.ndarray:
    """(..., 3 + n) poses in the frame of (..., 3 + n) others: position, then the rotation in a form."""
    turned, first = to_matrix(pose[..., 3:], form), to_matrix(start[..., 3:], form)
    back = first.swapaxes(-1, -2)
    place = (back @ (pose[..., :3] - start[..., :3])[..., None])[..., 0]
    return np.concatenate([place, from_matrix(back @ turned, form)], axis=-1)


def absolute_pose(pose: np.ndarray, start: np.ndarray, form: str) -> np.ndarray:
    """The inverse of `relative_pose`."""
    turned, first = to_matrix(pose[..., 3:], form), to_matrix(start[..., 3:], form)
    place = (first @ pose[..., :3, None])[..., 0] + start[..., :3]
    return np.concatenate([place, from_matrix(first @ turned, form)], axis=-1)


def _split(x: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    return np.split(x, np.cumsum(sizes)[:-1], axis=-1) if len(sizes) else []
