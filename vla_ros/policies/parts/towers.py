"""Vision transformers of transformers: SigLIP, CLIP and DINOv2, of any size; the output is only patch tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import Count, Inner, Pixels, Range, Width
from vla_ros.policies.images import IMAGENET
from vla_ros.policies.parts.kinds import Vision
from vla_ros.policies.parts.pretrained import said, take_folder, with_numbers
from vla_ros.policies.robovlms.prompts import CLIP_PIXELS

Depth = Annotated[int, Range(1, 1000)]


@dataclass(frozen=True)
class TowerSize:
    """Under transformers' names; `image_size` in pixels."""

    hidden_size: Width = 768
    num_hidden_layers: Depth = 12
    num_attention_heads: Count = 12
    intermediate_size: Inner = 3072
    patch_size: Count = 16
    image_size: Pixels = 224

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise InputError(f"hidden_size {self.hidden_size}, expected a multiple of the "
                             f"{self.num_attention_heads} heads")
        if self.image_size < self.patch_size:
            raise InputError(f"image_size {self.image_size}, expected at least a patch of {self.patch_size} pixels")


class TransformersTower(Vision):
    """A module of transformers whose only input is images.

    Attributes:
        kinds: values of `model_type`; fixed: fields of config.json with their only supported values.
        before: number of tokens before the patches.
        unread: submodules whose output is not used; they are not trained.
    """

    Size = TowerSize
    kinds: ClassVar[tuple[str, ...]]
    fixed: ClassVar[Mapping[str, Any]]
    before: ClassVar[int] = 0
    unread: ClassVar[tuple[str, ...]] = ()

    def __init__(self, size: Any, cameras: int, text_width: int) -> None:
        super().__init__()
        self.image, self.width = size.image_size, size.hidden_size
        self.tokens = (size.image_size // size.patch_size) ** 2
        self.model = with_numbers(self.make(size))
        for name, parameter in self.model.named_parameters():
            if name.startswith(self.unread):
                parameter.requires_grad_(False)

    @staticmethod
    def make(size: Any) -> nn.Module:
        """transformers' module."""
        raise NotImplementedError

    @classmethod
    def folder_size(cls, folder: Path) -> Mapping[str, Any]:
        row = said(folder, cls.kinds, cls.fixed, "vision_config")
        return {name: row[name] for name in TowerSize.__dataclass_fields__ if name in row}

    def take(self, folder: Path) -> None:
        take_folder(self.model, folder)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        out = self.model(pixel_values=images.flatten(0, 1).to(self.dtype)).last_hidden_state
        return out[:, self.before :].unflatten(0, images.shape[:2])


@dataclass(frozen=True)
class SiglipSize(TowerSize):
    """`pooling_head`: published files have one; it is not used here."""

    pooling_head: bool = False


class SiglipTower(TransformersTower):
    Size = SiglipSize
    kinds, fixed = ("siglip", "siglip_vision_model"), {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
    unread = ("vision_model.head.",)

    @staticmethod
    def make(size: SiglipSize) -> nn.Module:
        from transformers import SiglipVisionConfig, SiglipVisionModel  # takes a second, rarely needed

        return SiglipVisionModel(SiglipVisionConfig(**_common(size), vision_use_head=size.pooling_head))


@dataclass(frozen=True)
class ClipSize(TowerSize):
    """Like `TowerSize`, with CLIP's patches."""

    patch_size: Count = 32


class ClipTower(TransformersTower):
    """The output is the hidden states before the last norm, as in transformers."""

    Size = ClipSize
    kinds, fixed = ("clip", "clip_vision_model"), {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    before, unread = 1, ("vision_model.post_layernorm.",)
    mean, std = CLIP_PIXELS

    @staticmethod
    def make(size: TowerSize) -> nn.Module:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        return CLIPVisionModel(CLIPVisionConfig(**_common(size)))


@dataclass(frozen=True)
class Dinov2Size(TowerSize):
    """`positions`: image size, pixels, of the table of positions, which is interpolated for other sizes; 0:
    `image_size`."""

    patch_size: Count = 14
    positions: Annotated[int, Range(0, 8192)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.intermediate_size % self.hidden_size:
            raise InputError(f"intermediate_size {self.intermediate_size}, expected a multiple of hidden_size "
                             f"{self.hidden_size}")


class Dinov2Tower(TransformersTower):
    Size = Dinov2Size
    kinds = ("dinov2",)
    fixed = {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True, "use_swiglu_ffn": False}
    before, unread = 1, ("embeddings.mask_token",)
    mean, std = tuple(IMAGENET["mean"].tolist()), tuple(IMAGENET["std"].tolist())

    @staticmethod
    def make(size: Dinov2Size) -> nn.Module:
        from transformers import Dinov2Config, Dinov2Model

        row = _common(size) | {"image_size": size.positions or size.image_size}
        return Dinov2Model(Dinov2Config(**row, mlp_ratio=row.pop("intermediate_size") // size.hidden_size))

    @classmethod
    def folder_size(cls, folder: Path) -> Mapping[str, Any]:
        """Images of 224 pixels, as used with published towers, whatever the size of their table of positions."""
        row = dict(super().folder_size(folder))
        ratio = said(folder, cls.kinds, cls.fixed).get("mlp_ratio", 4)
        if not isinstance(ratio, int) or not isinstance(row.get("hidden_size", 768), int):
            raise InputError(f"{folder}: mlp_ratio {shown(ratio)}, expected an integer, as hidden_size")
        pixels = row.get("image_size", 224)
        shown_at = 224 if row.get("patch_size", 14) == 14 and isinstance(pixels, int) and pixels >= 224 else pixels
        return row | {
            "intermediate_size": ratio * row.get("hidden_size", 768), "image_size": shown_at, "positions": pixels,
        }


def _common(size: TowerSize) -> dict[str, int]:
    return {name: getattr(size, name) for name in TowerSize.__dataclass_fields__}
