"""π0 and π0.5: a vision-language prefix and a flow-matching action expert that share attention.

Sources: Black et al. 2024 (π0), Physical Intelligence 2025 (π0.5), the published openpi code. Time runs from 1 (noise)
to 0 (actions); the network predicts noise - actions.

The order of the tokens is [images][text][state][actions], and a token attends to its own group and those before it;
images and text are one group. So nothing before the actions depends on them or on the time: `encode` computes it once
per observation and keeps its keys and values; a step only runs the H action tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.nn.attention import KeyValueCache, added_mask
from vla_ros.nn.embeddings import Rotary, rotary_table, time_features
from vla_ros.nn.gemma import GemmaTower
from vla_ros.nn.norms import Modulation
from vla_ros.policies.flow import FlowPolicy
from vla_ros.policies.pi0.config import Pi0Config
from vla_ros.policies.pi0.vision import ImageTokens, prefix_tokens
from vla_ros.policies.policy import Batch, Draws, Memory, mean_of_valid, tensors


@tensors
class StepConstants:
    """What only depends on the time, for N times: the same for every observation.

    Attributes:
        bias: (N, R, width), π0: the time's share of the action-time MLP's first layer; R is 1, or H with a time for
            each row.
        modulations: π0.5: 1 + scale, shift and gate of every norm of the expert, each (N, R, width).
    """

    bias: Tensor | None = None
    modulations: list[Modulation] | None = None

    def __getitem__(self, rows: slice) -> "StepConstants":
        return StepConstants(
            None if self.bias is None else self.bias[rows],
            None if self.modulations is None else [tuple(part[rows] for part in m) for m in self.modulations],
        )

    def __len__(self) -> int:
        return len(self.modulations[0][0] if self.bias is None else self.bias)


@tensors
class Pi0Context:
    """Images, text and state, as input of the action tokens.

    Attributes:
        cache: (2, layers, B, kv_heads, P, head_dim) keys and values of P tokens.
        key_mask: (B, 1, 1, P + H), added to the scores of each of them and of the action tokens: 0, or -inf if it is
            masked.
        rotary: of the H action tokens.
    """

    cache: Tensor
    key_mask: Tensor
    rotary: Rotary


Ready = tuple[Pi0Context, KeyValueCache, list[Tensor] | None]  # and the scales of the expert's norms


class Pi0(FlowPolicy):
    """The network, for every size and for both π0 and π0.5 (`config.adaptive`).

    A batch contains
        images: (B, C, 3, height, width) uint8, or floating point in [-1, 1].
        image_mask: (B, C) bool, False if a camera is absent.
        cameras: (C,) int64, optional: which of the policy's cameras they are; by default all, in order.
        tokens: (B, T) int64; token_mask: (B, T) bool.
        state: (B, state_dim), normalised and padded (π0).
    """

    def __init__(self, config: Pi0Config) -> None:
        super().__init__()
        self.config = config
        width = config.expert.width
        self.time_draw = config.time_beta, config.time_scale, config.time_offset
        long = config.prompt == "pi05"  # which contains the state too
        self.image_tokens = ImageTokens(config.vision, config.prefix.width, len(config.cameras), long)
        self.embedding = nn.Embedding(config.vocabulary, config.prefix.width)
        nn.init.normal_(self.embedding.weight, std=config.prefix.width**-0.5)  # unit variance after scaling
        self.prefix = GemmaTower(config.prefix)
        self.expert = GemmaTower(config.expert, condition_width=width if config.adaptive else None)
        if config.state_token:
            self.state_in = nn.Linear(config.state_dim, width)
        self.action_in = nn.Linear(config.action_dim, width)
        # π0 mixes the time with the action tokens, π0.5 computes the condition of the norms from it.
        self.time_in = nn.Linear(width if config.adaptive else 2 * width, width)
        self.time_out = nn.Linear(width, width)
        self.action_out = nn.Linear(width, config.action_dim)
        # As in openpi: norms, image patches, and the projections of state, actions and time to the towers' width.
        self.float32 = (r".*norm", r"(state|action|time)_(in|out)\.", r"image_tokens\.tower\.(patches|positions)")
        if self.image_tokens.reads_text:
            self.float32 += (r"image_tokens\.tower\.",)

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> Pi0Context:
        """Keys and values of images, text and state."""
        tokens, valid = prefix_tokens(self.image_tokens, self.embedding, batch)
        return self.encode_tokens(tokens, valid, batch.get("state"))

    def encode_tokens(self, tokens: Tensor, valid: Tensor, state: Tensor | None) -> Pi0Context:
        """The same from (B, P, width) embedded tokens, (B, P) bool validity and the (B, state_dim) state."""
        size, horizon = self.config.prefix, self.config.horizon
        rows, length = valid.shape
        extra = int(self.config.state_token)
        matrix = self.prefix.layers[0].qkv.weight
        cache = KeyValueCache(matrix.new_empty(2, size.depth, rows, size.kv_heads, 0, size.head_dim), length + extra)
        # Masked tokens have no positions, so a masked camera or longer padding does not change the result.
        count = valid.sum(dim=1, keepdim=True)
        key_mask = F.pad(valid, (0, extra + horizon), value=True)[:, None, None, :]
        key_mask = added_mask(key_mask, matrix.dtype)
        rotary = rotary_table((valid.cumsum(dim=1) - 1).clamp(min=0), size.head_dim)
        self.prefix.fill(tokens.to(matrix.dtype), rotary, cache, key_mask[..., :length])
        if self.config.state_token:
            token = self.state_in(state.to(self.state_in.weight.dtype))[:, None].to(matrix.dtype)
            self.expert.fill(token, rotary_table(count, size.head_dim), cache, key_mask[..., : length + 1])
        positions = count + extra + torch.arange(horizon, device=valid.device)
        return Pi0Context(cache.stored(), key_mask, rotary_table(positions, size.head_dim))

    def step_constants(self, time: Tensor) -> StepConstants:
        """What denoising at the (N,) or (N, H) times needs besides prefix and actions."""
        time = time.reshape(len(time), -1)
        features = time_features(time, self.config.expert.width, self.config.min_period, self.config.max_period)
        features = features.to(self.time_in.weight.dtype)
        if not self.config.adaptive:
            # The first layer acts on [action, time]: its product is the sum of the products with the two halves.
            return StepConstants(bias=F.linear(features, self.time_in.weight.chunk(2, dim=1)[1], self.time_in.bias))
        condition = F.silu(self.time_out(F.silu(self.time_in(features))))
        return StepConstants(modulations=self.expert.modulations(condition))

    def ready(self, context: Pi0Context) -> Ready:
        """With its keys and values copied into a cache with space for H more; the context is left unchanged."""
        scales = None if self.config.adaptive else self.expert.scales()
        return context, KeyValueCache(context.cache, self.config.horizon), scales

    def velocity(self, ready: Ready, noisy: Tensor, constants: StepConstants) -> Tensor:
        """noise - actions, (B, H, D), of (B, H, D) noisy actions with the constants of one time or of B."""
        context, cache, scales = ready
        x = self.action_in(noisy.to(self.action_in.weight.dtype))
        if not self.config.adaptive:
            x = F.linear(x, self.time_in.weight.chunk(2, dim=1)[0]) + constants.bias
            x = self.time_out(F.silu(x))
        x = x.to(self.expert.layers[0].qkv.weight.dtype)
        x = self.expert(x, context.rotary, cache, context.key_mask, constants.modulations or scales)
        return self.action_out(x.to(self.action_out.weight.dtype)).to(noisy.dtype)

    def loss(self, batch: Batch, **draws: Tensor) -> dict[str, Tensor]:
        """Mean squared error of the (B, H, D) velocity over the episode's rows and the robot's own dimensions."""
        error = self.element_loss(batch, **draws)[..., : self.config.loss_dims]
        return {"loss": mean_of_valid(error, batch.get("action_is_pad"))}

    def freeze(self) -> "Pi0":
        """Freeze what the configuration says: `train_expert_only`, `freeze_vision_encoder`, ..."""
        config = self.config
        for part in (self.image_tokens, self.embedding, self.prefix):
            part.requires_grad_(not config.train_expert_only)
        self.image_tokens.tower.requires_grad_(not (config.train_expert_only or config.freeze_vision_encoder))
        if config.state_token:
            self.state_in.requires_grad_(config.train_state_proj)
        return self
