"""A one-dimensional U-Net over time, whose blocks are modulated by step and observation (FiLM).

Chi et al. 2023, https://arxiv.org/abs/2303.04137; parameter names as in LeRobot's checkpoints.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.policies.diffusion.config import DiffusionConfig


class StepEmbedding(nn.Module):
    """(B,) diffusion steps to (B, dim): sines, then cosines, of geometrically spaced frequencies."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        exponent = torch.arange(half, device="cpu") * -(math.log(10000) / (half - 1))
        self.register_buffer("frequencies", exponent.exp(), persistent=False)

    def forward(self, step: Tensor) -> Tensor:
        """(B,) to (B, dim)."""
        angle = step[:, None].to(self.frequencies.dtype) * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def convolve(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """Apply the layer to (B, C, H): (B, out, rows).

    On a CPU, a convolution reorders its weights at each call, which takes longer than the few rows of a chunk. There it
    is computed as one matrix product of the windows and the weights, without reordering.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return layer(x)
    (kernel,), (stride,), (padding,) = layer.kernel_size, layer.stride, layer.padding
    windows = functional.pad(x, (padding, padding)).unfold(2, kernel, stride)  # (B, C, rows, kernel)
    rows = windows.transpose(1, 2).flatten(2)
    return functional.linear(rows, layer.weight.flatten(1), layer.bias).transpose(1, 2)


def convolve_transposed(layer: nn.ConvTranspose1d, x: Tensor) -> Tensor:
    """Like `convolve`: every row of (B, C, H) gives a window of the output, and overlapping windows are added."""
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return layer(x)
    (kernel,), (stride,), (padding,) = layer.kernel_size, layer.stride, layer.padding
    windows = (x.transpose(1, 2) @ layer.weight.flatten(1)).transpose(1, 2)  # (B, out * kernel, H)
    size = (x.shape[2] - 1) * stride - 2 * padding + kernel
    out = functional.fold(windows, (1, size), (1, kernel), padding=(0, padding), stride=(1, stride))
    return out[:, :, 0] + layer.bias[:, None]


class ConvBlock(nn.Module):
    """Convolution over time, group normalisation, Mish."""

    def __init__(self, channels: int, out: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(channels, out, kernel, padding=kernel // 2), nn.GroupNorm(groups, out), nn.Mish()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H) to (B, out, H)."""
        layer, norm, activation = self.block
        return activation(norm(convolve(layer, x)))


class ResidualBlock(nn.Module):
    """Two convolution blocks with the condition's scale and shift between them, and a skip connection."""

    def __init__(self, channels: int, out: int, condition: int, config: DiffusionConfig) -> None:
        super().__init__()
        self.scaled = config.use_film_scale_modulation
        self.conv1 = ConvBlock(channels, out, config.kernel_size, config.n_groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * out if self.scaled else out))
        self.conv2 = ConvBlock(out, out, config.kernel_size, config.n_groups)
        self.residual_conv = nn.Conv1d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, H) and (B, condition) to (B, out, H)."""
        y, modulation = self.conv1(x), self.cond_encoder(condition)[:, :, None]
        if self.scaled:
            scale, shift = modulation.chunk(2, dim=1)
            y = scale * y + shift
        else:
            y = y + modulation
        shortcut = x if isinstance(self.residual_conv, nn.Identity) else convolve(self.residual_conv, x)
        return self.conv2(y) + shortcut


class UNet(nn.Module):
    """(B, H, D) noisy actions, (B,) steps and (B, n_obs_steps * features) conditions to (B, H, D)."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        dim, dims = config.diffusion_step_embed_dim, config.down_dims
        self.diffusion_step_encoder = nn.Sequential(
            StepEmbedding(dim), nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim)
        )
        condition = dim + config.n_obs_steps * config.step_condition_dim

        def block(channels: int, out: int) -> ResidualBlock:
            return ResidualBlock(channels, out, condition, config)

        ends = list(zip((config.action_dim, *dims[:-1]), dims, strict=True))
        last = len(ends) - 1
        self.down_modules = nn.ModuleList(
            nn.ModuleList([block(a, b), block(b, b), nn.Conv1d(b, b, 3, 2, 1) if i < last else nn.Identity()])
            for i, (a, b) in enumerate(ends)
        )
        self.mid_modules = nn.ModuleList([block(dims[-1], dims[-1]), block(dims[-1], dims[-1])])
        # Twice the channels: those of the stage and of the skip connection.
        self.up_modules = nn.ModuleList(
            nn.ModuleList([block(2 * b, a), block(a, a), nn.ConvTranspose1d(a, a, 4, 2, 1)])
            for a, b in reversed(ends[1:])
        )
        self.final_conv = nn.Sequential(
            ConvBlock(dims[0], dims[0], config.kernel_size, config.n_groups), nn.Conv1d(dims[0], config.action_dim, 1)
        )

    def forward(self, actions: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """(B, H, D), (B,) and (B, n_obs_steps * features) to (B, H, D)."""
        features, *layers = self.diffusion_step_encoder
        time = features(step).to(condition.dtype)
        for layer in layers:
            time = layer(time)
        condition = torch.cat([time, condition], dim=-1)
        x = actions.transpose(1, 2).to(condition.dtype)
        skips = []
        for first, second, down in self.down_modules:
            x = second(first(x, condition), condition)
            skips.append(x)
            x = x if isinstance(down, nn.Identity) else convolve(down, x)
        for middle in self.mid_modules:
            x = middle(x, condition)
        for first, second, up in self.up_modules:
            x = second(first(torch.cat([x, skips.pop()], dim=1), condition), condition)
            x = convolve_transposed(up, x)
        smooth, last = self.final_conv
        return convolve(last, smooth(x).to(last.weight.dtype)).transpose(1, 2).to(actions.dtype)
