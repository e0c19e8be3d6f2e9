"""Names of GR00T's tensors in published files."""

import re
from collections.abc import Collection

from vla_ros.policies.formats.transformers_names import decoder, siglip
from vla_ros.policies.formats.weights import Rename, Unused, renamed
from vla_ros.policies.groot.config import GrootConfig

PREFIX = "_groot_model."  # LeRobot's
_TEXT, _HEAD = r"backbone\.(?:eagle_model|model)\.(?:model\.)?language_model(?:\.model)?", r"action_head\."
_EAGLE, _QWEN = r"backbone\.(?:eagle_model|model)\.", r"backbone\.model\.model\.visual\."
_BLOCK, _VL = _HEAD + r"model\.transformer_blocks\.(\d+)\.", _HEAD + r"vl_self_attention\.transformer_blocks\.(\d+)\."
UNREAD = Unused("the text tower's last norm is not applied")

RULES = (
    (_EAGLE + r"vision_model\.vision_model\.head\..*", Unused("images are not pooled")),
    *((theirs, ours.replace("backbone.vision.patches", "backbone.vision.embed.patches").replace(
        "backbone.vision.positions", "backbone.vision.embed.positions"))
      for theirs, ours in siglip(_EAGLE + r"vision_model\.vision_model", "backbone.vision")),
    (_EAGLE + r"mlp1\.(.*)", r"backbone.vision.connector.\1"),
    (_QWEN + r"patch_embed\.proj\.(.*)", r"backbone.vision.embed.patches.\1"),
    (_QWEN + r"pos_embed\.weight", "backbone.vision.embed.positions"),
    (_QWEN + r"blocks\.(\d+)\.attn\.qkv\.(.*)", r"backbone.vision.layers.\1.qkv.\2"),
    (_QWEN + r"blocks\.(\d+)\.attn\.proj\.(.*)", r"backbone.vision.layers.\1.out.\2"),
    (_QWEN + r"blocks\.(\d+)\.mlp\.linear_(fc\d)\.(.*)", r"backbone.vision.layers.\1.\2.\3"),
    (_QWEN + r"blocks\.(\d+)\.(norm\d\..*)", r"backbone.vision.layers.\1.\2"),
    (_QWEN + r"merger\.linear_(fc\d\..*)", r"backbone.vision.merger.\1"),
    (_QWEN + r"merger\.(norm\..*)", r"backbone.vision.merger.\1"),
    (_QWEN + r"deepstack_merger_list\.(\d+)\.linear_(fc\d\..*)", r"backbone.vision.deep_mergers.\1.\2"),
    (_QWEN + r"deepstack_merger_list\.(\d+)\.(norm\..*)", r"backbone.vision.deep_mergers.\1.\2"),
    (_TEXT + r"\.layers\.(\d+)\.self_attn\.q_norm\.(.*)", r"backbone.layers.\1.query_norm.\2"),
    (_TEXT + r"\.layers\.(\d+)\.self_attn\.k_norm\.(.*)", r"backbone.layers.\1.key_norm.\2"),
    *decoder(_TEXT, "backbone.layers"),
    (_TEXT + r"\.embed_tokens\.weight", "backbone.embedding.weight"),
    (_TEXT + r"\.norm\.weight", "backbone.norm.weight"),
    (r"backbone\.(?:eagle_)?linear\.(.*)", r"backbone.projection.\1"),
    (_HEAD + r"vlln\.(.*)", r"vl_norm.\1"),
    (_VL + r"norm1\.(.*)", r"vl_layers.\1.norm1.\2"),
    (_VL + r"norm3\.(.*)", r"vl_layers.\1.norm2.\2"),
    *((_VL + rf"attn1\.to_{name}\.(.*)", rf"vl_layers.\1.qkv.\2[{n}]") for n, name in enumerate("qkv")),
    (_VL + r"attn1\.to_out\.0\.(.*)", r"vl_layers.\1.out.\2"),
    (_VL + r"ff\.net\.0\.proj\.(.*)", r"vl_layers.\1.fc1.\2"),
    (_VL + r"ff\.net\.2\.(.*)", r"vl_layers.\1.fc2.\2"),
    *((_HEAD + rf"{theirs}\.layer(\d)\.{kind}", rf"head.{ours}.layer\1.{name}")
      for theirs, ours in (("state_encoder", "state_in"), ("action_decoder", "action_out"))
      for kind, name in (("W", "weight"), ("b", "bias"))),
    (_HEAD + r"action_encoder\.W(\d)\.W", r"head.action_in.layer\1.weight"),
    (_HEAD + r"action_encoder\.W(\d)\.b", r"head.action_in.layer\1.bias"),
    (_HEAD + r"future_tokens\.weight", "head.future"),
    (_HEAD + r"position_embedding\.weight", "head.positions"),
    (_HEAD + r"mask_token", "head.mask_token"),
    (_HEAD + r"dropout_prob_by_embodiment", Unused("how often training drops a state")),
    (_HEAD + r"model\.timestep_encoder\.timestep_embedder\.linear_(\d)\.(.*)", r"head.time_\1.\2"),
    (_BLOCK + r"norm1\.linear\.(.*)", r"head.layers.\1.modulation.\2"),
    *((_BLOCK + rf"attn1\.to_{name}\.(.*)", rf"head.layers.\1.qkv.\2[{n}]") for n, name in enumerate("qkv")),
    (_BLOCK + r"attn1\.to_out\.0\.(.*)", r"head.layers.\1.out.\2"),
    (_BLOCK + r"ff\.net\.0\.proj\.(.*)", r"head.layers.\1.fc1.\2"),
    (_BLOCK + r"ff\.net\.2\.(.*)", r"head.layers.\1.fc2.\2"),
    (_HEAD + r"model\.proj_out_1\.(.*)", r"head.modulation.\1"),
    (_HEAD + r"model\.proj_out_2\.(.*)", r"head.out.\1"),
)
# LeRobot's names for N1.7, for export.
N1_7 = tuple((key.replace(_TEXT, r"backbone\.model\.model\.language_model"), name) for key, name in RULES
             if not key.startswith((_EAGLE + "vision", _EAGLE + "mlp1", r"backbone\.(?:")) or key.startswith(_TEXT))
_LM_HEAD = re.compile(r"backbone\.(?:eagle_model|model)\.(?:language_model\.)?lm_head\.weight")
_CROSS = re.compile(r"head\.layers\.(\d*[02468])\.qkv\.(weight|bias)\[(\d)\]")
_LAYER = re.compile(r"backbone\.(layers|vision\.layers)\.(\d+)\..*")


def rename(config: GrootConfig, keys: Collection[str]) -> Rename:
    """From a file's keys to the module's.

    In every second DiT layer, queries are separate from keys and values. The embedding is stored under its own name, as
    the language head, or both; it is read once. Layers that are not run are not read.
    """
    embedded = any(key.endswith("embed_tokens.weight") for key in keys)
    run = {"layers": config.text_layers, "vision.layers": config.vision.depth + 1 + config.vision_select}

    def name(key: str) -> str:
        key = key.removeprefix(PREFIX)
        if _LM_HEAD.fullmatch(key):
            return Unused("the same as the embedding") if embedded else "backbone.embedding.weight"
        found = renamed(key, RULES)
        if match := _CROSS.fullmatch(found):
            part = f"head.layers.{match[1]}."
            return f"{part}query.{match[2]}" if match[3] == "0" else f"{part}key_value.{match[2]}[{int(match[3]) - 1}]"
        if (match := _LAYER.fullmatch(found)) and int(match[2]) >= run[match[1]]:
            return Unused("layers after the one whose state is used")
        if found == "backbone.norm.weight" and config.generation == "n1.7":
            return UNREAD
        if found.startswith("backbone.vision.norm.") and config.vision_select != -1:
            return Unused("layers after the one whose state is used")
        return found

    return name
