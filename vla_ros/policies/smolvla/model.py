"""SmolVLA (Shukor et al. 2025, https://arxiv.org/abs/2506.01844): a truncated SmolVLM2 and a flow-matching expert.

Time runs from 1 (noise) to 0 (actions); the network predicts noise - actions. The prefix is [images][text][state];
images and text do not attend to the state, and nothing in the prefix attends to the actions, so it is encoded once per
observation. The expert's layers alternate: joint self-attention covers the prefix and the actions up to its own
(causal), cross-attention only the prefix, with keys and values computed from the text tower's. Those of the cross
layers do not change while denoising either, so they are computed once as well.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.attention import causal_mask, grouped_attention
from vla_ros.nn.embeddings import Rotary, rotary_table, time_features
from vla_ros.nn.keypoint_stem import KeypointStem, KeypointStemSize
from vla_ros.nn.llama import LlamaLayer, LlamaNorm
from vla_ros.nn.siglip import Siglip
from vla_ros.policies.flow import FlowPolicy
from vla_ros.policies.images import signed
from vla_ros.policies.policy import Batch, Draws, Memory, mean_of_valid, tensors
from vla_ros.policies.smolvla.config import SmolVLAConfig


@tensors
class SmolVLAContext:
    """Images, text and state as input of the expert, and the masks of its H action tokens.

    Attributes:
        keys, values: (B, kv_heads, P, head_dim) of each layer; in cross layers after the expert's projection.
        cross_mask: (B, 1, 1, P) bool; joint_mask: (B, 1, H * groups, P + H) bool, True if a key may be seen.
        joint_rotary, cross_rotary: of the action tokens, counted from the prefix's end and from zero.
    """

    keys: list[Tensor]
    values: list[Tensor]
    cross_mask: Tensor
    joint_mask: Tensor
    joint_rotary: Rotary
    cross_rotary: Rotary


class SmolVLA(FlowPolicy):
    """A batch contains
        images: (B, C, 3, size, size) uint8, or float in [-1, 1].
        image_mask: (B, C) bool, False if a camera is absent.
        tokens: (B, T) int64; token_mask: (B, T) bool.
        state: (B, max_state_dim), normalised and padded.
    """

    config: SmolVLAConfig

    def __init__(self, config: SmolVLAConfig) -> None:
        super().__init__()
        self.config = config
        text, width = config.vlm.text, config.expert_width
        self.reads_text = isinstance(config.vlm.vision, KeypointStemSize)
        if self.reads_text:
            self.vision = KeypointStem(config.vlm.vision, len(config.cameras), text.width, text.width, phrases=True)
        else:
            self.vision = Siglip(config.vlm.vision)
            self.connector = nn.Linear(config.vlm.vision.hidden * config.vlm.shuffle**2, text.width, bias=False)
        self.embedding = nn.Embedding(text.vocabulary, text.width)
        nn.init.normal_(self.embedding.weight, std=text.width**-0.5)  # unit variance after scaling
        layers = range(config.num_vlm_layers)
        self.text = nn.ModuleList(LlamaLayer(text, text.width, text.mlp) for _ in layers)
        self.expert = nn.ModuleList(LlamaLayer(text, width, config.expert_mlp, config.is_cross(i)) for i in layers)
        self.expert_norm = LlamaNorm(width, text.epsilon)
        self.state_in = nn.Linear(config.max_state_dim, text.width)
        self.action_in = nn.Linear(config.max_action_dim, width)
        self.time_in, self.time_out = nn.Linear(2 * width, width), nn.Linear(width, width)
        self.action_out = nn.Linear(width, config.max_action_dim)
        self.float32 = (r"(state|action|time)_(in|out)\.", *((r"vision\.",) if self.reads_text else ()))

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> SmolVLAContext:
        """Keys and values of every layer for the expert, masks and rotary tables."""
        text = self.embedding(batch["tokens"]) * math.sqrt(self.config.vlm.text.width)
        images = self.encode_images(batch["images"], text, batch["token_mask"])
        state = self.state_in(batch["state"].to(self.state_in.weight.dtype))[:, None]
        tokens = torch.cat([images.flatten(1, 2).to(text.dtype), text, state.to(text.dtype)], dim=1)
        image_mask = batch["image_mask"].repeat_interleave(images.shape[2], dim=1)
        valid = functional.pad(torch.cat([image_mask, batch["token_mask"]], dim=1), (0, 1), value=True)
        return self.encode_tokens(tokens, valid)

    def encode_images(self, images: Tensor, text: Tensor, token_mask: Tensor) -> Tensor:
        """(B, C, 3, size, size) to (B, C, tokens, width): blocks of patches become tokens, scaled like text."""
        images = signed(images)
        if self.reads_text:
            return self.vision(images, self.vision.summary(text, token_mask))
        features = self.vision(images.flatten(0, 1))
        side, shuffle = math.isqrt(features.shape[1]), self.config.vlm.shuffle
        # (N, block row, block column, row in block, column in block, hidden)
        blocks = features.unflatten(1, (side // shuffle, shuffle, side // shuffle, shuffle)).transpose(2, 3)
        tokens = self.connector(blocks.flatten(3).flatten(1, 2)) * math.sqrt(self.config.vlm.text.width)
        return tokens.unflatten(0, images.shape[:2])

    def encode_tokens(self, x: Tensor, valid: Tensor) -> SmolVLAContext:
        """The same from (B, P, width) tokens, the state's last, and their (B, P) bool validity."""
        config, size = self.config, self.config.vlm.text
        horizon, groups = config.horizon, size.heads // size.kv_heads
        x = x.to(self.text[0].qkv.weight.dtype)
        rotary = rotary_table((valid.cumsum(dim=1) - 1).clamp(min=0), size.head_dim)
        # Only the state attends to the state; no token attends to padding.
        sees = valid[:, None, :].repeat(1, x.shape[1], 1)
        sees[:, :-1, -1] = False
        mask = sees[:, None].repeat_interleave(groups, dim=2)
        keys, values = [], []
        for i, (layer, reader) in enumerate(zip(self.text, self.expert, strict=True)):
            query, key, value = layer.project(x, rotary)
            seen_key, seen_value = reader.translate(key, value) if reader.cross else (key, value)
            keys.append(seen_key)
            values.append(seen_value)
            if i + 1 < len(self.text):  # the last layer's output for these tokens is not read
                x = layer.finish(x, grouped_attention(query, key, value, mask))
        joint = causal_mask(valid.new_ones(len(x), horizon), groups, valid)
        steps = torch.arange(horizon, device=valid.device)
        return SmolVLAContext(
            keys, values, cross_mask=valid[:, None, None, :], joint_mask=joint,
            joint_rotary=rotary_table(valid.sum(dim=1, keepdim=True) + steps, size.head_dim),
            cross_rotary=rotary_table(steps[None], size.head_dim),
        )

    def step_constants(self, time: Tensor) -> Tensor:
        """(N,) or (N, H) times to their share of the action-time MLP's first layer, (N, 1 or H, width).

        The layer acts on [action, time]: its product is the sum of the products with the two halves.
        """
        time = time.reshape(len(time), -1)
        features = time_features(time, self.config.expert_width, self.config.min_period, self.config.max_period)
        weight = self.time_in.weight
        return functional.linear(features.to(weight.dtype), weight.chunk(2, dim=1)[1], self.time_in.bias)

    def velocity(self, ready: SmolVLAContext, noisy: Tensor, constants: Tensor) -> Tensor:
        """noise - actions, (B, H, D), of (B, H, D) noisy actions with the constants of one time or of B."""
        x = self.action_in(noisy.to(self.action_in.weight.dtype))
        x = functional.linear(x, self.time_in.weight.chunk(2, dim=1)[0]) + constants
        x = self.time_out(functional.silu(x)).to(self.expert[0].out.weight.dtype)
        for layer, key, value in zip(self.expert, ready.keys, ready.values, strict=True):
            if layer.cross:
                query = layer.project_query(x, ready.cross_rotary)
                mask = ready.cross_mask
            else:
                query, own_key, own_value = layer.project(x, ready.joint_rotary)
                key, value = torch.cat([key, own_key], dim=2), torch.cat([value, own_value], dim=2)
                mask = ready.joint_mask
            x = layer.finish(x, grouped_attention(query, key, value, mask))
        return self.action_out(self.expert_norm(x).to(self.action_out.weight.dtype)).to(noisy.dtype)

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """Mean squared error of the (B, H, D) velocity over the episode's rows and the robot's own dimensions."""
        error = self.element_loss(batch, **draws)[..., : self.config.real_action_dim]
        return {"loss": mean_of_valid(error, batch["action_is_pad"])}

    def freeze(self) -> "SmolVLA":
        """Freeze what the configuration says: `train_expert_only`, `freeze_vision_encoder`, ..."""
        config = self.config
        for part in (self.embedding, self.text, *(() if self.reads_text else (self.connector,))):
            part.requires_grad_(not config.train_expert_only)
        self.vision.requires_grad_(not (config.train_expert_only or config.freeze_vision_encoder))
        self.state_in.requires_grad_(config.train_state_proj)
        return self
