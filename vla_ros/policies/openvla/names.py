"""Names of OpenVLA's tensors in published files; in OFT's further files the file's name and ":" come first."""

import re
from collections.abc import Collection

from vla_ros.policies.formats.transformers_names import decoder
from vla_ros.policies.formats.weights import Rename, Unused, renamed
from vla_ros.policies.openvla.config import OpenVLAConfig

_READ_EARLIER = Unused("only the blocks up to the second-to-last of each tower are used")
_RESNET = r"action_head:(?:model|noise_predictor\.mlp_resnet)\."
RULES = (
    *((rf"projector\.fc{n + 1}\.(.*)", rf"vision.projector.{n}.\1") for n in range(3)),
    (r"language_model\.model\.embed_tokens\.weight", "embedding.weight"),
    (r"language_model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", Unused("computed")),
    *decoder(r"language_model\.model", "layers"),
    (r"language_model\.model\.norm\.weight", "norm.weight"),
    (r"language_model\.lm_head\.weight", "head.weight"),
    (r"proprio_projector:(.*)", r"proprio.\1"),
    (r"noisy_action_projector:(.*)", r"noisy_actions.\1"),
    (_RESNET + r"layer_norm1\.(.*)", r"action_head.norm_in.\1"),
    (_RESNET + r"layer_norm2\.(.*)", r"action_head.norm_out.\1"),
    (_RESNET + r"(fc\d)\.(.*)", r"action_head.\1.\2"),
    (_RESNET + r"mlp_resnet_blocks\.(\d+)\.ffn\.0\.(.*)", r"action_head.blocks.\1.norm.\2"),
    (_RESNET + r"mlp_resnet_blocks\.(\d+)\.ffn\.1\.(.*)", r"action_head.blocks.\1.linear.\2"),
)


def _tower(theirs: str, ours: str, depth: int) -> tuple[tuple[str, str], ...]:
    """Rules of a timm tower of `depth` blocks; FiLM wraps each block in a `block`."""
    theirs, ours = rf"vision_backbone\.{theirs}\.", f"vision.towers.{ours}."
    block, mine = theirs + r"blocks\.(\d+)\.(?:block\.)?", ours + r"blocks.\1."
    return (
        (rf"{theirs}(blocks\.{depth - 1}|norm|attn_pool)\..*", _READ_EARLIER),
        (theirs + "cls_token", ours + "class_token"),
        (theirs + "reg_token", ours + "registers"),
        (theirs + "pos_embed", ours + "positions"),
        (theirs + r"patch_embed\.proj\.(.*)", ours + r"patches.\1"),
        (block + r"attn\.qkv\.(.*)", mine + r"qkv.\2"),
        (block + r"attn\.proj\.(.*)", mine + r"out.\2"),
        (block + r"mlp\.(fc\d)\.(.*)", mine + r"\2.\3"),
        (block + r"(norm\d|scale|shift)\.(.*)", mine + r"\2.\3"),
        (block + r"(ls\d)\.(?:scale_factor|gamma)", mine + r"\2"),
    )


def rename(config: OpenVLAConfig, keys: Collection[str]) -> Rename:
    """From a published file's keys to the module's."""
    files = dict(zip(config.towers, ("featurizer", "fused_featurizer"), strict=False))
    towers = (rule for name, size in config.towers.items() for rule in _tower(files[name], name, size.depth))
    rules = (*towers, *RULES)
    return lambda key: renamed(re.sub(r"^(vision_backbone\.)+", "vision_backbone.", key), rules)
