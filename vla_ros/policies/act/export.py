"""An ACT in the form of LeRobot 0.6.1."""

from vla_ros.core.errors import InputError
from vla_ros.policies.act.config import LEROBOT_FIELDS
from vla_ros.policies.act.model import ACT
from vla_ros.policies.formats.lerobot_writer import PLAIN_STEPS, Form
from vla_ros.policies.processor import StandardProcessor


def to_lerobot(policy: ACT, processor: StandardProcessor) -> Form:
    """Raises InputError that names what LeRobot does not have."""
    config = policy.config
    if config.vocabulary:
        raise InputError("export: it reads instructions (policy.language: true), which LeRobot's ACT does not")
    for name, expected in (("backbone_norm", "frozen_batch"), ("backbone_width", 64)):
        if (found := getattr(config, name)) != expected:
            raise InputError(f"export: policy.{name} {found!r}, LeRobot's ACT has {expected!r}")
    if not config.vision_backbone.startswith("resnet"):
        raise InputError(f"export: vision_backbone {config.vision_backbone!r}, LeRobot's ACT has resnet18 to resnet152")
    fields = {name: getattr(config, name) for name in LEROBOT_FIELDS} | {
        "type": "act", "n_obs_steps": 1, "pretrained_backbone_weights": None, "temporal_ensemble_coeff": None,
        "replace_final_stride_with_dilation": int(config.replace_final_stride_with_dilation),
    }  # fmt: skip
    tensors = ((f"model.{name}", tensor) for name, tensor in policy.state_dict().items())
    return Form(fields, PLAIN_STEPS, {"exact": ""}, tensors)
