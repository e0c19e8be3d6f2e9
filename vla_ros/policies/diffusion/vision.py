"""Images to keypoints: crop, residual network, spatial softmax (Finn et al. 2016, https://arxiv.org/abs/1509.06113)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.resize import resize_smooth
from vla_ros.nn.resnet import ResNet, feature_size
from vla_ros.policies.diffusion.config import DiffusionConfig


class SpatialSoftmax(nn.Module):
    """Expected position of the softmax of each of K maps, x then y in [-1, 1]: (B, C, H, W) to (B, 2 K)."""

    def __init__(self, channels: int, rows: int, columns: int, keypoints: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, keypoints, 1)
        y, x = torch.meshgrid(
            torch.linspace(-1, 1, rows, device="cpu"), torch.linspace(-1, 1, columns, device="cpu"), indexing="ij"
        )
        self.register_buffer("pos_grid", torch.stack([x.flatten(), y.flatten()], dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2 K)."""
        weights = self.nets(features).flatten(2).softmax(dim=-1)
        return (weights @ self.pos_grid.to(weights.dtype)).flatten(1)


class RgbEncoder(nn.Module):
    """(B, 3, H, W) normalised images to (B, 2 K) features."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.resize, self.crop, self.random = config.resize_shape, config.crop_size, config.crop_is_random
        norm = "group" if config.use_group_norm else "batch"
        self.backbone = ResNet(config.vision_backbone, norm, config.backbone_width)
        rows, columns = feature_size(*(self.crop or self.resize or config.image_size))
        features = 2 * config.spatial_softmax_num_keypoints
        self.pool = SpatialSoftmax(self.backbone.out_channels, rows, columns, config.spatial_softmax_num_keypoints)
        self.out = nn.Linear(features, features)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 2 K)."""
        if self.resize is not None:
            images = resize_smooth(images, self.resize)
        if self.crop is not None:
            images = random_crop(images, self.crop) if self.training and self.random else centre_crop(images, self.crop)
        return functional.relu(self.out(self.pool(self.backbone(images))))


def centre_crop(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) to (B, 3, *size). Odd margins round to the even neighbour, as in torchvision."""
    top = round((images.shape[2] - size[0]) / 2)
    left = round((images.shape[3] - size[1]) / 2)
    return images[:, :, top : top + size[0], left : left + size[1]]


def random_crop(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) to (B, 3, *size), each image at its own position. Drawn on the CPU, so that it does not wait for a
    GPU."""
    tops = torch.randint(0, images.shape[2] - size[0] + 1, (len(images),), device="cpu").tolist()
    lefts = torch.randint(0, images.shape[3] - size[1] + 1, (len(images),), device="cpu").tolist()
    return torch.stack(
        [image[:, t : t + size[0], x : x + size[1]] for image, t, x in zip(images, tops, lefts, strict=True)]
    )
