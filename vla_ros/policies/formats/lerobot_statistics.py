"""The statistics of a LeRobot folder, wherever its version stores them, and what is missing.

Since LeRobot 0.4 they are tensors of the processors' normalisers ("observation.state.mean"); before, buffers among
the weights ("normalize_inputs.buffer_observation_state.mean": dots of the feature's name became underscores).
Both may contain a set for each of several datasets ("so100.buffer.action.mean",
"normalize_inputs.so100_buffer_action.mean"); "" is the set without a name.
"""

import re

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.policies import normalisation
from vla_ros.policies.formats.lerobot import MODES, LeRobotFolder
from vla_ros.policies.formats.lerobot_steps import NORMALISERS, POSTPROCESSOR, PREPROCESSOR
from vla_ros.policies.formats.weights import TensorFolder, numbers
from vla_ros.policies.options import ACTION

Statistics = dict[str, dict[str, np.ndarray]]

_TENSOR = re.compile(r"(?:(?P<variant>.+)\.buffer\.)?(?P<feature>.+)\.(?P<statistic>[^.]+)")
_BUFFER = re.compile(
    r"(?:normalize_inputs|unnormalize_outputs|normalize_targets)\.(?:(?P<variant>[^.]+)_)?"
    r"buffer_(?P<feature>.+)\.(?P<statistic>mean|std|min|max)"
)


def is_statistic(key: str) -> bool:
    """Whether a key among the weights is a normalisation buffer of the old layout."""
    return _BUFFER.fullmatch(key) is not None


def find_sets(folder: LeRobotFolder, tensors: TensorFolder) -> dict[str, Statistics]:
    """Name of the set -> feature -> statistic -> (D,) float64. Raises InputError if two files disagree."""
    return _of_processors(folder) or _of_weights(folder, tensors)


def find_statistics(
    folder: LeRobotFolder, tensors: TensorFolder, variant: str | None = None
) -> tuple[Statistics, str]:
    """The folder's statistics, or the set of that name, and what its modes need but they do not contain ("": nothing).

    If a set must be named and is not, they are only those of the images.

    Raises InputError for a named set that does not exist.
    """
    sets = find_sets(folder, tensors)
    if variant is None and len(sets) > 1:
        lacks = lacking(folder, {feature: rows for one in sets.values() for feature, rows in one.items()})
        note = f"it contains the sets {sorted(sets)} of statistics"
        if lacks:
            note += f", none of which can be used: {lacks}; give a file of your robot's as overrides.statistics"
        else:
            note += "; choose one with overrides.statistics"
        return _of_images(folder, sets), note
    if variant is not None and str(variant) not in sets:
        raise InputError(f"checkpoint {folder.path}: no statistics {str(variant)!r}: neither a file nor a set in it, "
                         f"which has {sorted(name for name in sets if name) or 'none'}")
    chosen = sets[str(variant)] if variant is not None else next(iter(sets.values()), {})
    statistics = sets.get("", {}) | chosen
    lacks = lacking(folder, statistics)
    if lacks and sets.keys() - {""}:
        lacks += f" (of the sets {sorted(sets)})"
    if lacks and (gone := [step.missing for step in (*folder.preprocessor, *folder.postprocessor) if step.missing]):
        lacks += f" ({', '.join(gone)}: not in the folder)"
    return statistics, lacks


def lacking(folder: LeRobotFolder, statistics: Statistics) -> str:
    """The first feature whose mode needs more, as a sentence; "" if nothing is missing."""
    for feature in (*folder.inputs.values(), *folder.outputs.values()):
        mode, rows = folder.modes.get(feature.kind, "IDENTITY"), statistics.get(feature.name, {})
        needed = normalisation.MODES[MODES[mode]]
        for name in needed:
            if name in rows and not np.isfinite(rows[name]).all():
                return f"statistic {feature.name}.{name} was never set: {shown(rows[name].tolist())}"
        missing = [name for name in needed if name not in rows]
        # An image without statistics is not normalised, as in LeRobot (empty cameras have none).
        if missing and feature.kind != "VISUAL":
            return f"{feature.name} is normalised by {mode}, but its statistics lack {missing}"
    return ""


def _of_images(folder: LeRobotFolder, sets: dict[str, Statistics]) -> Statistics:
    """Statistics of the images, which a file of statistics does not contain; NaN if the sets differ."""
    result: Statistics = {}
    for feature in folder.images:
        first, *others = [one[feature.name] for one in sets.values() if feature.name in one] or [{}]
        result[feature.name] = {
            name: value if all(np.array_equal(value, other.get(name)) for other in others) else np.full(3, np.nan)
            for name, value in first.items()
        }
    return result


def _of_processors(folder: LeRobotFolder) -> dict[str, Statistics]:
    """Statistics of the preprocessor; those of the actions must equal the postprocessor's, if both exist."""
    steps = [next((step for step in steps if step.name == name), None)
             for steps, name in zip((folder.preprocessor, folder.postprocessor), NORMALISERS, strict=True)]  # fmt: skip
    both = [{} if step is None else step.state for step in steps]
    gone = any(step is not None and step.missing for step in steps)  # then the other's are used
    sets: dict[str, Statistics] = {}
    for key in dict.fromkeys((*both[0], *both[1])):
        match = _TENSOR.fullmatch(key)
        if match is None:
            raise InputError(f"checkpoint {folder.path}: {NORMALISERS[key not in both[0]]}: {shown(key)}, expected "
                             "FEATURE.STATISTIC")
        found = [state[key].ravel() for state in both if key in state]
        if match["feature"] == ACTION and all(steps) and not gone:
            if len(found) < 2 or not np.array_equal(*found, equal_nan=True):
                said = [shown(state[key].tolist()) if key in state else "not there" for state in both]
                raise InputError(f"checkpoint {folder.path}: {key} is {said[0]} in {PREPROCESSOR}, {said[1]} in "
                                 f"{POSTPROCESSOR}; expected the same")
        elif key not in both[0] and not gone:
            continue  # the postprocessor only restores actions
        sets.setdefault(match["variant"] or "", {}).setdefault(match["feature"], {})[match["statistic"]] = found[0]
    return sets


def _of_weights(folder: LeRobotFolder, tensors: TensorFolder) -> dict[str, Statistics]:
    names = {name.replace(".", "_"): name for name in (*folder.inputs, *folder.outputs)}
    sets: dict[str, Statistics] = {}
    for key in tensors.shapes:
        match = _BUFFER.fullmatch(key)
        if match is not None and match["feature"] in names:
            rows = sets.setdefault(match["variant"] or "", {}).setdefault(names[match["feature"]], {})
            rows[match["statistic"]] = numbers(tensors.read(key), f"checkpoint {folder.path}: {key}").ravel()
    return sets
