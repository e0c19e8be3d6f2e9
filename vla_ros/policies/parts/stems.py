"""Small towers: the keypoint stem, which locates what the instruction names, and residual networks."""

from dataclasses import dataclass

from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.core.records import Pixels, Width
from vla_ros.nn.keypoint_stem import KeypointStem, KeypointStemSize
from vla_ros.nn.resnet import DEPTHS, NORMS, ResNet, feature_size
from vla_ros.policies.images import IMAGENET
from vla_ros.policies.parts.kinds import Vision


@dataclass(frozen=True)
class StemSize(KeypointStemSize):
    """Sizes of the stem and `width` of a token."""

    width: Width = 128


class StemTower(Vision):
    Size = StemSize
    float32 = ("",)

    def __init__(self, size: StemSize, cameras: int, text_width: int) -> None:
        super().__init__()
        self.image, self.tokens, self.width = size.image, size.tokens, size.width
        self.stem = KeypointStem(size, cameras, text_width, size.width, summarised=False)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        return self.stem(images, text)


@dataclass(frozen=True)
class ResNetSize:
    """`depth`: a key of `nn.resnet.DEPTHS`; `norm`: of its NORMS; `channels`: of the first stage."""

    depth: str = "resnet18"
    norm: str = "group"
    channels: Width = 64
    image_size: Pixels = 224

    def __post_init__(self) -> None:
        for name, known in (("depth", DEPTHS), ("norm", NORMS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r}, expected one of {sorted(known)}")
        if self.norm == "frozen_batch":
            raise InputError("norm 'frozen_batch', expected 'group' or 'batch': there are no statistics to freeze")


class ResNetTower(Vision):
    """A token for each position of the last stage."""

    Size = ResNetSize
    mean, std = tuple(IMAGENET["mean"].tolist()), tuple(IMAGENET["std"].tolist())

    def __init__(self, size: ResNetSize, cameras: int, text_width: int) -> None:
        super().__init__()
        self.float32 = ("",) if size.norm == "batch" else ()  # batch statistics stay float32
        self.net = ResNet(size.depth, size.norm, size.channels)
        rows, columns = feature_size(size.image_size, size.image_size)
        self.image, self.tokens, self.width = size.image_size, rows * columns, self.net.out_channels

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        features = self.net(images.flatten(0, 1).to(self.dtype))
        return features.flatten(2).transpose(1, 2).unflatten(0, images.shape[:2])
