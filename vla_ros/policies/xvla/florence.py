"""Florence-2's encoder (Xiao et al. 2024): a DaViT tower for images, BART's encoder for one image and the text."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Count, Inner, Layers, Range, Rows, Width, Words, record, value_of

Side = Annotated[int, Range(0, 64)]  # pixels of a kernel, a stride, a margin
# Our name: names in published files, Microsoft's or transformers'.
VISION = {
    "widths": ("dim_embed", "embed_dim"), "depths": ("depths",), "heads": ("num_heads",), "groups": ("num_groups",),
    "patches": ("patch_size",), "strides": ("patch_stride",), "margins": ("patch_padding",),
    "norm_first": ("patch_prenorm",), "window": ("window_size",), "mlp_ratio": ("mlp_ratio",),
    "drop_path": ("drop_path_rate",), "positions": ("max_position_embeddings",),
}
TEXT = {
    "width": ("d_model",), "vocabulary": ("vocab_size",), "layers": ("encoder_layers",),
    "text_heads": ("encoder_attention_heads",), "mlp": ("encoder_ffn_dim",), "dropout": ("dropout",),
    "text_positions": ("max_position_embeddings",),
}
# Fields of files with their only supported values.
FIXED_VISION = {"model_type": ("davit", "florence_vision", ""), "in_channels": (3,), "qkv_bias": (True,),
                "activation_function": ("gelu",)}
FIXED_TEXT = {"scale_embedding": (False,), "activation_function": ("gelu",)}


@dataclass(frozen=True)
class FlorenceSize:
    """Sizes of the encoder; the defaults are Florence-2-large's, as in X-VLA.

    Attributes:
        widths, depths, heads, groups, patches, strides, margins, norm_first: of the DaViT's stages.
        window: side of an attention window.
        positions: rows and columns that have a learned position.
        width, vocabulary, layers, text_heads, mlp, text_positions: of the text encoder.
        dropout, drop_path: of training.
    """

    widths: tuple[Width, ...] = (256, 512, 1024, 2048)
    depths: tuple[Layers, ...] = (1, 1, 9, 1)
    heads: tuple[Count, ...] = (8, 16, 32, 64)
    groups: tuple[Count, ...] = (8, 16, 32, 64)
    patches: tuple[Side, ...] = (7, 3, 3, 3)
    strides: tuple[Side, ...] = (4, 2, 2, 2)
    margins: tuple[Side, ...] = (3, 1, 1, 1)
    norm_first: tuple[bool, ...] = (False, True, True, True)
    window: Count = 12
    mlp_ratio: Annotated[float, Range(0.1, 16)] = 4.0
    drop_path: Annotated[float, Range(0, 0.99)] = 0.1
    positions: Rows = 50
    width: Width = 1024
    vocabulary: Words = 51_289
    layers: Layers = 12
    text_heads: Count = 16
    mlp: Inner = 4096
    text_positions: Rows = 4096
    dropout: Annotated[float, Range(0, 0.99)] = 0.1

    def __post_init__(self) -> None:
        for name in ("depths", "heads", "groups", "patches", "strides", "margins", "norm_first"):
            if len(getattr(self, name)) != len(self.widths) or not self.widths:
                raise InputError(f"florence: {name} {getattr(self, name)}, expected one for each of widths "
                                 f"{self.widths}")
        for name, width, parts in (
            *(("heads", *pair) for pair in zip(self.widths, self.heads, strict=True)),
            *(("groups", *pair) for pair in zip(self.widths, self.groups, strict=True)),
            ("text_heads", self.width, self.text_heads),
        ):
            if width % parts:
                raise InputError(f"florence: {name} {parts}, expected a divisor of the width {width}")
        if 0 in (*self.strides, *self.patches) or self.widths[-1] % 2 or int(min(self.widths) * self.mlp_ratio) < 1:
            raise InputError(f"florence: strides {self.strides}, patches {self.patches}, widths {self.widths}, "
                             f"mlp_ratio {self.mlp_ratio}: expected sizes above zero, the last width even")

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of features of an image. Raises InputError if it is too small or too large."""
        sides = height, width
        for patch, stride, margin in zip(self.patches, self.strides, self.margins, strict=True):
            sides = tuple((side + 2 * margin - patch) // stride + 1 for side in sides)
            if min(sides) < 1:
                raise InputError(f"florence: images of {height}x{width} pixels, expected larger ones")
        if max(sides) > self.positions:
            raise InputError(f"florence: images of {height}x{width} pixels give {sides} features, expected at most "
                             f"{self.positions} a side")
        return sides

    @classmethod
    def from_files(cls, said: Any, where: str) -> "FlorenceSize":
        """From `florence_config` of a LeRobot folder, in Microsoft's spelling or transformers'. Raises InputError."""
        parts = value_of(dict[str, Any], said, where)
        named = ("vision_config", "text_config")
        vision, text = (value_of(dict[str, Any], parts.get(name), f"{where}.{name}") for name in named)
        vision = {"model_type": vision.get("model_type") or "", **vision}
        for name, kind, inner in (
            ("image_pos_embed", "learned_abs_2d", "max_pos_embeddings"), ("visual_temporal_embedding", "COSINE", None),
        ):
            if (row := value_of(dict[str, Any] | None, vision.get(name), f"{where}.{name}")) is not None:
                if row.get("type") != kind:
                    raise InputError(f"{where}.vision_config.{name}: type {shown(row.get('type'))}, expected {kind!r}")
                vision |= {"max_position_embeddings": row.get(inner)} if inner else {}
        source = vision.get("image_feature_source", ["spatial_avg_pool", "temporal_avg_pool"])
        if source != ["spatial_avg_pool", "temporal_avg_pool"]:
            raise InputError(f"{where}.vision_config: image_feature_source {shown(source)}, expected "
                             "['spatial_avg_pool', 'temporal_avg_pool']")
        for part, row, fixed in (("vision_config", vision, FIXED_VISION), ("text_config", text, FIXED_TEXT)):
            for name, known in fixed.items():
                if name in row and row[name] not in known:
                    raise InputError(f"{where}.{part}: {name} {shown(row[name])}, expected {known[0]!r}: nothing else "
                                     "is supported")
        values = {
            ours: row[name]
            for row, names in ((vision, VISION), (text, TEXT)) for ours, theirs in names.items() for name in theirs
            if row.get(name) is not None
        }
        size = record(cls, values, where)
        if vision.get("projection_dim", size.width) != size.width:
            raise InputError(f"{where}: projection_dim {shown(vision['projection_dim'])}, expected the text's d_model "
                             f"{size.width}")
        return size


class ImageProjector(nn.Module):
    """Converts features of an image and their mean to tokens of the text encoder.

    Args:
        transposed: whether the file stores the matrix as (features, width).
    """

    def __init__(self, size: FlorenceSize, transposed: bool) -> None:
        super().__init__()
        features = size.widths[-1]
        self.transposed = transposed
        shape = (features, size.width) if transposed else (size.width, features)
        self.matrix = nn.Parameter(torch.randn(shape) * features**-0.5)
        self.rows = nn.Parameter(torch.randn(size.positions, features // 2) * 0.02)
        self.columns = nn.Parameter(torch.randn(size.positions, features // 2) * 0.02)
        self.norm = nn.LayerNorm(size.width)

    def forward(self, features: Tensor) -> Tensor:
        """(N, features, rows, columns) to (N, 1 + rows · columns, width)."""
        rows, columns = features.shape[-2:]
        places = (self.columns[None, :columns].expand(rows, -1, -1), self.rows[:rows, None].expand(-1, columns, -1))
        x = (features.permute(0, 2, 3, 1) + torch.cat(places, dim=-1)).flatten(1, 2)
        # Florence's embedding of time (alternating sines and cosines) for time 0, the only one: 0, 1, 0, 1, …
        x = x + torch.arange(x.shape[-1], device=x.device).remainder(2).to(x.dtype)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
        return self.norm(x @ (self.matrix if self.transposed else self.matrix.T))


def vision_tower(size: FlorenceSize) -> nn.Module:
    """transformers' DaViT: (N, 3, height, width) to `last_hidden_state` (N, features, rows, columns)."""
    from transformers import Florence2VisionConfig
    from transformers.models.florence2.modeling_florence2 import Florence2VisionBackbone

    return Florence2VisionBackbone(Florence2VisionConfig(
        embed_dim=size.widths, depths=size.depths, num_heads=size.heads, num_groups=size.groups,
        patch_size=size.patches, patch_stride=size.strides, patch_padding=size.margins, patch_prenorm=size.norm_first,
        window_size=size.window, mlp_ratio=size.mlp_ratio, drop_path_rate=size.drop_path,
    ))


def text_encoder(size: FlorenceSize) -> nn.Module:
    """transformers' BART encoder: `inputs_embeds` (B, L, width) to `last_hidden_state`."""
    from transformers import BartConfig
    from transformers.models.bart.modeling_bart import BartEncoder

    return BartEncoder(BartConfig(
        vocab_size=size.vocabulary, d_model=size.width, encoder_layers=size.layers,
        encoder_attention_heads=size.text_heads, encoder_ffn_dim=size.mlp, max_position_embeddings=size.text_positions,
        dropout=size.dropout, attention_dropout=size.dropout, activation_dropout=size.dropout,
    ))
