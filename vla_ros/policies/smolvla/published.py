"""Names of SmolVLA's tensors in published files."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vla_ros.policies.formats.weights import Shape, Tensors

_VLM, _EXPERT = r"vlm_with_expert\.vlm\.model\.", r"vlm_with_expert\.lm_expert\."
_ATTENTION = {"o_proj": "out", "q_proj": "query", "k_proj": "key", "v_proj": "value"}

# Key in the file (without `model.`) -> key in the module, or None for what no action depends on.
_RULES: tuple[tuple[str, str | None], ...] = (
    (r"vlm_with_expert\.vlm\.lm_head\.weight", None),  # words are never generated
    (_VLM + r"text_model\.norm\.weight", None),  # the last layer's tokens are not read
    (_VLM + r"vision_model\.embeddings\.patch_embedding\.(.*)", r"vision.patches.\1"),
    (_VLM + r"vision_model\.embeddings\.position_embedding\.weight", r"vision.positions"),
    (_VLM + r"vision_model\.encoder\.layers\.(\d+)\.layer_norm(\d)\.(.*)", r"vision.layers.\1.norm\2.\3"),
    (_VLM + r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.*)", r"vision.layers.\1.out.\2"),
    (_VLM + r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv\.(.*)", r"vision.layers.\1.qkv.\2"),
    (_VLM + r"vision_model\.encoder\.layers\.(\d+)\.mlp\.(fc\d)\.(.*)", r"vision.layers.\1.\2.\3"),
    (_VLM + r"vision_model\.post_layernorm\.(.*)", r"vision.norm.\1"),
    (_VLM + r"connector\.modality_projection\.proj\.weight", r"connector.weight"),
    (_VLM + r"text_model\.embed_tokens\.weight", r"embedding.weight"),
    (_VLM + r"text_model\.layers\.(\d+)\.(.*)", r"text.\1.\2"),
    (_EXPERT + r"layers\.(\d+)\.(.*)", r"expert.\1.\2"),
    (_EXPERT + r"norm\.weight", r"expert_norm.weight"),
    (r"state_proj\.(.*)", r"state_in.\1"),
    (r"action_(in|out)_proj\.(.*)", r"action_\1.\2"),
    (r"action_time_mlp_(in|out)\.(.*)", r"time_\1.\2"),
)
_LAYER = (
    (r"input_layernorm\.", "input_norm."), (r"post_attention_layernorm\.", "post_norm."),
    (r"mlp\.down_proj\.", "down."),
    (r"mlp\.gate_up\.", "gate_up."), (r"self_attn\.qkv\.", "qkv."),
    *((rf"self_attn\.{theirs}\.", f"{ours}.") for theirs, ours in _ATTENTION.items()),
)


def module_key(key: str) -> str | None:
    """A key of a LeRobot file, matrices stacked already (`Stacked`), to the module's; None for what is not used."""
    key = key.removeprefix("model.")
    for pattern, name in _RULES:
        match = re.fullmatch(pattern, key)
        if match is None:
            continue
        if name is None:
            return None
        key = match.expand(name)
        if key.startswith(("text.", "expert.")):
            for theirs, ours in _LAYER:
                key = re.sub(theirs, ours, key)
        return key
    return key


class Stacked:
    """The tensors of a published file with the matrices stacked that the module has in one piece.

    Queries, keys and values become `qkv` unless their inputs differ (cross layers), gate and up become `gate_up`.
    """

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._parts: dict[str, tuple[str, ...]] = {}
        for key in tensors.shapes:
            for first, others, name in (
                ("q_proj", ("k_proj", "v_proj"), "qkv"), ("gate_proj", ("up_proj",), "gate_up"),
            ):
                head, found, tail = key.partition(f".{first}.")
                parts = (key, *(f"{head}.{other}.{tail}" for other in others))
                known = found and all(part in tensors.shapes for part in parts)
                if known and len({tensors.shapes[part][1:] for part in parts}) == 1:
                    self._parts[f"{head}.{name}.{tail}"] = parts
        used = {part for parts in self._parts.values() for part in parts}
        self.shapes: Mapping[str, Shape] = {
            key: shape for key, shape in tensors.shapes.items() if key not in used
        } | {
            key: (sum(tensors.shapes[part][0] for part in parts), *tensors.shapes[parts[0]][1:])
            for key, parts in self._parts.items()
        }

    def read(self, key: str) -> Tensor:
        if key not in self._parts:
            return self._tensors.read(key)
        return torch.cat([self._tensors.read(part) for part in self._parts[key]])
