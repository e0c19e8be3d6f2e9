"""Which camera, joint and clock a LeRobot folder means, where no policy file says so.

Such a folder knows the sizes of its inputs, but neither the robot's units nor its rate. Names and order are taken
from the robot file where they fit; what cannot be known is an error that says what to write into a policy file.
"""

import json
import logging
from collections.abc import Sequence

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.policies.embodiment import Dimension, Embodiment
from vla_ros.policies.formats.lerobot import ACTION, STATE, LeRobotFolder, Statistics
from vla_ros.policies.registry import LoadOptions

logger = logging.getLogger(__name__)

USUAL_RATE = 30.0  # Hz, at which LeRobot records unless told otherwise
WIDEST = 7.0  # rad: no joint's data lies farther from zero, but data in degrees or percent do


def short_name(feature: str) -> str:
    """What a policy file calls an image: "observation.images.top" is "top", "observation.image" is "image"."""
    return feature.removeprefix("observation.images.").removeprefix("observation.")


def find_embodiment(
    folder: LeRobotFolder, images: Sequence[str], statistics: Statistics, options: LoadOptions
) -> Embodiment:
    """The embodiment of the policy file, of an `embodiment.yaml` in the folder, or made from the robot file.

    Without any of them the policy can be measured and described, but fits no robot.

    Args:
        images: full names of the policy's images. Keys of the result's cameras are these.

    Raises InputError that says what is not known or does not agree with the folder.
    """
    file = folder.path / "embodiment.yaml"
    if options.embodiment is not None:
        chosen = options.embodiment
    elif file.is_file():
        chosen = Embodiment.load(file)
    elif options.robot is not None:
        chosen = _from_robot(folder, images, statistics, options.robot)
    else:
        chosen = _placeholder(folder, images)
    full = {short_name(name): name for name in images}
    cameras = {full.get(name, name): camera for name, camera in chosen.cameras.items()}
    chosen = Embodiment(cameras, chosen.state, chosen.actions, chosen.step_dt or _step_dt(folder), chosen.hold)
    _check(folder, chosen)
    return chosen


def _check(folder: LeRobotFolder, embodiment: Embodiment) -> None:
    """Sizes and the kind of the actions agree with the folder."""
    for what, dimensions, expected in (
        ("state", embodiment.state, folder.state_dim), ("actions", embodiment.actions, folder.action_dim),
    ):
        if len(dimensions) != expected and not (what == "state" and expected == 0):
            raise InputError(
                f"checkpoint {folder.path}: {what} of {len(dimensions)} dimensions in the policy file or robot, "
                f"the policy has {expected}"
            )
    relative = _relative(folder)
    for index, dimension in enumerate(embodiment.actions):
        if dimension.joint is not None and (dimension.mode == "delta") != relative[index]:
            raise InputError(
                f"checkpoint {folder.path}: action {index} ({dimension.joint}) is {dimension.mode}, but its "
                f"preprocessor makes it {'delta' if relative[index] else 'absolute'}"
            )


def _relative(folder: LeRobotFolder) -> list[bool]:
    """Which action dimensions are differences to the state, from the step that makes them so."""
    for name in ("relative_actions_processor", "delta_actions_processor"):
        step = folder.step(name)
        if step is None or not step.config.get("enabled", True):
            continue
        names = list(step.config.get("action_names") or [])
        kept = [str(token).lower() for token in step.config.get("exclude_joints") or [] if token]
        names = [str(name).lower() for name in names[: folder.action_dim]]
        names += [""] * (folder.action_dim - len(names))
        return [not any(token in name for token in kept) for name in names]
    return [False] * folder.action_dim


def _placeholder(folder: LeRobotFolder, images: Sequence[str]) -> Embodiment:
    """Joints without names, so that the network and its processor can run; no robot has such joints."""
    modes = ["delta" if relative else "absolute" for relative in _relative(folder)]
    actions = tuple(Dimension(f"joint_{i}", mode=mode) for i, mode in enumerate(modes))
    state = tuple(Dimension(f"joint_{i}" if i < len(actions) else None) for i in range(folder.state_dim))
    return Embodiment({name: short_name(name) for name in images}, state, actions)


def _from_robot(
    folder: LeRobotFolder, images: Sequence[str], statistics: Statistics, robot: RobotSpec
) -> Embodiment:
    cameras = {}
    from_data = {feature: name for name, feature in folder.renamed.items()}
    for name in images:
        names = [short_name(name), short_name(from_data.get(name, name))]
        known = next((n for n in names if n in robot.camera_names), None)
        if known is None and len(images) == len(robot.camera_names) == 1:
            known = robot.camera_names[0]
        if known is None:
            raise InputError(
                f"checkpoint {folder.path}: no camera {names[0]!r} on robot {robot.name}, which has "
                f"{list(robot.camera_names)}; map it in a policy file, as in `cameras: {{{names[0]}: front}}`"
            )
        cameras[name] = known
    for what, size in (("state", folder.state_dim), ("actions", folder.action_dim)):
        if size and size != len(robot.joints):
            raise InputError(
                f"checkpoint {folder.path}: {what} of {size} dimensions, robot {robot.name} has "
                f"{len(robot.joints)} joints; say which is which in a policy file"
            )
    for feature in (STATE, ACTION):
        rows = statistics.get(feature, {})
        reach = max((float(np.abs(rows[name]).max()) for name in ("min", "max", "mean", "q01", "q99") if name in rows),
                    default=0.0)
        if reach > WIDEST:
            raise InputError(
                f"checkpoint {folder.path}: {feature} reaches {reach:.4g}, which cannot be rad; give a policy file "
                "with the units of the data (degrees: scale 57.29578; see config/policies/so101_lerobot.yaml)"
            )
    modes = ["delta" if relative else "absolute" for relative in _relative(folder)]
    actions = tuple(Dimension(name, mode=mode) for name, mode in zip(robot.joint_names, modes, strict=True))
    return Embodiment(cameras, tuple(Dimension(name) for name in robot.joint_names), actions)


def _step_dt(folder: LeRobotFolder) -> float:
    """s between actions: the rate of the environment in train_config.json, else LeRobot's usual one."""
    file = folder.path / "train_config.json"
    if file.is_file():
        try:
            rate = (json.loads(file.read_text(encoding="utf-8")).get("env") or {}).get("fps")
            if rate:
                return 1.0 / float(rate)
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(f"{file}: env.fps cannot be read: {error!r}") from error
    logger.warning(
        "checkpoint %s does not say how far apart its actions are: taking 1/%g s; a policy file can say step_dt",
        folder.path, USUAL_RATE,
    )
    return 1.0 / USUAL_RATE
