"""PaliGemma (Beyer et al. 2024, https://arxiv.org/abs/2407.07726) as used by RoboVLMs: every token, including those
of images, only attends to the tokens before it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.core.records import Words
from vla_ros.nn.attention import KeyValueCache, causal_mask
from vla_ros.nn.embeddings import rotary_table
from vla_ros.nn.gemma import GemmaSize, GemmaTower
from vla_ros.nn.siglip import Siglip, SiglipSize
from vla_ros.policies.formats.transformers_names import decoder, siglip
from vla_ros.policies.formats.weights import Unused
from vla_ros.policies.robovlms.backbone import Backbone, Shapes
from vla_ros.policies.robovlms.published import check_tower, clip_size, depth_of, heads_of, sized


def check_gemma(size: GemmaSize) -> None:
    """Raises InputError for invalid sizes of a text tower."""
    if size.heads % size.kv_heads or size.head_dim % 2 or not size.depth:
        raise InputError(f"robovlms: text of depth {size.depth}, {size.heads} heads, {size.kv_heads} of keys, each of "
                         f"{size.head_dim}: expected a layer, the second to divide the first, the third to be even")


@dataclass(frozen=True)
class PaliGemmaSize:
    """PaliGemma-3B: SigLIP so400m/14 at 224 pixels, a Gemma of 2 B, vocabulary 257216."""

    vision: SiglipSize
    text: GemmaSize
    vocabulary: Words

    def __post_init__(self) -> None:
        check_tower(self.vision)
        check_gemma(self.text)

    width = property(attrgetter("text.width"))
    image = property(attrgetter("vision.image"))


_TEXT, _VISION = r"backbone\.language_model\.", r"backbone\.vision_tower\.vision_model"
RULES = (
    (_TEXT + r"(?:lm_head|model\.embed_tokens)\.weight", "backbone.embedding.weight"),
    *decoder(_TEXT + "model", "backbone.tower.layers"),
    (_TEXT + r"model\.norm\.(.*)", r"backbone.tower.norm.\1"),
    (r"backbone\.multi_modal_projector\.linear\.(.*)", r"backbone.projector.\1"),
    (_VISION + r"\.head\..*", Unused("the tower's pooled feature is not read")),
    *siglip(_VISION, "backbone.vision"),
)


class Gemma(Backbone):
    """Gemma multiplies all its inputs by sqrt(width); its size has `text`, a `GemmaSize`."""

    keys = property(lambda self: (self.size.text.kv_heads, self.size.text.head_dim))
    layers = property(lambda self: self.tower.layers)

    def __init__(self, size: Any, cameras: int) -> None:
        super().__init__(size, cameras)
        self.scale = math.sqrt(size.width)
        self.tower = GemmaTower(size.text)

    def read(self, x: Tensor, valid: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        size, (rows, length) = self.size.text, x.shape[:2]
        start = valid.shape[1] - length
        places = torch.arange(start, start + length, device=x.device)[None]
        mask = causal_mask(valid, 1)[:, :, start:].repeat_interleave(size.heads // size.kv_heads, dim=2)
        x = (x * self.scale).to(self.embedding.weight.dtype)
        kept = self.cache(rows, length) if cache is None else cache
        return self.tower(x, rotary_table(places, size.head_dim), kept, mask, keep=True)


class PaliGemma(Gemma):
    """Features of images are divided by the factor with which Gemma multiplies its inputs."""

    Size = PaliGemmaSize

    def __init__(self, size: PaliGemmaSize, cameras: int) -> None:
        super().__init__(size, cameras)
        self.vision = Siglip(size.vision)
        self.projector = nn.Linear(size.vision.hidden, size.width)

    @classmethod
    def rules(cls, size: PaliGemmaSize) -> tuple[tuple[str, str], ...]:
        return RULES

    @classmethod
    def size_of(cls, shapes: Shapes, said: Mapping[str, Any], where: str) -> PaliGemmaSize:
        text = "language_model.model."
        vocabulary, width = sized(shapes, (text + "embed_tokens.weight", "language_model.lm_head.weight"), 2, where)
        inner, _ = sized(shapes, (text + "layers.0.self_attn.q_proj.weight",), 2, where)
        shared, _ = sized(shapes, (text + "layers.0.self_attn.k_proj.weight",), 2, where)
        mlp, _ = sized(shapes, (text + "layers.0.mlp.up_proj.weight",), 2, where)
        heads = heads_of(said, "text_config", ("num_attention_heads",), width, {2048: 8}, where)
        gemma = GemmaSize(width, depth_of(shapes, text + "layers"), mlp, heads, shared * heads // inner, inner // heads)
        return PaliGemmaSize(clip_size(shapes, "vision_tower.vision_model.", said, where), gemma, vocabulary)

    def see(self, images: Tensor, text: Tensor, valid: Tensor) -> Tensor:
        features = self.vision(images.flatten(0, 1))
        return (self.projector(features) / self.scale).unflatten(0, images.shape[:2])
