"""From images to prefix tokens: one of several vision towers, and a projection of its features to the prefix's
width."""

import math

import torch
from torch import Tensor, nn

from vla_ros.nn.keypoint_stem import KeypointStem, KeypointStemSize
from vla_ros.nn.siglip import Siglip, SiglipSize
from vla_ros.policies.images import signed
from vla_ros.policies.policy import Batch


class ImageTokens(nn.Module):
    """All cameras of a batch through one vision tower; `long_prompts`: prompts contain more than the instruction."""

    def __init__(
        self, size: SiglipSize | KeypointStemSize, width: int, cameras: int, long_prompts: bool = False
    ) -> None:
        super().__init__()
        self.reads_text = isinstance(size, KeypointStemSize)
        if self.reads_text:
            self.tower = KeypointStem(size, cameras, width, width, long_prompts, phrases=True)
        else:
            self.tower = Siglip(size)
            self.projector = nn.Linear(size.hidden, width)

    def forward(self, images: Tensor, text: Tensor, token_mask: Tensor, cameras: Tensor | None) -> Tensor:
        """Tokens of the images.

        Args:
            images: (B, C, 3, height, width) uint8, or floating point in [-1, 1].
            text: (B, T, width) embedded prompt; token_mask: (B, T) bool.
            cameras: (C,) int64 camera indices; None: all, in order.

        Returns:
            (B, C, tokens, width); SigLIP's features are not scaled (openpi; older transformers divided them).
        """
        images = signed(images)
        if not self.reads_text:
            features = self.tower(images.flatten(0, 1))
            return self.projector(features.to(self.projector.weight.dtype)).unflatten(0, images.shape[:2])
        return self.tower(images, self.tower.summary(text, token_mask), cameras)


def prefix_tokens(image_tokens: ImageTokens, embedding: nn.Embedding, batch: Batch) -> tuple[Tensor, Tensor]:
    """[images][text] of a batch as `Pi0` describes it: (B, P, width) embedded tokens and their (B, P) bool validity."""
    text = embedding(batch["tokens"]) * math.sqrt(embedding.embedding_dim)
    images = image_tokens(batch["images"], text, batch["token_mask"], batch.get("cameras"))
    image_mask = batch["image_mask"].repeat_interleave(images.shape[2], dim=1)
    tokens = torch.cat([images.flatten(1, 2), text.to(images.dtype)], dim=1)
    return tokens, torch.cat([image_mask, batch["token_mask"]], dim=1)
