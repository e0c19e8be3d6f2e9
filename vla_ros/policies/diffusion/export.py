"""A Diffusion Policy in the form of LeRobot 0.6.1."""

from vla_ros.core.errors import InputError
from vla_ros.policies.diffusion.config import LEROBOT_FIELDS
from vla_ros.policies.diffusion.model import DiffusionPolicy
from vla_ros.policies.diffusion.names import RULES
from vla_ros.policies.formats.inverse import published
from vla_ros.policies.formats.lerobot_writer import PLAIN_STEPS, Form
from vla_ros.policies.processor import StandardProcessor

OURS = ("clip_text", "language_dim", "language_dropout")


def to_lerobot(policy: DiffusionPolicy, processor: StandardProcessor) -> Form:
    """Raises InputError that names what LeRobot does not have."""
    config = policy.config
    if config.vocabulary:
        raise InputError("export: it reads instructions (policy.language: true), which LeRobot's does not")
    for name, expected in (("clip_text", None), ("backbone_width", 64)):
        if (found := getattr(config, name)) != expected:
            raise InputError(f"export: policy.{name} {found!r}, LeRobot's Diffusion Policy has {expected!r}")
    if not config.vision_backbone.startswith("resnet"):
        raise InputError(f"export: vision_backbone {config.vision_backbone!r}, LeRobot's has resnet18 to resnet152")
    rows = min(config.n_action_steps, config.horizon)
    fields = {name: getattr(config, name) for name in LEROBOT_FIELDS if name not in OURS} | {
        "type": "diffusion", "horizon": config.unet_horizon, "n_action_steps": rows,
        "pretrained_backbone_weights": None, "drop_n_last_frames": config.horizon - rows,
    }  # fmt: skip
    tensors = ((f"diffusion.{key}", tensor) for key, tensor in published(policy.state_dict(), RULES))
    return Form(fields, PLAIN_STEPS, {"exact": ""}, tensors)
