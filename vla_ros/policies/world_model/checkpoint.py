"""Declaration of the family of policies that plan with a world model."""

from typing import Any

from vla_ros.nn.words import make_vocabulary
from vla_ros.policies.family import Family
from vla_ros.policies.options import TrainingData
from vla_ros.policies.world_model.config import WorldModelConfig
from vla_ros.policies.world_model.model import WorldModel
from vla_ros.policies.world_model.processor import WorldModelProcessor


def _fresh(values: dict[str, Any], data: TrainingData) -> tuple[dict[str, Any], None]:
    state_dim, action_dim = data.widths
    vocabulary = make_vocabulary(data.instructions)
    return {"cameras": data.cameras, "state_dim": state_dim, "action_dim": action_dim, "vocabulary": vocabulary}, None


FAMILY = Family(
    "world_model", WorldModelConfig, WorldModel, WorldModelProcessor, title="world model", fresh=_fresh,
    overrides=("planner", "candidates", "rounds", "elites", "temperature", "doubt"),
)
