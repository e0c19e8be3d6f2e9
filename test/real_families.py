"""Small LeRobot folders of every real family, and what an SO-101 shows such a policy."""

import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import groot_folders
import lerobot_checkpoints
import numpy as np
import pi0_folders

from vla_ros.core.observation import Sample
from vla_ros.core.robot import RobotSpec
from vla_ros.policies.registry import LoadedPolicy

FAMILIES = ("pi0", "pi05", "smolvla", "act", "diffusion", "groot")
ROBOT = RobotSpec.load(Path(__file__).parent.parent / "config/robots/so101.yaml")


def make(path: Path, family: str) -> Path:
    """Write a LeRobot folder that brings all it needs, cameras "front" and "wrist", six joints; return it."""
    if family == "groot":
        return groot_folders.make_lerobot(path)
    if not family.startswith("pi0"):
        return lerobot_checkpoints.make(path, family)
    pi0_folders.write_lerobot(path, pi0_folders.TINY, family, 6, ("front", "wrist"))
    shutil.copy(_tokenizer(), path / "tokenizer.model")
    return path


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
