"""Small π0 policies and batches that the tests of this folder share."""

import numpy as np
import torch

from vla_ros.core.observation import Sample
from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.policy import Batch
from vla_ros.policies.registry import TrainingData

PREFIX = GemmaSize(width=64, depth=2, mlp=128, heads=8, kv_heads=1, head_dim=16)
EXPERT = GemmaSize(width=32, depth=2, mlp=64, heads=8, kv_heads=1, head_dim=16)
SIGLIP = SiglipSize(hidden=48, depth=2, heads=4, mlp=96, patch=14, image=28)
STEM = KeypointStemSize(image=48, channels=(8, 16, 16), keypoints=8, grid=3, phrase=3)
JOINTS = ("pan", "lift", "gripper")
CAMERAS = ("front", "wrist")


def config(**changes) -> Pi0Config:
    """A π0 of 240,000 parameters with SigLIP's architecture and three cameras."""
    values = dict(
        vision=SIGLIP, prefix=PREFIX, expert=EXPERT, vocabulary=300, horizon=5, text_length=6, state_dim=7, action_dim=7
    )
    return Pi0Config(**values | changes)


def policy(seed: int = 0, **changes) -> Pi0:
    """With weights drawn at random everywhere: layers that start at zero would hide mistakes."""
    torch.manual_seed(seed)
    model = Pi0(config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.normal_(std=scale)
    return model


def batch(config: Pi0Config, rows: int = 2, seed: int = 1) -> Batch:
    """Inputs with a masked third camera and ragged prompts."""
    g = torch.Generator().manual_seed(seed)
    side, cameras = config.vision.image, len(config.cameras)
    mask = torch.ones(rows, cameras, dtype=torch.bool)
    mask[:, 2:] = False
    token_mask = torch.ones(rows, config.text_length, dtype=torch.bool)
    token_mask[-1, 4:] = False
    return {
        "images": torch.rand(rows, cameras, 3, side, side, generator=g) * 2 - 1,
        "image_mask": mask,
        "tokens": torch.randint(0, config.vocabulary, (rows, config.text_length), generator=g),
        "token_mask": token_mask,
        "state": torch.randn(rows, config.state_dim, generator=g),
        "actions": torch.randn(rows, config.horizon, config.action_dim, generator=g),
    }


def noise(config: Pi0Config, rows: int = 2, seed: int = 2) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, config.horizon, config.action_dim, generator=g)


def training_data() -> TrainingData:
    rng = np.random.default_rng(0)
    statistics = {}
    for feature in ("observation.state", "action"):
        low = rng.uniform(-1, 0, len(JOINTS))
        statistics[feature] = {"mean": low + 0.5, "std": rng.uniform(0.1, 1, len(JOINTS)), "min": low, "max": low + 1.2,
                               "q01": low + 0.1, "q99": low + 1.1}
    instructions = ("touch the red cube", "Pick up the blue cube!")
    return TrainingData(JOINTS, CAMERAS, 0.1, statistics, instructions)


def sample(seed: int = 3, horizon: int = 4) -> Sample:
    rng = np.random.default_rng(seed)
    return Sample(
        images={name: rng.integers(0, 256, (1, 60, 80, 3), dtype=np.uint8) for name in CAMERAS},
        state=rng.normal(size=(1, len(JOINTS))),
        instruction="touch the red cube",
        actions=rng.normal(size=(horizon, len(JOINTS))),
        action_is_pad=np.arange(horizon) >= horizon - 1,
    )
