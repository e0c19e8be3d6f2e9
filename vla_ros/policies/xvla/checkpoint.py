"""Declaration of the X-VLA family."""

from collections.abc import Mapping
from typing import Any

from vla_ros.policies.family import Family, lerobot
from vla_ros.policies.formats.lerobot import LeRobotFolder
from vla_ros.policies.options import LoadOptions, TrainingData
from vla_ros.policies.tokenizer import Tokenizer, word_tokenizer
from vla_ros.policies.xvla.config import XvlaConfig
from vla_ros.policies.xvla.export import to_lerobot
from vla_ros.policies.xvla.model import Xvla
from vla_ros.policies.xvla.names import rename
from vla_ros.policies.xvla.processor import XvlaProcessor


def _fit(folder: LeRobotFolder, options: LoadOptions) -> tuple[str, str]:
    return "exact" if folder.config.get("resize_imgs_with_padding") is None else "pad_unrounded_mean", ""


def _fresh(values: dict[str, Any], data: TrainingData) -> tuple[dict[str, Any], Tokenizer]:
    """A tokenizer of the instructions' words; its size is set in `florence`."""
    tokenizer = word_tokenizer(data.instructions)
    if isinstance(values.get("florence"), Mapping):
        values["florence"] = {**values["florence"], "vocabulary": tokenizer.size}
    for name, width in zip(("max_state_dim", "max_action_dim"), data.widths, strict=True):
        values.setdefault(name, width)
    values.setdefault("views", len(data.cameras))
    return {"state_dim": data.widths[0], "real_action_dim": data.widths[1], "cameras": data.cameras}, tokenizer


FAMILY = Family(
    "xvla", XvlaConfig, lambda config: Xvla(config).freeze(), XvlaProcessor, title="X-VLA",
    layouts={"lerobot": lerobot("xvla", rename=rename, fit=_fit, export=to_lerobot)},
    fit="pad_unrounded_mean",
    defaults={"action_mode": "auto", "num_domains": 1, "domain_id": 0},
    overrides=("num_steps", "domain_id"),
    fresh=_fresh,
)
