"""A LeRobot folder on a robot: normalisation, cameras, joints and time step, if no policy file defines them.

Such a folder contains the sizes of its inputs, but neither the robot's units nor its rate. Names and order are taken
from the robot file if they fit; anything that remains unknown is an error that says what to write into a policy file.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.records import Range, read_mapping, value_of
from vla_ros.policies import normalisation
from vla_ros.policies.dimension import Dimension, check_start
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.formats.adapter import open_tensors
from vla_ros.policies.formats.lerobot import MODES, LeRobotFolder
from vla_ros.policies.formats.lerobot_statistics import find_statistics, lacking
from vla_ros.policies.formats.lerobot_steps import ABSOLUTE_STEP, RELATIVE_STEPS
from vla_ros.policies.normalisation import Normalisation, Statistics
from vla_ros.policies.options import ACTION, STATE, LoadOptions, Parts
from vla_ros.policies.processor import short_name

logger = logging.getLogger(__name__)

USUAL_RATE = 30.0  # Hz, LeRobot's default when recording


def lerobot_parts(folder: LeRobotFolder, names: Sequence[str], options: LoadOptions, fit: str) -> Parts:
    """The parts of a LeRobot folder; `names`: images that the policy reads. Raises InputError."""
    if folder.epsilon != 1e-8:
        raise InputError(f"checkpoint {folder.path}: normaliser eps {folder.epsilon}, expected 1e-08")
    given = options.statistics(sets=True)
    variant = options.overrides.get("statistics") if given is None else None
    statistics, lacks = find_statistics(folder, open_tensors(folder.path, options.base)[0], variant)
    padding = {name for name in (STATE, ACTION) if name not in statistics}
    folder = _trained(folder, statistics)
    if given is not None:
        statistics = statistics | {feature: given[feature] for feature in (STATE, ACTION)}
        if lacks := lacking(folder, statistics):
            raise InputError(f"{options.overrides['statistics']}: {lacks}")
    normalisations = []
    for kind, feature in (("STATE", STATE), ("ACTION", ACTION)):
        mode = MODES[folder.modes.get(kind, "IDENTITY") if feature != STATE or folder.state_dim else "IDENTITY"]
        normalisations.append(Normalisation(mode, {} if lacks else statistics.get(feature, {}), "lerobot"))
    limits = _limits(folder, padding)
    embodiment = find_embodiment(folder, names, options, limits)
    for feature, own, declared in (
        (STATE, len(embodiment.state), folder.state_dim), (ACTION, len(embodiment.actions), folder.action_dim)
    ):
        rows = (given or {}).get(feature, {})
        sizes = {int(np.size(rows[name])) for name in normalisation.NAMES if name in rows} - {own, declared}
        if any(feature not in limits or size > own for size in sizes):
            raise InputError(f"{options.overrides['statistics']}: {feature}: statistics of {sorted(sizes)} numbers, "
                             f"expected {own}")
    return Parts(embodiment, *normalisations, _image_statistics(folder, statistics), fit, no_statistics=lacks)


def _image_statistics(folder: LeRobotFolder, statistics: Statistics) -> Statistics:
    """Image name -> mean and std that normalise its pixels in [0, 1] for the policy, (3,) each; NaN if they are missing
    in the folder, which can then be described but not loaded."""
    mode = MODES[folder.modes.get("VISUAL", "IDENTITY")]
    result = {}
    for feature in folder.images:
        rows = statistics.get(feature.name, {})
        if mode == "identity" or not rows:
            result[feature.name] = {"mean": np.zeros(3), "std": np.ones(3)}
            continue
        first, second = (rows.get(name, np.full(3, np.nan)) for name in normalisation.MODES[mode])
        if mode != "mean_std":  # two bounds
            first, second = (first + second) / 2, (second - first) / 2
        result[feature.name] = {"mean": first, "std": second}
    return result


def _trained(folder: LeRobotFolder, statistics: Statistics) -> LeRobotFolder:
    """The folder with the size of the state in its data. A fine-tuned policy keeps the declared inputs of its base; if
    states are padded, any size fits, and only the statistics show the real one."""
    rows = statistics.get(STATE, {})
    width = max((len(rows[name]) for name in normalisation.NAMES if name in rows), default=0)
    padded = "max_state_dim" in folder.config and folder.state_dim
    return folder.of_widths(width, folder.action_dim) if padded and width else folder


def _limits(folder: LeRobotFolder, padding: Collection[str]) -> dict[str, int]:
    """Feature -> largest number of the robot's dimensions, if fewer are allowed: base checkpoints, which have no
    statistics, declare the size to which states and actions are padded."""
    sizes = {STATE: ("max_state_dim", folder.state_dim), ACTION: ("max_action_dim", folder.action_dim)}
    return {
        name: size for name, (limit, size) in sizes.items() if name in padding and size == folder.config.get(limit)
    }


def find_embodiment(
    folder: LeRobotFolder, images: Sequence[str], options: LoadOptions,
    limits: Mapping[str, int], differences: Collection[int] = (), usual: bool = True,
) -> Embodiment:
    """The embodiment of the policy file, of an `embodiment.yaml` in the folder, or made from the names in the robot
    file or the dataset.

    Without any of them the policy can be measured and described, but not run on a robot.

    Args:
        images: names of the policy's images in its sizes.
        limits: features with fewer dimensions than the folder declares -> their largest number.
        differences: actions that are differences in the data, whose mode the caller checks.
        usual: whether a folder without a rate has LeRobot's usual one.

    Raises InputError that names what is unknown or contradicts the folder.
    """
    file = folder.path / "embodiment.yaml"
    if options.embodiment is not None:
        chosen = options.embodiment
    elif file.exists():
        chosen = Embodiment.load(file)
    elif options.names is not None:
        chosen = _from_names(folder, images, limits, *options.names, options.hold)
    else:
        modes = ["delta" if i in differences else mode for i, mode in enumerate(_modes(folder))]
        chosen = nameless(images, folder.state_dim, modes)
    chosen = replace(chosen, step_dt=chosen.step_dt or options.step_dt or _step_dt(folder, options, usual))
    _check(folder, chosen, limits, differences)
    return chosen


def check_aloha(folder: LeRobotFolder, options: LoadOptions) -> None:
    """Raises InputError for a policy in π's ALOHA convention on a robot whose policy file does not say so."""
    if not folder.config.get("adapt_to_pi_aloha"):
        return
    if folder.config["type"] == "smolvla" and folder.preprocessor:
        raise InputError(f"checkpoint {folder.path}: adapt_to_pi_aloha: since LeRobot 0.4 SmolVLA turns values that "
                         "are normalised already, which is not supported; expected false")
    if options.embodiment is None:
        raise InputError(f"checkpoint {folder.path}: adapt_to_pi_aloha: its state and actions are in π's ALOHA "
                         "convention; give a policy file that says so (signs as scale -1, grippers with a linkage)")


def nameless(images: Sequence[str], state: int, modes: Sequence[str]) -> Embodiment:
    """Placeholders for joints, so that network and processor can run; no robot has such joints."""
    actions = tuple(Dimension(f"joint_{i}", mode=mode) for i, mode in enumerate(modes))
    dimensions = tuple(Dimension(f"joint_{i}" if i < len(actions) else None) for i in range(state))
    return Embodiment({name: short_name(name) for name in images}, dimensions, actions)


def _check(
    folder: LeRobotFolder, embodiment: Embodiment, limits: Mapping[str, int], differences: Collection[int]
) -> None:
    """Raises InputError unless sizes and kind of the actions agree with the folder."""
    for what, feature, dimensions, expected in (
        ("state", STATE, embodiment.state, folder.state_dim),
        ("actions", ACTION, embodiment.actions, folder.action_dim),
    ):
        fits = len(dimensions) <= expected if feature in limits else len(dimensions) == expected
        if not fits and not (what == "state" and expected == 0):
            raise InputError(f"checkpoint {folder.path}: {what} of {'at most ' if feature in limits else ''}{expected} "
                             f"dimensions, the policy file or the robot gives {len(dimensions)}")
    for index, (dimension, mode) in enumerate(zip(embodiment.actions, _modes(folder), strict=False)):
        where = f"checkpoint {folder.path}: action {index} ({dimension.joint})"
        if dimension.joint is None or index in differences:
            continue
        if (dimension.mode == "delta") != (mode == "delta"):
            raise InputError(f"{where} is {dimension.mode}, but its preprocessor makes it {mode}; expected mode: "
                             f"{mode} in the policy file")
        start = embodiment.state[index] if index < len(embodiment.state) else None
        if mode == "delta":
            check_start(dimension, start, index, where)


def _modes(folder: LeRobotFolder) -> list[str]:
    """Of each action dimension: "delta" (to the state) except for those whose name holds an excluded word.

    LeRobot's two processors apply the step and its inverse; if they disagree, its actions are not valid for the robot.
    """
    config, where = folder.config, f"checkpoint {folder.path}"
    step = next((step for step in folder.preprocessor if step.name in RELATIVE_STEPS), None)
    undone = next((step for step in folder.postprocessor if step.name == ABSOLUTE_STEP), None)
    said = dict(step.config) if step else {}
    if step is None and not folder.preprocessor:  # no processor files: only config.json says it
        said = {"enabled": config.get("use_relative_actions", False),
                "action_names": config.get("action_feature_names"),
                "exclude_joints": config.get("relative_exclude_joints", ["gripper"])}
    relative = value_of(bool, said.get("enabled", False), f"{where}: {step.name if step else 'relative'}.enabled")
    absolute = undone is not None and value_of(bool, undone.config.get("enabled", False), f"{where}: {undone.name}")
    if folder.preprocessor and folder.postprocessor and relative != absolute:
        one, other = ("preprocessor makes", "postprocessor leaves") if relative else (
            "postprocessor takes", "preprocessor does not make")
        raise InputError(f"{where}: its {one} actions as differences to the state, its {other} them so; expected "
                         f"{RELATIVE_STEPS[0]} and {ABSOLUTE_STEP} both enabled or neither")
    if not relative:
        return ["absolute"] * folder.action_dim
    names = value_of(list[str], said.get("action_names") or [], f"{where}: action names")[: folder.action_dim]
    names = [name.lower() for name in names] + [""] * (folder.action_dim - len(names))
    excluded = value_of(list[str], said.get("exclude_joints") or [], f"{where}: excluded joints")
    words = [word.lower() for word in excluded if word]
    return ["absolute" if any(word in name for word in words) else "delta" for name in names]


def _from_names(
    folder: LeRobotFolder, images: Sequence[str], limits: Mapping[str, int], whose: str,
    joints: tuple[str, ...], robot_cameras: tuple[str, ...], hold: tuple[str, ...],
) -> Embodiment:
    cameras = {}
    from_data = {short_name(feature): short_name(name) for name, feature in folder.renamed.items()}
    for name in images:
        own = short_name(name)
        source = from_data.get(own)
        names = [source, own] if source and own not in from_data.values() else [source or own]
        known = next((n for n in names if n in robot_cameras), None)
        if known is None and len(images) == len(robot_cameras) == 1:
            known = robot_cameras[0]
        if known is None:
            raise InputError(f"checkpoint {folder.path}: no camera {names[0]!r} on {whose}, which has "
                             f"{list(robot_cameras)}; map it in a policy file, as in `cameras: {{{names[0]}: front}}`")
        cameras[name] = known
    commanded = tuple(name for name in joints if name not in hold)
    for what, feature, size, own in (
        ("state", STATE, folder.state_dim, joints), ("actions", ACTION, folder.action_dim, commanded),
    ):
        if size and size != len(own) and (feature not in limits or size < len(own)):
            raise InputError(f"checkpoint {folder.path}: {what} of {size} dimensions, {whose} has {len(own)} "
                             "joints; say which is which in a policy file")
    named = _action_names(folder)
    if sorted(named) == sorted(commanded):
        commanded, joints = named, joints if hold else named
    elif set(named) & set(commanded):
        raise InputError(f"checkpoint {folder.path}: its actions are {list(named)}, {whose} has {list(commanded)}; say "
                         "which is which in a policy file")
    actions = tuple(Dimension(name, mode=mode) for name, mode in zip(commanded, _modes(folder), strict=False))
    return Embodiment(cameras, tuple(Dimension(name) for name in joints), actions, hold=hold)


def _action_names(folder: LeRobotFolder) -> tuple[str, ...]:
    """Names of the numbers of an action, from LeRobot's relative step or config.json; () if neither has them."""
    step = next((step for step in folder.preprocessor if step.name in RELATIVE_STEPS), None)
    said = (step.config.get("action_names") if step else None) or folder.config.get("action_feature_names") or []
    names = value_of(list[str], said, f"checkpoint {folder.path}: names of the actions")
    return tuple(name.removesuffix(".pos") for name in names)


def _step_dt(folder: LeRobotFolder, options: LoadOptions, usual: bool) -> float | None:
    """s between actions: from the environment's rate in train_config.json, else that of the dataset that it will be
    trained on, else LeRobot's usual one, or None."""
    file = folder.path / "train_config.json"
    if file.exists():
        environment = value_of(dict, read_mapping(file, "checkpoint").get("env") or {}, f"{file}: env")
        if rate := environment.get("fps"):
            return 1.0 / value_of(Annotated[float, Range(0.001, 10_000)], rate, f"{file}: env.fps")
    if options.data is not None:
        return options.data.step_dt
    if not usual:
        return None
    logger.warning(
        "checkpoint %s does not contain the time between its actions: using 1/%g s; step_dt in a policy file sets "
        "another one",
        folder.path, USUAL_RATE,
    )
    return 1.0 / USUAL_RATE
