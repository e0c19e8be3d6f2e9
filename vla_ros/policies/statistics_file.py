"""Checks that a file of statistics fits the kind of a policy's actions, and that its quantiles are those of rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.policies.dimension import Dimension
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.normalisation import Normalisation, read_statistics
from vla_ros.policies.options import ACTION, STATE


def check_kind(file: Path, actions: Sequence[Dimension]) -> None:
    """Raises InputError for statistics of joint targets where the policy's actions are differences, or the other way.

    The file of a checkpoint has an `embodiment.yaml` beside it, whose modes must be the policy's. For LeRobot's
    `stats.json` the counts show it: for relative actions they count the rows of all chunks.
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


def check_quantiles(file: Path, normalisations: Mapping[str, Normalisation]) -> None:
    """Raises InputError for quantiles that cannot be those of rows with this deviation.

    LeRobot's `stats.json` contains means of the episodes' quantiles. At most 2 % of the rows lie outside q01 to q99, so
    their variance is at most a quarter of that width squared plus 2 % of the whole range squared. A checkpoint's own
    file, with its `embodiment.yaml` beside it, is not checked: the policy was trained with it.

    Args:
        normalisations: feature -> its normalisation by the file's statistics.
    """
    if file.with_name("embodiment.yaml").is_file():
        return
    for feature, said in normalisations.items():
        rows = said.statistics
        if said.mode != "quantiles" or not {"q01", "q99", "std", "min", "max"} <= rows.keys():
            continue
        low, high, std, least, most = (rows[name] for name in ("q01", "q99", "std", "min", "max"))
        wrong = std**2 > 1.05 * (0.25 * (high - low) ** 2 + 0.02 * (most - least) ** 2) + 1e-12
        if wrong.any():
            i = int(wrong.argmax())
            raise InputError(f"overrides.statistics {str(file)!r}: {feature}[{i}]: q01 {low[i]:.4g} to q99 "
                             f"{high[i]:.4g} cannot be those of rows with a deviation of {std[i]:.4g}, but means of "
                             "episodes' quantiles, as in LeRobot's stats.json; expected those of the rows, as `vla-ros "
                             "train --statistics recompute` writes them into statistics.json of its checkpoints")
