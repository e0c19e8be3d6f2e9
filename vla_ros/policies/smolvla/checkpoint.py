"""Declaration of the SmolVLA family."""

from collections.abc import Mapping
from typing import Any

from vla_ros.policies.family import Family, lerobot
from vla_ros.policies.options import TrainingData
from vla_ros.policies.smolvla.config import SmolVLAConfig
from vla_ros.policies.smolvla.export import to_lerobot
from vla_ros.policies.smolvla.model import SmolVLA
from vla_ros.policies.smolvla.names import rename
from vla_ros.policies.smolvla.processor import SmolVLAProcessor
from vla_ros.policies.tokenizer import Tokenizer, word_tokenizer


def _fresh(values: dict[str, Any], data: TrainingData) -> tuple[dict[str, Any], Tokenizer]:
    """A tokenizer of the instructions' words; its size is set in `vlm`."""
    tokenizer = word_tokenizer(data.instructions)
    vlm = values.get("vlm")
    if isinstance(vlm, Mapping) and isinstance(vlm.get("text"), Mapping):
        values["vlm"] = {**vlm, "text": {**vlm["text"], "vocabulary": tokenizer.size}}
    for name, width in zip(("max_state_dim", "max_action_dim"), data.widths, strict=True):
        values.setdefault(name, width)
    return {"state_dim": data.widths[0], "real_action_dim": data.widths[1], "cameras": data.cameras}, tokenizer


FAMILY = Family(
    "smolvla", SmolVLAConfig, lambda config: SmolVLA(config).freeze(), SmolVLAProcessor, title="SmolVLA",
    layouts={"lerobot": lerobot("smolvla", rename=rename, fit="pad_unrounded_top_left", export=to_lerobot)},
    fit="pad_top_left",
    defaults={"train_expert_only": False, "freeze_vision_encoder": False},
    overrides=("num_steps",),
    fresh=_fresh,
)
