"""A checkpoint of a very small, untrained π0, written by the package's own functions."""

from pathlib import Path

import numpy as np
import torch

from vla_ros.core.robot import RobotSpec
from vla_ros.policies import registry

SIZE = {"width": 32, "depth": 2, "mlp": 64, "heads": 2, "kv_heads": 1, "head_dim": 16}
INSTRUCTIONS = ("touch the red cube", "pick up the blue cube", "touch the green cube")
HORIZON, STEP_DT = 16, 0.1


def tiny_checkpoint(path: Path, robot: RobotSpec, seed: int = 0, centre: np.ndarray | None = None) -> Path:
    """Write the folder and give its path back.

    Its actions lie within a few hundredths of rad around `centre` (J,); zero when None.
    """
    joints = robot.joint_names
    zero, one = np.zeros(len(joints)), np.ones(len(joints))
    mean = zero if centre is None else centre
    rows = {"mean": mean, "std": 0.02 * one, "min": -one, "max": one, "q01": -one, "q99": one}
    data = registry.TrainingData(
        joints=joints,
        cameras=robot.camera_names,
        step_dt=STEP_DT,
        statistics={"observation.state": rows, "action": rows},
        instructions=INSTRUCTIONS,
    )
    vision = {
        "kind": "keypoint_stem", "image": 48, "channels": [8, 8, 8], "keypoints": 8, "grid": 2,
    }
    config = {
        "vision": vision, "prefix": SIZE, "expert": SIZE, "horizon": HORIZON, "text_length": 16, "num_steps": 2,
    }
    torch.manual_seed(seed)
    registry.save(path, registry.build("pi0", config, data))
    return path
