"""LLaVA (Liu et al. 2023, https://arxiv.org/abs/2304.08485) with MPT (MosaicML 2023) as its language model."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.records import Count, Inner, Layers, Width, Words
from vla_ros.nn.clip import Clip
from vla_ros.nn.norms import layer_normalised
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.formats.transformers_names import siglip
from vla_ros.policies.formats.weights import Unused
from vla_ros.policies.robovlms.backbone import Backbone, Shapes, check_heads
from vla_ros.policies.robovlms.published import check_tower, clip_size, depth_of, heads_of, sized

STEEPEST = 8  # steepest slope of the attention's biases, as an exponent of 2


@dataclass(frozen=True)
class LlavaSize:
    """LLaVA-Lightning-MPT-7B: CLIP ViT-L/14, a language model 4096 wide, of 32 layers, 32 heads, mlp 16384."""

    vision: SiglipSize
    width: Width
    depth: Layers
    heads: Count
    mlp: Inner
    vocabulary: Words

    def __post_init__(self) -> None:
        check_tower(self.vision)
        check_heads("llava", self.width, self.heads)

    image = property(attrgetter("vision.image"))


class MptLayer(nn.Module):
    """LayerNorm, attention, LayerNorm, GELU MLP; all without bias."""

    def __init__(self, size: LlavaSize) -> None:
        super().__init__()
        width, self.heads = size.width, size.heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, size.mlp, bias=False), nn.Linear(size.mlp, width, bias=False)

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, S, width) to query, key and value, (N, heads, S, width / heads)."""
        return self.qkv(layer_normalised(self.norm1, x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """(N, S, width), with attention and the MLP added."""
        x = x + self.out(attended)
        return x + self.down(functional.gelu(self.up(layer_normalised(self.norm2, x))))


_LAYER, _MINE = r"backbone\.transformer\.blocks\.(\d+)\.", r"backbone.layers.\1."
_UNREAD = Unused("only the blocks up to the second-to-last are used")
_VISION = r"backbone\.transformer\.vision_tower\.vision_tower\.vision_model"
RULES = (
    (r"backbone\.(?:lm_head|transformer\.wte)\.weight", "backbone.embedding.weight"),
    (r"backbone\.transformer\.norm_f\.(.*)", r"backbone.norm.\1"),
    (r"backbone\.transformer\.mm_projector\.(.*)", r"backbone.projector.\1"),
    (_LAYER + r"norm_(\d)\.(.*)", _MINE + r"norm\2.\3"),
    (_LAYER + r"attn\.Wqkv\.(.*)", _MINE + r"qkv.\2"),
    (_LAYER + r"attn\.out_proj\.(.*)", _MINE + r"out.\2"),
    (_LAYER + r"ffn\.(up|down)_proj\.(.*)", _MINE + r"\2.\3"),
    (_VISION + r"\.post_layernorm\..*", _UNREAD),
    (_VISION + r"\.embeddings\.class_embedding", "backbone.vision.class_token"),
    (_VISION + r"\.pre_layrnorm\.(.*)", r"backbone.vision.norm_in.\1"),
    *siglip(_VISION, "backbone.vision"),
)


class Llava(Backbone):
    """Uses the output of CLIP's second-to-last block for the patches. Positions are biases of the attention, ALiBi
    (Press et al. 2022, https://arxiv.org/abs/2108.12409)."""

    Size = LlavaSize

    def __init__(self, size: LlavaSize, cameras: int) -> None:
        super().__init__(size, cameras)
        self.vision = Clip(size.vision, unread=1)
        self.projector = nn.Linear(size.vision.hidden, size.width)
        self.layers = nn.ModuleList(MptLayer(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, bias=False)

    @classmethod
    def rules(cls, size: LlavaSize) -> tuple[tuple[str, str], ...]:
        last = rf"{_VISION}\.encoder\.layers\.{size.vision.depth - 1}\..*"
        return ((last, _UNREAD), *RULES)

    @classmethod
    def size_of(cls, shapes: Shapes, said: Mapping[str, Any], where: str) -> LlavaSize:
        blocks = "transformer.blocks"
        vocabulary, width = sized(shapes, ("transformer.wte.weight", "lm_head.weight"), 2, where)
        mlp, _ = sized(shapes, (f"{blocks}.0.ffn.up_proj.weight",), 2, where)
        return LlavaSize(
            clip_size(shapes, "transformer.vision_tower.vision_tower.vision_model.", said, where), width,
            depth_of(shapes, blocks), heads_of(said, "", ("n_heads",), width, {4096: 32}, where), mlp, vocabulary,
        )

    def see(self, images: Tensor, text: Tensor, valid: Tensor) -> Tensor:
        patches = self.vision(images.flatten(0, 1))[:, 1:]
        return self.projector(patches).unflatten(0, images.shape[:2])

    def mask(self, valid: Tensor, start: int) -> Tensor:
        """For each head, a bias that decreases with the distance: (N, heads, S, P + S)."""
        sees, length, heads = super().mask(valid, start), valid.shape[1], self.size.heads
        power = 1 << (heads - 1).bit_length()  # slopes for a power of two of heads, the odd ones first
        exponents = torch.arange(1, power + 1, device=valid.device) * (STEEPEST / power)
        if power != heads:
            exponents = torch.cat([exponents[1::2], exponents[::2]])[:heads]
        distance = torch.arange(1 - length, 1, device=valid.device)
        bias = distance * torch.exp2(-exponents)[:, None, None]
        return torch.where(sees, bias, -torch.inf).to(self.embedding.weight.dtype)
