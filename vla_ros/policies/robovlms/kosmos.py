"""Kosmos-2 (Peng et al. 2023, https://arxiv.org/abs/2306.14824): CLIP, latent queries that attend to it, and a Magneto
decoder (Wang et al. 2022, https://arxiv.org/abs/2210.06423)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count, Inner, Layers, Width, Words
from vla_ros.nn.clip import Clip
from vla_ros.nn.norms import layer_normalised
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.formats.transformers_names import siglip
from vla_ros.policies.robovlms.backbone import Backbone, Shapes, check_heads
from vla_ros.policies.robovlms.published import check_tower, clip_size, depth_of, heads_of, sized

FIRST_PLACE = 2  # after the padding's id, 1


@dataclass(frozen=True)
class KosmosSize:
    """Kosmos-2 is 2048 wide, of 24 layers, 32 heads, mlp 8192, vocabulary 65037, with 64 latents."""

    vision: SiglipSize
    width: Width
    depth: Layers
    heads: Count
    mlp: Inner
    vocabulary: Words
    latents: Width = 64

    def __post_init__(self) -> None:
        check_tower(self.vision)
        check_heads("kosmos", self.width, self.heads)
        if self.width < 4:
            raise InputError(f"robovlms: kosmos {self.width} wide, expected 4 or more")

    @property
    def image(self) -> int:
        return self.vision.image


class Resampled(nn.Module):
    """Latent queries that attend to an image's features and to themselves, unmasked."""

    def __init__(self, size: KosmosSize) -> None:
        super().__init__()
        self.heads, width = size.heads, size.width
        self.latents = nn.Parameter(torch.randn(size.latents, width))
        self.dense = nn.Linear(size.vision.hidden, width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, features: Tensor) -> Tensor:
        """(N, tokens, hidden) to (N, latents, width)."""
        latents = self.latents.expand(len(features), -1, -1)
        known = torch.cat([self.dense(features), latents], dim=1)
        parts = self.query(latents), self.key(known), self.value(known)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(query, key, value)  # without a mask
        return self.out(attended.transpose(1, 2).flatten(2))


class KosmosLayer(nn.Module):
    """LayerNorm, attention, LayerNorm, output; LayerNorm, fc1, GELU, LayerNorm, fc2."""

    def __init__(self, size: KosmosSize) -> None:
        super().__init__()
        width, self.heads = size.width, size.heads
        self.norm1, self.inner_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm2, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(size.mlp)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, size.mlp), nn.Linear(size.mlp, width)

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, S, width) to query, key and value, (N, heads, S, width / heads)."""
        return self.qkv(layer_normalised(self.norm1, x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """(N, S, width), with attention and the MLP added."""
        x = x + self.out(layer_normalised(self.inner_norm, attended))
        hidden = functional.gelu(self.fc1(layer_normalised(self.norm2, x)))
        return x + self.fc2(layer_normalised(self.mlp_norm, hidden))


_LAYER, _MINE = r"backbone\.text_model\.model\.layers\.(\d+)\.", r"backbone.layers.\1."
_ATTENTION = r"backbone\.image_to_text_projection\."
RULES = (
    (r"backbone\.text_model\.(?:lm_head|model\.embed_tokens)\.weight", "backbone.embedding.weight"),
    (r"backbone\.text_model\.model\.layer_norm\.(.*)", r"backbone.norm.\1"),
    *((_LAYER + rf"self_attn\.{name}_proj\.(.*)", _MINE + rf"qkv.\2[{n}]") for n, name in enumerate("qkv")),
    (_LAYER + r"self_attn\.out_proj\.(.*)", _MINE + r"out.\2"),
    (_LAYER + r"self_attn\.inner_attn_ln\.(.*)", _MINE + r"inner_norm.\2"),
    (_LAYER + r"self_attn_layer_norm\.(.*)", _MINE + r"norm1.\2"),
    (_LAYER + r"final_layer_norm\.(.*)", _MINE + r"norm2.\2"),
    (_LAYER + r"ffn\.ffn_layernorm\.(.*)", _MINE + r"mlp_norm.\2"),
    (_LAYER + r"ffn\.(fc\d)\.(.*)", _MINE + r"\2.\3"),
    (_ATTENTION + "latent_query", "backbone.resampled.latents"),
    (_ATTENTION + r"dense\.(.*)", r"backbone.resampled.dense.\1"),
    *((_ATTENTION + rf"x_attn\.{theirs}_proj\.(.*)", rf"backbone.resampled.{ours}.\1")
      for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out"))),
    (r"backbone\.vision_model\.model\.post_layernorm\.(.*)", r"backbone.vision_norm.\1"),
    (r"backbone\.vision_model\.model\.embeddings\.class_embedding", "backbone.vision.class_token"),
    (r"backbone\.vision_model\.model\.pre_layrnorm\.(.*)", r"backbone.vision.norm_in.\1"),
    *siglip(r"backbone\.vision_model\.model", "backbone.vision"),
)


class Kosmos(Backbone):
    """Positions are sines and cosines, added to the scaled embeddings; padding has positions too."""

    Size = KosmosSize

    def __init__(self, size: KosmosSize, cameras: int) -> None:
        super().__init__(size, cameras)
        self.scale = math.sqrt(size.width)
        self.vision = Clip(size.vision)
        self.vision_norm = nn.LayerNorm(size.vision.hidden, eps=1e-5)
        self.resampled = Resampled(size)
        self.layers = nn.ModuleList(KosmosLayer(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width)

    @classmethod
    def rules(cls, size: KosmosSize) -> tuple[tuple[str, str], ...]:
        return RULES

    @classmethod
    def size_of(cls, shapes: Shapes, said: Mapping[str, Any], where: str) -> KosmosSize:
        text = "text_model.model."
        vocabulary, width = sized(shapes, (text + "embed_tokens.weight", "text_model.lm_head.weight"), 2, where)
        latents, _ = sized(shapes, ("image_to_text_projection.latent_query",), 2, where)
        mlp, _ = sized(shapes, (text + "layers.0.ffn.fc1.weight",), 2, where)
        return KosmosSize(
            clip_size(shapes, "vision_model.model.", said, where), width, depth_of(shapes, text + "layers"),
            heads_of(said, "text_config", ("attention_heads", "num_attention_heads"), width, {2048: 32}, where),
            mlp, vocabulary, latents,
        )

    def see(self, images: Tensor, text: Tensor, valid: Tensor) -> Tensor:
        features = layer_normalised(self.vision_norm, self.vision(images.flatten(0, 1)))
        return self.resampled(functional.normalize(features, dim=-1)).unflatten(0, images.shape[:2])

    def placed(self, x: Tensor, start: int) -> Tensor:
        half, device = x.shape[-1] // 2, x.device
        periods = torch.exp(torch.arange(half, device=device).float() * (-math.log(10_000) / (half - 1)))
        angles = torch.arange(start + FIRST_PLACE, start + FIRST_PLACE + x.shape[1], device=device)[:, None] * periods
        return x + functional.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, x.shape[-1] % 2))
