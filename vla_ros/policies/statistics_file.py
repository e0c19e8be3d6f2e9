"""Whether a file of statistics is of the kind of actions that a policy answers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.policies.dimension import Dimension
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.normalisation import read_statistics
from vla_ros.policies.options import ACTION, STATE


def check_kind(file: Path, actions: Sequence[Dimension]) -> None:
    """Raises InputError for statistics of joint targets where the policy's actions are differences, or the other way.

    A checkpoint's file has an `embodiment.yaml` beside it, whose modes have to be the policy's. LeRobot's `stats.json`
    tells by its counts: where it is of relative actions, these are of the rows of all chunks.
    """
    ours = [d.mode for d in actions if d.joint is not None]
    differences = any(mode != "absolute" for mode in ours)
    where = f"overrides.statistics {str(file)!r}: the checkpoint's actions are"
    beside = file.with_name("embodiment.yaml")
    if beside.is_file():
        theirs = [d.mode for d in Embodiment.load(beside).actions if d.joint is not None]
        fits = theirs == ours if differences else set(theirs) <= {"absolute"}
        said = f"the file's {theirs}"
    else:
        rows = read_statistics(file, (STATE, ACTION))
        states, of_actions = (rows[feature].get("count", np.zeros(0)) for feature in (STATE, ACTION))
        relative = bool(len(states) and len(of_actions)) and not np.array_equal(states, of_actions)
        fits, said = relative == differences, "the file does not say that its statistics are of differences"
    if fits:
        return
    if not differences:
        raise InputError(f"{where} joint targets, the file's are differences; expected those of joint targets")
    modes = ", ".join(dict.fromkeys(ours))
    raise InputError(f"{where} differences to the state ({modes}), {said}; expected those of a checkpoint that was "
                     "trained so, with its embodiment.yaml beside it, or LeRobot's stats.json of relative actions; "
                     "leave it out where the checkpoint has its own, or train with --statistics recompute")
