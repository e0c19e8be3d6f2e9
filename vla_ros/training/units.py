"""The unit of a dataset's joints: rad or m unless the training config says another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.statistics import of_rows
from vla_ros.datasets.lerobot import Dataset
from vla_ros.policies.dimension import Dimension, not_rad, read_dimension

WHERE = "`units` of the training config"


def bring_to_rad(dataset: Dataset, units: Sequence[Mapping[str, Any]]) -> None:
    """Convert states, actions and their statistics in place from `units` to rad or m.

    Joints with names of LeRobot's own robots need a row even if their values are small.

    Args:
        units: rows as in `state` of a policy file; joints without a row are in rad or m. Values that cannot be are
            refused; a row of scale 1 declares that they are.

    Raises InputError for values without a unit that cannot be rad or m or have such a name, and for an unknown joint.
    """
    rows = [read_dimension(row, f"units[{i}]") for i, row in enumerate(units)]
    said = {row.joint: row for row in rows}
    if unknown := [row.joint for row in rows if row.joint not in dataset.joint_names or said[row.joint] is not row]:
        raise InputError(f"{WHERE}: joint {unknown[0]!r}, expected each of {list(dataset.joint_names)} at most once")
    dimensions = [said.get(name, Dimension(name)) for name in dataset.joint_names]
    for d in dimensions:
        if d.linkage or d.mode != "absolute":
            raise InputError(f"{WHERE}: {d.joint}: linkage or mode, expected a unit, or scale and offset")
    scale = np.array([1 / d.scale for d in dimensions])
    offset = np.array([-d.offset / d.scale for d in dimensions])
    # A row with unit rad is accepted.
    judged = [Dimension(None) if d.joint in said and (d.scale, d.offset) == (1, 0) else d for d in dimensions]
    for feature, names, values in (
        ("observation.state", dataset.joint_names, dataset.states), ("action", dataset.action_names, dataset.actions),
    ):
        first = len(names) - len(set(names) & set(dataset.joint_names))  # a tool's are in m and rad
        chosen = [dataset.joint_names.index(name) for name in names[first:]]
        if why := not_rad([Dimension(None)] * first + [judged[k] for k in chosen], dataset.statistics[feature]):
            raise InputError(f"dataset {dataset.path}: {feature}: {why} in {WHERE}")
        if unsaid := [name for name in names if name in dataset.not_in_rad.difference(said)]:
            raise InputError(f"dataset {dataset.path}: {feature}: {unsaid[0]} is called as by LeRobot's robots, which "
                             "record degrees or percent; say each joint's unit, as in "
                             f"`- {{joint: {unsaid[0]}, unit: degrees}}` (scale: 1 is rad or m), in {WHERE}")
        if units:
            values[:, first:] = values[:, first:] * scale[chosen] + offset[chosen]
            dataset.statistics[feature] = of_rows(values)
