"""Residual networks with torchvision's parameter names, without torchvision.

He et al. 2016 (https://arxiv.org/abs/1512.03385), with the stride of a bottleneck in its 3x3 convolution as in
torchvision, so that its weights and those of policies built on it load by name.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError

# name: (blocks a stage, whether they are bottlenecks)
DEPTHS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
Norm = Callable[[int], nn.Module]
LARGE = 320 * 240  # pixels from which a CPU is faster with channels-last images


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with fixed statistics and scales: all four are buffers, in training too."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def affine(self) -> tuple[Tensor, Tensor]:
        """The equivalent (C,) scale and shift, in the type of the statistics."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        scale, shift = self.affine()
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]


def normalised(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """Convolution and normalisation of (B, C, H, W).

    A frozen normalisation is folded into the weights if they have fewer numbers than the result.
    """
    positions = x.shape[0] * x.shape[2] * x.shape[3] // conv.stride[0] ** 2
    if not isinstance(norm, FrozenBatchNorm) or positions < conv.weight[0].numel():
        return norm(conv(x))
    scale, shift = norm.affine()
    weight = (conv.weight * scale[:, None, None, None]).to(x.dtype)
    return functional.conv2d(x, weight, shift.to(x.dtype), conv.stride, conv.padding, conv.dilation)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with 16 channels a group, as Diffusion Policy puts in place of batch normalisation."""
    return nn.GroupNorm(max(channels // 16, 1), channels)


NORMS: dict[str, Norm] = {"frozen_batch": FrozenBatchNorm, "batch": nn.BatchNorm2d, "group": group_norm}


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        if dilation != 1:
            raise InputError("replace_final_stride_with_dilation: expected resnet50 or deeper, which have bottlenecks")
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = norm(width)
        self.downsample = _shortcut(channels, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, expansion * width, H / stride, W / stride)."""
        y = functional.relu(normalised(self.conv1, self.bn1, x))
        y = normalised(self.conv2, self.bn2, y)
        return functional.relu(y + (x if self.downsample is None else normalised(*self.downsample, x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; four times as many output channels as in the middle."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = norm(4 * width)
        self.downsample = _shortcut(channels, 4 * width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, expansion * width, H / stride, W / stride)."""
        y = functional.relu(normalised(self.conv1, self.bn1, x))
        y = functional.relu(normalised(self.conv2, self.bn2, y))
        y = normalised(self.conv3, self.bn3, y)
        return functional.relu(y + (x if self.downsample is None else normalised(*self.downsample, x)))


class ResNet(nn.Module):
    """Images to the feature map of the last stage; no pooling, no classifier.

    Args:
        name: a key of DEPTHS.
        norm: a key of NORMS.
        width: channels of the first stage; 64 is the published networks'.
        dilate_last: dilate the fourth stage instead of striding it (bottleneck networks only).
    """

    def __init__(
        self, name: str = "resnet18", norm: str = "frozen_batch", width: int = 64, dilate_last: bool = False
    ) -> None:
        super().__init__()
        if name not in DEPTHS:
            raise InputError(f"vision_backbone {name!r}, expected one of {sorted(DEPTHS)}")
        blocks, bottleneck = DEPTHS[name]
        make_norm, block = NORMS[norm], Bottleneck if bottleneck else Basic
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = make_norm(width)
        channels = width
        for stage in range(4):
            last_dilated = dilate_last and stage == 3
            stride = 1 if stage == 0 or last_dilated else 2
            layers = []
            for i in range(blocks[stage]):
                # As in torchvision, the first block of a dilated stage still has the dilation of the stage before.
                dilation = 2 if last_dilated and i > 0 else 1
                layers.append(block(channels, width << stage, stride if i == 0 else 1, dilation, make_norm))
                channels = (width << stage) * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.out_channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images to (B, `out_channels`, H / 32, W / 32), rounded up; / 16 if dilated."""
        if images.device.type == "cpu" and images.shape[2] * images.shape[3] >= LARGE:
            images = images.contiguous(memory_format=torch.channels_last)
        x = functional.relu(normalised(self.conv1, self.bn1, images))
        x = functional.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def feature_size(height: int, width: int, dilated: bool = False) -> tuple[int, int]:
    """Rows and columns of the feature map for an image of that size."""
    for _ in range(4 if dilated else 5):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def _shortcut(channels: int, out: int, stride: int, norm: Norm) -> nn.Sequential | None:
    if stride == 1 and channels == out:
        return None
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), norm(out))
