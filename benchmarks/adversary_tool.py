"""The SO-101 with its tool, and end-effector chunks for it, for `adversary.py`."""

from functools import cache
from typing import Any

import numpy as np
import yaml
from live_graph import ROBOT

from vla_ros.control.limits import Limits
from vla_ros.control.tool_arm import ToolArm
from vla_ros.core.chunk import Part, Space, Targets
from vla_ros.core.robot import RobotSpec
from vla_ros.core.rotations import SIZES, from_matrix, to_matrix
from vla_ros.core.tool import pose_names
from vla_ros.sim.description import urdf
from vla_ros.sim.world import World


@cache
def robot() -> dict[str, Any]:
    """What its file contains."""
    return yaml.safe_load(ROBOT.read_text())


@cache
def arm() -> ToolArm:
    spec = RobotSpec.from_dict(robot())
    return ToolArm(spec.tool, urdf(World().model, spec.name), Limits.merge(spec))


def tool_chunk(rng: np.random.Generator, here: np.ndarray) -> tuple[Targets, float]:
    """Poses or differences from where the tool is with the joints `here` (J,), in any form, and their distance, s.

    A half could be followed, or nearly; the others are far away, turn wildly, or contain what is no rotation.
    """
    form, space = str(rng.choice(list(SIZES))), Space(int(rng.integers(1, 3)))
    horizon, dt = int(rng.choice([1, 2, 10, 50])), float(rng.choice([0.005, 0.02, 0.1, 0.5]))
    wild = rng.random() < 0.5
    place, rotation = arm().pose(here)
    steps = rng.normal(size=(horizon, 3)) * (1.0 if wild else 0.2) * dt
    turns = to_matrix(rng.normal(size=(horizon, 3)) * (6.0 if wild else 0.5) * dt, "vector")
    if space == Space.END_EFFECTOR_POSE:
        steps = place + np.cumsum(steps, axis=0)
        if wild and rng.random() < 0.5:
            steps = rng.uniform(-1.0, 1.0, (horizon, 3)) * float(rng.choice([0.3, 1.0, 1e300]))
        for k in range(horizon):
            turns[k] = rotation = turns[k] @ rotation
    rows = np.concatenate([steps, from_matrix(turns, form)], axis=1)
    if wild and rng.random() < 0.1:
        rows[rng.integers(horizon), rng.integers(rows.shape[1])] = rng.choice([np.nan, np.inf, 0.0, 1e308])
    tool = arm().tool
    frame = str(rng.choice([tool.frame, tool.link])) if space == Space.END_EFFECTOR_DELTA else tool.frame
    parts = [Part(pose_names(form), rows, space, "", frame)]
    if rng.random() < 0.5:
        parts.append(Part(("gripper",), rng.uniform(-0.5, 2.0, (horizon, 1))))
    return Targets(tuple(parts)), dt
