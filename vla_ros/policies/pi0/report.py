"""What `vla-ros info` says about a π0 policy."""

from collections.abc import Mapping

from vla_ros.nn.meta import without_numbers
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.pi0.processor import Pi0Processor


def parameter_count(config: Pi0Config) -> int:
    """Parameters of the network, the text embedding counted once; nothing is allocated."""
    with without_numbers():
        return sum(parameter.numel() for parameter in Pi0(config).parameters())


def report(config: Pi0Config, processor: Pi0Processor | None = None) -> Mapping[str, str]:
    """Title -> value, in the order in which they are printed."""
    vision, side = "SigLIP" if isinstance(config.vision, SiglipSize) else "keypoint stem", config.vision.image
    rows = {
        "model": "π0.5 (adaptive norms)" if config.adaptive else "π0",
        "parameters": f"{parameter_count(config):,}",
        "vision": f"{vision}, {side}x{side} pixels, {config.vision.tokens} tokens a camera",
        "prefix": f"width {config.prefix.width}, depth {config.prefix.depth}, MLP {config.prefix.mlp}",
        "expert": f"width {config.expert.width}, depth {config.expert.depth}, MLP {config.expert.mlp}",
        "cameras": ", ".join(config.cameras),
        "state": f"{config.state_dim} dimensions",
        "actions": f"{config.action_dim} dimensions",
        "horizon": f"{config.horizon} rows, {config.step_dt:g} s apart ({config.horizon * config.step_dt:g} s)",
        "denoising": f"{config.num_steps} steps",
        "prompt": f"{config.prompt}, up to {config.text_length} tokens",
    }
    if processor is None:
        return rows
    embodiment = processor.embodiment
    rows["cameras"] = ", ".join(
        f"{name} (absent)" if robot is None else name if robot == name else f"{name} from {robot}"
        for name, robot in ((name, embodiment.cameras[name]) for name in config.cameras)
    )
    rows["state"] = f"{len(embodiment.state)} of {config.state_dim} dimensions, normalised by {processor.state.mode}"
    modes = sorted({d.mode for d in embodiment.actions if d.joint is not None})
    rows["actions"] = (
        f"{len(embodiment.actions)} of {config.action_dim} dimensions, {' and '.join(modes)}, "
        f"normalised by {processor.actions.mode}"
    )
    rows["joints"] = ", ".join(processor.joints)
    return rows
