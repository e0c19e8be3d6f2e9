"""Names of X-VLA's tensors in published files, with Florence-2 as Microsoft or as transformers writes it."""

from collections.abc import Collection

from vla_ros.policies.formats.weights import Rename, Unused, renamed
from vla_ros.policies.xvla.config import TRANSPOSED, XvlaConfig

_PROJECTOR = r"vlm\.(?:multi_modal_projector\.)?"
_BLOCK = r"vlm\.(vision_tower\.blocks\.\d+\.\d+\.(?:spatial|channel)_block)\."
_ENCODER = r"vlm\.language_model\.(?:model\.)?"
COMPUTED = Unused("computed from its size")
# Key in the file (without `model.`) -> key in the module; the first rule that matches is used.
RULES = (
    (r"vlm\.vision_tower\.convs\.(\d+)\.proj\.(.*)", r"vision_tower.convs.\1.conv.\2"),
    (_BLOCK + r"(conv\d)\.fn\.dw\.(.*)", r"\1.\2.\3"),
    (_BLOCK + r"(?:window|channel)_attn\.norm\.(.*)", r"\1.norm1.\2"),
    (_BLOCK + r"(window_attn|channel_attn)\.fn\.(.*)", r"\1.\2.\3"),
    (_BLOCK + r"ffn\.norm\.(.*)", r"\1.norm2.\2"),
    (_BLOCK + r"ffn\.fn\.net\.(.*)", r"\1.ffn.\2"),
    (r"vlm\.(vision_tower\..*)", r"\1"),
    (_PROJECTOR + TRANSPOSED, "projector.matrix"),
    (_PROJECTOR + TRANSPOSED + r"\.weight", "projector.matrix"),
    (_PROJECTOR + r"image_proj_norm\.(.*)", r"projector.norm.\1"),
    (_PROJECTOR + r"image_pos(?:ition)?_embed\.row_embeddings\.weight", "projector.rows"),
    (_PROJECTOR + r"image_pos(?:ition)?_embed\.column_embeddings\.weight", "projector.columns"),
    (_PROJECTOR + r"visual_temporal_embed\.pos_idx_to_embed", COMPUTED),
    (r"vlm\.language_model\.final_logits_bias", Unused("words are never generated")),
    (_ENCODER + r"shared\.weight", "language.embed_tokens.weight"),
    (_ENCODER + r"encoder\.(.*)", r"language.\1"),
    (r"transformer\.(.*)", r"\1"),
)


def rename(config: XvlaConfig, keys: Collection[str]) -> Rename:
    """From a LeRobot file's keys to the module's; files contain the text embedding under one name or two."""
    twice = any(key.endswith("language_model.encoder.embed_tokens.weight") or
                key.endswith("language_model.model.encoder.embed_tokens.weight") for key in keys)

    def name(key: str) -> str:
        if twice and key.endswith(".shared.weight"):
            return Unused("the same as the encoder's embedding")
        return renamed(key.removeprefix("model."), RULES)

    return name
