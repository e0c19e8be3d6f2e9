"""Small published folders of every real family, and what an SO-101 shows such a policy."""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import go1_folders
import groot_folders
import lerobot_checkpoints
import lerobot_folders
import numpy as np
import openvla_folders
import pi0_folders
import robovlms_folders

from vla_ros.core.observation import Sample
from vla_ros.core.robot import RobotSpec
from vla_ros.policies.embodiment import Embodiment
from vla_ros.policies.registry import LoadedPolicy

FAMILIES = ("pi0", "pi05", "pi0_fast", "xvla", "smolvla", "act", "diffusion", "go1", "groot", "openvla", "robovlms")
LEROBOT = FAMILIES[:7]  # whose folders here are LeRobot's, with its ordinary processors
ROBOT = RobotSpec.load(Path(__file__).parent.parent / "config/robots/so101.yaml")
RELATIVE = {  # settings of LeRobot's step
    "enabled": True, "exclude_joints": ["gripper"], "action_names": [f"{name}.pos" for name in ROBOT.joint_names],
}  # fmt: skip


def make(path: Path, family: str) -> Path:
    """Write a folder that brings all it needs, cameras "front" and "wrist", six joints; return it.

    LeRobot's, but for GO-1, OpenVLA and RoboVLMs, whose own folders know their robot by an `embodiment.yaml`.
    """
    if family == "groot":
        return groot_folders.make_lerobot(path)
    if family == "openvla":
        return openvla_folders.write_for_robot(path, ROBOT.joint_names)
    if family == "robovlms":
        return robovlms_folders.write_for_robot(path, ROBOT.joint_names)
    if family == "go1":
        go1_folders.make(path, 6, _tokenizer())
        Embodiment.identity(ROBOT.joint_names, cameras(family), 0.1).save(path / "embodiment.yaml")
        return path
    if family == "pi0_fast":
        return pi0_folders.write_pi0_fast(path, 6, ("front", "wrist"))
    if family == "xvla":
        lerobot_folders.write(path, "xvla")
        for file in ("config.json", "policy_preprocessor.json", "policy_postprocessor.json"):
            normalised = re.sub(r'"(STATE|ACTION)": "IDENTITY"', r'"\1": "MEAN_STD"', (path / file).read_text())
            (path / file).write_text(normalised)
        return path
    if not family.startswith("pi0"):
        return lerobot_checkpoints.make(path, family)
    pi0_folders.write_lerobot(path, pi0_folders.TINY, family, 6, ("front", "wrist"))
    shutil.copy(_tokenizer(), path / "tokenizer.model")
    return path


def cameras(family: str) -> dict[str, str | None]:
    """The robot's camera of each image, as a policy file maps them."""
    if family == "go1":
        return {"top": "front", "right": "wrist", "left": None}
    if family == "robovlms":
        return {"static": "front", "hand": "wrist"}
    return {name: name for name in ROBOT.camera_names}


def add_step(folder, which, name, config):
    """Add a step to the "preprocessor", before its normaliser, or to the end of the "postprocessor"."""
    file = folder / f"policy_{which}.json"
    data = json.loads(file.read_text())
    kinds = [step["registry_name"] for step in data["steps"]]
    place = kinds.index("normalizer_processor") if which == "preprocessor" else len(kinds)
    data["steps"].insert(place, {"registry_name": name, "config": config})
    file.write_text(json.dumps(data))


def make_relative(folder, name="relative_actions_processor", config=RELATIVE):
    """Change a LeRobot folder's actions to differences to the state; return it."""
    add_step(folder, "preprocessor", name, config)
    add_step(folder, "postprocessor", "absolute_actions_processor", {"enabled": True})
    return folder


def take_statistics_away(path: Path) -> None:
    """Of such a folder, where it keeps them."""
    for file in (*path.glob("policy_*"), *path.glob("dataset_stat*.json")):
        file.unlink(missing_ok=True)
    config = json.loads((path / "config.json").read_text())
    if config.pop("norm_stats", None):
        (path / "config.json").write_text(json.dumps(config))


@cache
def _tokenizer() -> Path:
    path = Path(mkdtemp()) / "tokenizer.model"
    pi0_folders.write_sentencepiece(path)
    return path


def sample(loaded: LoadedPolicy, seed: int = 0) -> Sample:
    """What the robot shows; `state` is (T, J) in the robot file's order."""
    rng = np.random.default_rng(seed)
    steps = loaded.processor.n_obs_steps
    images = {name: rng.integers(0, 256, (steps, 48, 64, 3), np.uint8) for name in ROBOT.camera_names}
    return Sample(images, rng.normal(0, 0.2, (steps, 6)), "touch the red cube")
