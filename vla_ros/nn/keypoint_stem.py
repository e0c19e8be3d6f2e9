"""A small convolutional vision tower that locates what the text names.

FiLM (Perez et al. 2018) lets the text scale and shift the features; a spatial softmax (Finn et al. 2016) converts
feature maps to image coordinates, which a small network does not recover from patch tokens.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.core.records import Pixels, Range, Width


@dataclass(frozen=True)
class KeypointStemSize:
    """Sizes of the stem. Its tokens per image: one of keypoints and one per cell of `grid` x `grid`.

    Attributes:
        phrase: words on which the meaning of one in the middle depends, an odd number: with 5, "red" in "on the red
            cube" is another than in "stack the red cube on". 0: the order of the words does not matter.
    """

    image: Pixels = 96
    channels: tuple[Width, Width, Width] = (16, 40, 80)  # at 1/2, 1/4 and 1/8 of the image
    keypoints: Width = 32
    grid: Annotated[int, Range(1, 64)] = 3
    phrase: Annotated[int, Range(0, 63)] = 0

    def __post_init__(self) -> None:
        if self.phrase and self.phrase % 2 == 0:
            raise InputError(f"keypoint stem: phrase {self.phrase}, expected an odd number of words, or 0")
        if self.image % (8 * self.grid):
            raise InputError(f"keypoint stem: images of {self.image} pixels, expected a multiple of {8 * self.grid}")

    @property
    def tokens(self) -> int:
        """Tokens of an image."""
        return 1 + self.grid**2


def text_summary(text: Tensor, token_mask: Tensor) -> Tensor:
    """(B, T, width) embedded tokens and the (B, T) bool mask to the mean of the valid ones, (B, width) float32."""
    kept = token_mask[..., None].float()
    return (text.float() * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


class Phrases(nn.Module):
    """(B, T, width) embedded words, each changed by those around it; starts as the identity.

    `text_summary` alone is the same for "red on blue" and "blue on red".
    """

    def __init__(self, width: int, words: int) -> None:
        super().__init__()
        self.around = nn.Conv1d(width, width, words, padding=words // 2)
        self.change = nn.Linear(width, width)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, text: Tensor, token_mask: Tensor) -> Tensor:
        text = text.float() * token_mask[..., None]
        return text + self.change(F.silu(self.around(text.transpose(1, 2)).transpose(1, 2)))


class Standardised(nn.Module):
    """(B, width) summaries, standardised with the mean and standard deviation of the training data.

    In a long prompt that is nearly the same for all instructions (the text around a dialogue, the numbers of a state),
    the one word that differs changes the mean too little to have an effect on the features.
    """

    LEAST = 0.05  # lowest weight of a batch in the running mean and variance; the first batches have equal weights

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        if self.training and len(x) > 1:
            variance, mean = torch.var_mean(x, dim=0, correction=0)
            self.batches += 1
            share = (1 / self.batches).clamp(min=self.LEAST)
            self.mean.lerp_(mean.detach(), share)
            self.variance.lerp_(variance.detach(), share)
        return (x - mean) * (variance + 1e-5).rsqrt()


class FiLM(nn.Module):
    """x · (1 + scale) + shift for each channel, from a context vector; starts as the identity."""

    def __init__(self, context: int, channels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(context, 2 * channels)
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(N, C, h, w) and (N, context) to (N, C, h, w)."""
        scale, shift = self.dense(context)[:, :, None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift


class KeypointStem(nn.Module):
    """Images and a text summary to tokens of the prefix's width.

    `long_prompts`: the text contains more than the instruction, so its summary is standardised. `phrases`: the caller
    gets the summary from `summary`, so that the order of words can matter; InputError if the size has it otherwise.
    """

    def __init__(
        self, size: KeypointStemSize, cameras: int, text_width: int, width: int, long_prompts: bool = False,
        phrases: bool = False,
    ) -> None:
        super().__init__()
        if size.phrase and not phrases:
            raise InputError(f"keypoint stem: phrase {size.phrase}, which only the π0 families and SmolVLA have; "
                             "expected 0")
        self.size = size
        self.phrases = Phrases(text_width, size.phrase) if size.phrase else None
        self.standardised = Standardised(text_width) if long_prompts else None
        low, middle, high = size.channels
        context = 128
        self.camera = nn.Embedding(cameras, context)
        self.context = nn.Sequential(nn.Linear(text_width, context), nn.SiLU(), nn.Linear(context, context))
        self.to_half = nn.Conv2d(3, low, 5, stride=2, padding=2)
        self.to_quarter = nn.Conv2d(low, middle, 3, stride=2, padding=1)
        self.quarter_norm, self.quarter_film = nn.GroupNorm(8, middle), FiLM(context, middle)
        self.search = nn.Conv2d(middle, middle, 3, padding=1)
        self.search_norm, self.search_film = nn.GroupNorm(8, middle), FiLM(context, middle)
        self.maps = nn.Conv2d(middle, size.keypoints, 1)
        self.keypoint_token = nn.Sequential(
            nn.Linear(size.keypoints * 2 + middle, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        self.to_eighth = nn.Conv2d(middle, high, 3, stride=2, padding=1)
        self.eighth_norm, self.eighth_film = nn.GroupNorm(8, high), FiLM(context, high)
        cell = size.image // 8 // size.grid
        self.patch_token = nn.Conv2d(high, width, cell, stride=cell)
        self.positions = nn.Parameter(torch.randn(cameras, size.tokens, width) * 0.1)

    def summary(self, text: Tensor, token_mask: Tensor) -> Tensor:
        """(B, T, text_width) embedded tokens and their (B, T) bool mask to the (B, text_width) text of `forward`."""
        return text_summary(self.phrases(text, token_mask) if self.phrases else text, token_mask)

    def forward(self, images: Tensor, text: Tensor, cameras: Tensor | None = None) -> Tensor:
        """Tokens of every image.

        Args:
            images: (B, C, 3, image, image) in [-1, 1].
            text: (B, text_width), a summary of the instruction.
            cameras: (C,) int64, which camera of the policy each image comes from; None: all, in order.

        Returns:
            (B, C, tokens, width) float32.
        """
        batch, count = images.shape[:2]
        images, text = images.float(), text.float()
        if self.standardised:
            text = self.standardised(text)
        cameras = torch.arange(count, device=images.device) if cameras is None else cameras
        context = F.silu(self.context(text)[:, None] + self.camera(cameras)[None]).flatten(0, 1)
        x = F.silu(self.to_half(images.flatten(0, 1).to(memory_format=torch.channels_last)))
        x = F.silu(self.quarter_film(self.quarter_norm(self.to_quarter(x)), context))
        x = x + F.silu(self.search_film(self.search_norm(self.search(x)), context))
        keypoints = self.keypoint_token(self._keypoints(x))[:, None]
        x = F.silu(self.eighth_film(self.eighth_norm(self.to_eighth(x)), context))
        patches = self.patch_token(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([keypoints, patches], dim=1).unflatten(0, (batch, count))
        return tokens + self.positions[cameras]

    def _keypoints(self, x: Tensor) -> Tensor:
        """Coordinates in [-1, 1] where each map is strongest, and the features' mean under the first map."""
        rows, columns = x.shape[2:]
        weights = self.maps(x).flatten(2).softmax(dim=-1)  # (N, keypoints, rows * columns)
        vertical = torch.linspace(-1, 1, rows, device=x.device, dtype=x.dtype)
        horizontal = torch.linspace(-1, 1, columns, device=x.device, dtype=x.dtype)
        grid = torch.stack(torch.meshgrid(vertical, horizontal, indexing="ij"), dim=-1).flatten(0, 1)
        feature = weights[:, :1] @ x.flatten(2).transpose(1, 2)
        return torch.cat([(weights @ grid).flatten(1), feature.flatten(1)], dim=-1)
