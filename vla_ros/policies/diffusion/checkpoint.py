"""Declaration of the Diffusion Policy family."""

from vla_ros.policies.diffusion.config import DiffusionConfig
from vla_ros.policies.diffusion.export import to_lerobot
from vla_ros.policies.diffusion.model import DiffusionPolicy
from vla_ros.policies.diffusion.names import module_key
from vla_ros.policies.diffusion.processor import DiffusionProcessor
from vla_ros.policies.family import Family, lerobot

FAMILY = Family(
    "diffusion", DiffusionConfig, DiffusionPolicy, DiffusionProcessor, title="Diffusion Policy",
    layouts={"lerobot": lerobot("diffusion", rename=lambda config, keys: module_key, fit="exact", export=to_lerobot)},
    normalisation="min_max",
    overrides=("num_inference_steps", "noise_scheduler_type"),
)
