"""Names of SmolVLA's tensors in published files."""

import re
from collections.abc import Collection

from vla_ros.policies.formats.transformers_names import decoder, siglip
from vla_ros.policies.formats.weights import Rename, Unused, renamed
from vla_ros.policies.smolvla.config import SmolVLAConfig

_VLM, _EXPERT = r"vlm_with_expert\.vlm\.model\.", r"vlm_with_expert\.lm_expert"
# Key in the file (without `model.`) -> key in the module.
RULES = (
    (r"vlm_with_expert\.vlm\.lm_head\.weight", Unused("words are never generated")),
    (_VLM + r"text_model\.norm\.weight", Unused("the text tower's last tokens are not read")),
    *siglip(_VLM + "vision_model", "vision"),
    (_VLM + r"connector\.modality_projection\.proj\.weight", "connector.weight"),
    (_VLM + r"text_model\.embed_tokens\.weight", "embedding.weight"),
    *decoder(_VLM + "text_model", "text"),
    *decoder(_EXPERT, "expert"),
    (_EXPERT + r"\.norm\.weight", "expert_norm.weight"),
    (r"state_proj\.(.*)", r"state_in.\1"),
    (r"action_(in|out)_proj\.(.*)", r"action_\1.\2"),
    (r"action_time_mlp_(in|out)\.(.*)", r"time_\1.\2"),
)
_CROSS = re.compile(r"expert\.(\d+)\.qkv\.weight\[(\d)\]")


def rename(config: SmolVLAConfig, keys: Collection[str]) -> Rename:
    """From a LeRobot file's keys to the module's; in cross layers, queries, keys and values are separate."""

    def name(key: str) -> str:
        found = renamed(key.removeprefix("model."), RULES)
        match = _CROSS.fullmatch(found)
        if match and config.is_cross(int(match[1])):
            return f"expert.{match[1]}.{('query', 'key', 'value')[int(match[2])]}.weight"
        return found

    return name
