"""GR00T's vision-language model: images and text to the features that the action head attends to."""

import torch
from torch import Tensor, nn

from vla_ros.nn.attention import causal_mask, grouped_attention
from vla_ros.nn.embeddings import Rotary, rotary_table
from vla_ros.nn.keypoint_stem import KeypointStem
from vla_ros.nn.llama import LlamaLayer, LlamaNorm
from vla_ros.policies.groot.config import GrootConfig
from vla_ros.policies.groot.vision import EagleVision, QwenVision


class Backbone(nn.Module):
    """Eagle 2 (N1: SigLIP and Llama), Eagle 2.5 (N1.5: and Qwen3), N1.6's (SigLIP 2 and Qwen3), Qwen3-VL (N1.7).

    The text tower is causal and cut to `text_layers`; N1.7 reads its state before the last norm.
    """

    def __init__(self, config: GrootConfig) -> None:
        super().__init__()
        self.config, text = config, config.text
        if config.has_stem:
            self.vision = KeypointStem(config.vision, len(config.cameras), text.width, text.width, long_prompts=True)
        elif config.generation == "n1.7":
            self.vision = QwenVision(config.vision, text.width)
        else:
            self.vision = EagleVision(
                config.vision, "flexible" if config.generation == "n1.6" else "fixed", config.vision_select,
                config.shuffle, config.connector_layers, text.width,
            )
        self.embedding = nn.Embedding(text.vocabulary, text.width)
        self.layers = nn.ModuleList(LlamaLayer(text, text.width, text.mlp) for _ in range(config.text_layers))
        self.norm = None if config.generation == "n1.7" else LlamaNorm(text.width, text.epsilon)
        self.projection = nn.Linear(text.width, config.feature_dim) if config.projected else None

    def image_tokens(self, images: Tensor, text: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """(B, N, 3, H, W) uint8, or float in [-1, 1], to (B, N * tokens, width), and the tokens that are added in
        the first layers; the stem locates what the text's (B, width) summary names."""
        if images.dtype == torch.uint8:  # on the device, so that images are uploaded as bytes
            images = images.float() / 255 * 2 - 1
        if self.config.has_stem:
            return self.vision(images, text).flatten(1, 2), []
        tokens, deeper = self.vision(images.flatten(0, 1))
        return tuple(
            self._joined(part, images) if isinstance(part, Tensor) else [self._joined(one, images) for one in part]
            for part in (tokens, deeper)
        )

    @staticmethod
    def _joined(tokens: Tensor, images: Tensor) -> Tensor:
        return tokens.unflatten(0, images.shape[:2]).flatten(1, 2)

    def forward(
        self, tokens: Tensor, valid: Tensor, images: Tensor, deeper: list[Tensor], positions: Tensor | None = None
    ) -> Tensor:
        """(B, L, feature_dim) features.

        Args:
            tokens: (B, L) int64.
            valid: (B, L) bool, False at padding. There attention returns 0, as in the original's kernels; N1, N1.5 and
                N1.7 attend to the features that result from it.
            images: (B, T, width), replace the T image tokens of each row, in order; deeper: added to them in deeper
                layers.
            positions: (3, B, L) of time, row and column (N1.7).
        """
        at_image = tokens == self.config.image_token
        place = (at_image.cumsum(dim=1) - 1).clamp(min=0)[..., None]
        images = images.gather(1, place.expand(-1, -1, images.shape[-1]))
        x = self.embedding(tokens)
        x = torch.where(at_image[..., None], images.to(x.dtype), x).to(self.layers[0].qkv.weight.dtype)
        rotary = self._rotary(tokens, positions)
        length, groups = tokens.shape[1], self.config.text.heads // self.config.text.kv_heads
        own = torch.eye(length, dtype=torch.bool, device=tokens.device).repeat_interleave(groups, dim=0)
        mask = causal_mask(valid, groups) | own  # a row that sees no key would be NaN
        kept = valid[..., None].to(x.dtype)
        for index, layer in enumerate(self.layers):
            query, key, value = layer.project(x, rotary)
            x = layer.finish(x, grouped_attention(query, key, value, mask) * kept)
            if index < len(deeper):
                deep = deeper[index].gather(1, place.expand(-1, -1, x.shape[-1]))
                x = torch.where(at_image[..., None], x + deep.to(x.dtype), x)
        if self.norm is not None:
            x = self.norm(x)
        if self.config.reproject_vision:
            x = torch.where(at_image[..., None], images.to(x.dtype), x)
        return x if self.projection is None else self.projection(x)

    def _rotary(self, tokens: Tensor, positions: Tensor | None) -> Rotary:
        """Rotations for the tokens' positions; with three positions per token, the angles alternate between time, row
        and column."""
        size, theta = self.config.text, self.config.rope_theta
        if positions is None:
            return rotary_table(torch.arange(tokens.shape[1], device=tokens.device)[None], size.head_dim, theta)
        tables = [rotary_table(one, size.head_dim, theta) for one in positions.unbind()]
        turn = torch.arange(size.head_dim // 2, device=tokens.device)
        axis = turn % 3 * (turn < sum(3 * n * (turn % 3 == which) for which, n in enumerate(self.config.mrope)))
        axis = axis.repeat(2)
        return tuple(
            torch.stack([table[part] for table in tables]).gather(0, axis.expand(1, *tables[0][part].shape))[0]
            for part in (0, 1)
        )
