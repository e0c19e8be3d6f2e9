"""Declaration of the ACT family."""

from vla_ros.policies.act.config import ACTConfig
from vla_ros.policies.act.export import to_lerobot
from vla_ros.policies.act.model import ACT
from vla_ros.policies.act.processor import ACTProcessor
from vla_ros.policies.family import Family, lerobot

# A buffer that follows from the sizes; files may omit it.
LEROBOT = lerobot(
    "act", rename=lambda config, keys: module_key, fit="exact", optional=("vae_encoder_pos_enc",), export=to_lerobot
)


def module_key(key: str) -> str:
    """Convert a key of a LeRobot file to the module's."""
    return key.removeprefix("model.")


FAMILY = Family(
    "act", ACTConfig, ACT, ACTProcessor, title="ACT", layouts={"lerobot": LEROBOT},
    defaults={"backbone_norm": "group", "n_action_steps": 1},
)
