"""Names of GO-1's tensors in published files."""

from collections.abc import Collection
from typing import Any

from vla_ros.policies.formats.weights import Rename, Unused, renamed


def _tower(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    """Of an InternLM2 tower's layers."""
    layer, mine = rf"{theirs}\.layers\.(\d+)\.", rf"{ours}.\1."
    return (
        (layer + r"attention\.wqkv\.(.*)", mine + r"qkv.\2"),
        (layer + r"attention\.wo\.(.*)", mine + r"out.\2"),
        (layer + r"attention_norm\.(.*)", mine + r"input_norm.\2"),
        (layer + r"ffn_norm\.(.*)", mine + r"post_norm.\2"),
        (layer + r"feed_forward\.w1\.(.*)", mine + r"gate_up.\2[0]"),
        (layer + r"feed_forward\.w3\.(.*)", mine + r"gate_up.\2[1]"),
        (layer + r"feed_forward\.w2\.(.*)", mine + r"down.\2"),
    )


_VISION, _LAYER = r"vision_model\.embeddings\.", r"vision_model\.encoder\.layers\.(\d+)\."
_LAST = Unused("the tower's last tokens are not read")
_PLANNER = r"latent_planner\."
RULES = (
    (r"language_model\.output\.weight", Unused("words are never generated")),
    (r"language_model\.model\.norm\.weight", _LAST),
    (_PLANNER + r"latent_action_expert\.norm\.weight", _LAST),
    (_PLANNER + r"(score|latent_final_layer)\..*", Unused("the planner's latent actions are not read out")),
    (_VISION + "class_embedding", "vision.first"),
    (_VISION + "position_embedding", "vision.positions"),
    (_VISION + r"patch_embedding\.(.*)", r"vision.patches.\1"),
    (_LAYER + r"attn\.qkv\.(.*)", r"vision.layers.\1.qkv.\2"),
    (_LAYER + r"attn\.proj\.(.*)", r"vision.layers.\1.out.\2"),
    (_LAYER + r"mlp\.(.*)", r"vision.layers.\1.\2"),
    (_LAYER + r"ls(\d)", r"vision.layers.\1.scale\2"),
    (_LAYER + r"(norm\d\..*)", r"vision.layers.\1.\2"),
    (r"mlp1\.(.*)", r"connector.\1"),
    (r"language_model\.model\.tok_embeddings\.weight", "embedding.weight"),
    *_tower(r"language_model\.model", "text"),
    *_tower("action_model", "expert"),
    *_tower(_PLANNER + "latent_action_expert", "planner.layers"),
    (r"action_model\.norm\.(.*)", r"expert_norm.\1"),
    (r"k_proj_layers\.(.*)", r"bridge.keys.\1"),
    (r"v_proj_layers\.(.*)", r"bridge.values.\1"),
    (_PLANNER + r"latent_k_proj_layers\.(.*)", r"planner.bridge.keys.\1"),
    (_PLANNER + r"latent_v_proj_layers\.(.*)", r"planner.bridge.values.\1"),
    (_PLANNER + r"latent_state_action_adaptor\.(.*)", r"planner.token_in.\1"),
    (r"time_embedder\.mlp\.(.*)", r"time_in.\1"),
    (r"freq_embedder\.mlp\.(.*)", r"frequency_in.\1"),
    (r"(state|action)_adaptor\.(.*)", r"\1_in.\2"),
    (r"final_layer\.norm_final\.(.*)", r"action_norm.\1"),
    (r"final_layer\.ffn_final\.fc1\.(.*)", r"action_out.0.\1"),
    (r"final_layer\.ffn_final\.fc2\.(.*)", r"action_out.2.\1"),
)


def rename(config: Any, keys: Collection[str]) -> Rename:
    """From a published file's keys to the module's."""
    return lambda key: renamed(key, RULES)
