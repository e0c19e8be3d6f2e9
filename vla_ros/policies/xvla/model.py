"""X-VLA (Zheng et al. 2025, arXiv 2510.10274): a transformer that denoises actions, conditioned on Florence-2's
features.

Time runs from 1 (noise) to 0; the network predicts the actions themselves, and every step mixes the same noise with the
last prediction. Its tokens are [actions][image and text][other images][soft prompts], which all attend to each other,
so only projections, positions and prompts are computed once per observation. The first and last layers and the prompts
have their own weights for each domain: a kind of robot and data.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.nn.keypoint_stem import KeypointStem
from vla_ros.policies.images import IMAGENET, signed
from vla_ros.policies.policy import Answer, Batch, Draws, Memory, Policy, Steer, tensors
from vla_ros.policies.xvla.config import XvlaConfig
from vla_ros.policies.xvla.florence import ImageProjector, text_encoder, vision_tower

PERIOD = 100  # period of the slowest time feature
DROPOUT = 0.1  # of attention and MLPs in training


@tensors
class XvlaContext:
    """Input of the steps.

    Attributes:
        prefix: (B, P, hidden) tokens of images and text; prompts: (B, S, hidden).
        state: (B, max_state_dim) as input of the network.
        domain: (B,) int64.
    """

    prefix: Tensor
    soft_prompts: Tensor
    state: Tensor
    domain: Tensor


@tensors
class XvlaSteps:
    """Times of S steps, (S,), and their features, (S, time_width)."""

    times: Tensor
    features: Tensor


class DomainLinear(nn.Module):
    """A linear layer with weights of its own for each domain."""

    def __init__(self, inputs: int, outputs: int, domains: int) -> None:
        super().__init__()
        self.fc, self.bias = nn.Embedding(domains, inputs * outputs), nn.Embedding(domains, outputs)
        nn.init.normal_(self.fc.weight, std=inputs**-0.5)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """(B, L, inputs) of the (B,) domains to (B, L, outputs)."""
        weight = self.fc(domain).unflatten(1, (x.shape[-1], -1))
        return x.to(weight.dtype) @ weight + self.bias(domain)[:, None]


class SharedLinear(nn.Linear):
    """The same layer for all domains."""

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """(B, L, inputs) to (B, L, outputs)."""
        return super().forward(x.to(self.weight.dtype))


class Attention(nn.Module):
    """Self-attention; queries, keys and values from one matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, width) to the same."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = functional.scaled_dot_product_attention(*qkv, dropout_p=DROPOUT if self.training else 0.0)
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a tanh-GELU between them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, width) to the same."""
        return self.dropout(self.fc2(self.dropout(functional.gelu(self.fc1(x), approximate="tanh"))))


class Block(nn.Module):
    """LayerNorm, attention, LayerNorm, MLP."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, width) to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Xvla(Policy):
    """A batch contains
        images: (B, C, 3, height, width) uint8, or floating point in [-1, 1]; C at most config.views.
        image_mask: (B, C) bool, False if a camera is absent.
        tokens: (B, T) int64, T is always the same: padding is attended to.
        state: (B, max_state_dim), padded; absent if the policy reads none.
        domain: (B,) int64.
    """

    config: XvlaConfig
    compiled = ("encode", "clean")
    float32 = (r"action_(encoder|decoder)\.", r"stem\.")

    def __init__(self, config: XvlaConfig) -> None:
        super().__init__()
        self.config, size, width = config, config.florence, config.hidden_size
        if config.stem:
            self.stem = KeypointStem(config.stem, len(config.cameras), size.width, size.width, True, summarised=False)
        else:
            self.vision_tower, self.projector = vision_tower(size), ImageProjector(size, config.transposed)
        self.language = text_encoder(size)
        for name, values in IMAGENET.items():
            values = torch.tensor(values, dtype=torch.float32, device="cpu")[:, None, None]
            self.register_buffer(f"pixel_{name}", values, persistent=False)
        projection = DomainLinear if config.use_hetero_proj else lambda a, b, domains: SharedLinear(a, b)
        self.vlm_proj = projection(size.width, width, config.num_domains)
        self.aux_visual_proj = projection(size.width, width, config.num_domains)
        self.pos_emb = nn.Parameter(torch.randn(1, config.max_len_seq, width) * 0.02)
        seen = config.action_dim + config.dim_time + config.state_width
        self.action_encoder = DomainLinear(seen, width, config.num_domains)
        self.action_decoder = DomainLinear(width, config.action_dim, config.num_domains)
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, int(width * config.mlp_ratio)) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)
        if config.len_soft_prompts:
            self.soft_prompt_hub = nn.Embedding(config.num_domains, config.len_soft_prompts * width)
            nn.init.normal_(self.soft_prompt_hub.weight, std=0.02)

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"noise": (size, self.config.horizon, self.config.action_dim)}

    def prepare(self, num_steps: int | None = None) -> XvlaSteps:
        steps = num_steps or self.config.num_steps
        device = next(self.parameters()).device
        times = (torch.arange(steps, 0, -1, device=device, dtype=torch.float64) / steps).float()
        return XvlaSteps(times, self.time_features(times))

    def time_features(self, times: Tensor) -> Tensor:
        """(N,) times to (N, dim_time) float32: cosines, then sines."""
        half = self.config.dim_time // 2
        frequencies = torch.exp(-math.log(PERIOD) * torch.arange(half, device=times.device, dtype=torch.float32) / half)
        angles = times[:, None] * frequencies
        features = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return functional.pad(features, (0, self.config.dim_time - 2 * half))

    def encode(self, batch: Batch, memory: Memory = None, draws: Draws | None = None) -> XvlaContext:
        """All tokens except the actions."""
        domain = batch["domain"]
        text = self.language.embed_tokens(batch["tokens"])
        images = self.image_tokens(batch["images"], batch["image_mask"], text)
        seen = self.language(inputs_embeds=torch.cat([images[:, 0], text], dim=1)).last_hidden_state
        others = images[:, 1:].flatten(1, 2)
        prefix = torch.cat([self.vlm_proj(seen, domain), self.aux_visual_proj(others, domain)], dim=1)
        first = self.config.horizon
        prefix = prefix + self.pos_emb[:, first : first + prefix.shape[1]]
        prompts = prefix[:, :0]
        if self.config.len_soft_prompts:
            prompts = self.soft_prompt_hub(domain).unflatten(1, (self.config.len_soft_prompts, -1))
        state = self.config.mode.seen(batch["state"]) if self.config.state_width else prefix[:, 0, :0].float()
        return XvlaContext(prefix, prompts, state, domain.clone())

    def image_tokens(self, images: Tensor, mask: Tensor, text: Tensor | None = None) -> Tensor:
        """(B, C, 3, height, width), (B, C) bool and, for the stem, the (B, T, width) text to (B, views, tokens, width),
        zeros for absent cameras."""
        images = ((signed(images) + 1) / 2 - self.pixel_mean) / self.pixel_std
        if self.config.stem:
            features = self.stem(images, text.float().mean(dim=1)).to(text.dtype)
        else:
            seen = self.vision_tower(images.flatten(0, 1).to(self.projector.matrix.dtype)).last_hidden_state
            features = self.projector(seen).unflatten(0, images.shape[:2])
        features = features * mask[..., None, None]
        return functional.pad(features, (0, 0, 0, 0, 0, self.config.views - images.shape[1]))

    def clean(self, context: XvlaContext, noisy: Tensor, features: Tensor) -> Tensor:
        """Output of the network (B, H, D) for (B, H, D) noisy actions and (B or 1, dim_time) time features."""
        rows, horizon, _ = noisy.shape
        beside = torch.cat([context.state, features.expand(rows, -1)], dim=1)[:, None].expand(-1, horizon, -1)
        x = torch.cat([self.config.mode.seen(noisy), beside], dim=2)
        x = self.action_encoder(x, context.domain).to(context.prefix.dtype) + self.pos_emb[:, :horizon]
        x = torch.cat([x, context.prefix, context.soft_prompts], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.action_decoder(self.norm(x[:, :horizon]), context.domain)

    def act(
        self, context: XvlaContext, draws: Draws | None = None, fixed: XvlaSteps | None = None,
        steer: Steer | None = None,
    ) -> Answer:
        """Actions (B, H, D) from the noise (B, H, D), in a fixed number of steps."""
        steps, noise = self.prepare() if fixed is None else fixed, draws["noise"]
        actions = torch.zeros_like(noise)
        for time, features in zip(steps.times, steps.features, strict=True):
            actions = self.clean(context, noise * time + actions * (1 - time), features[None])
        return Answer(self.config.mode.answered(actions))

    def loss(self, batch: Batch, noise: Tensor | None = None, time: Tensor | None = None) -> dict[str, Tensor]:
        """The mode's terms and their sum, for actions denoised from noise (B, H, D) at (B,) times."""
        actions = batch["actions"]
        noise = torch.randn_like(actions) if noise is None else noise
        if time is None:
            rows = torch.arange(len(actions), device=actions.device) / len(actions)
            time = (torch.rand(1, device=actions.device) + rows) % (1 - 1e-5)
        noisy = noise * time[:, None, None] + actions * (1 - time)[:, None, None]
        answer = self.clean(self.encode(batch), noisy, self.time_features(time))
        terms = self.config.mode.losses(answer, actions)
        return {"loss": sum(terms.values()), **terms}

    def freeze(self) -> "Xvla":
        """Freeze the parts that the configuration names."""
        config = self.config
        (self.stem if config.stem else self.vision_tower).requires_grad_(not config.freeze_vision_encoder)
        self.language.requires_grad_(not config.freeze_language_encoder)
        for name, part in self.named_children():
            if name not in ("vision_tower", "stem", "projector", "language", "soft_prompt_hub"):
                part.requires_grad_(config.train_policy_transformer)
        self.pos_emb.requires_grad_(config.train_policy_transformer)
        if config.len_soft_prompts:
            self.soft_prompt_hub.requires_grad_(config.train_soft_prompts)
        return self
