"""Heads that compute actions from noise: diffusion, and flow matching that attends to all hidden states."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.core.errors import InputError
from vla_ros.core.records import Count, Range, Width
from vla_ros.nn.embeddings import time_features
from vla_ros.nn.norms import layer_normalised
from vla_ros.policies.diffusion.schedule import Step, make_scheduler, make_steps
from vla_ros.policies.flow import draw_time, noisy_at, sample, times
from vla_ros.policies.parts.autoregressive import sinusoids
from vla_ros.policies.parts.heads import trunk
from vla_ros.policies.parts.kinds import Features, Head
from vla_ros.policies.parts.projectors import check_heads
from vla_ros.policies.policy import mean_of_valid, tensors

Steps = Annotated[int, Range(1, 1000)]


@dataclass(frozen=True)
class DiffusionSize:
    """`hidden`: width of the `layers`; `num_steps` of DDIM at inference, of `num_train_timesteps`."""

    hidden: Width = 512
    layers: Annotated[int, Range(1, 100)] = 4
    num_steps: Steps = 10
    num_train_timesteps: Steps = 100

    # Further attributes that `diffusion.schedule` reads.
    noise_scheduler_type, beta_schedule, prediction_type = "DDIM", "linear", "epsilon"
    beta_start, beta_end, clip_sample, clip_sample_range = 1e-4, 0.02, False, 1.0

    def __post_init__(self) -> None:
        if self.num_steps > self.num_train_timesteps:
            raise InputError(f"num_steps {self.num_steps}, expected at most num_train_timesteps "
                             f"{self.num_train_timesteps}")
        if self.hidden % 2:
            raise InputError(f"hidden {self.hidden}, expected an even number: half of the time's features are sines")


class DiffusionHead(Head):
    """A perceptron that predicts the noise in a chunk (Ho et al. 2020), sampled with DDIM (Song et al. 2020, η = 0)."""

    Size, steps = DiffusionSize, True

    def __init__(self, size: DiffusionSize, width: int, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.size, self.shape, hidden = size, (horizon, action_dim), size.hidden
        self.time = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.condition = nn.Linear(width, hidden)
        flat = horizon * action_dim
        self.trunk, self.out = trunk(flat + 2 * hidden, hidden, size.layers, 0.0), nn.Linear(hidden, flat)
        self.scheduler = make_scheduler(size)

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"noise": (size, *self.shape)}

    def prepare(self, num_steps: int | None = None) -> tuple[Step, ...]:
        return make_steps(self.size, self.size.num_steps if num_steps is None else num_steps)

    def ready(self, features: Features) -> Tensor:
        return self.condition(features.summary.to(self.dtype))

    def step(self, ready: Tensor, x: Tensor, constants: Tensor) -> Tensor:
        """Predicted noise in (B, H, D), at (B,) or (1,) scheduler steps."""
        half = self.size.hidden // 2
        rates = 10_000 ** -(torch.arange(half, device=x.device) / max(half - 1, 1))
        angle = constants.float()[:, None] * rates
        time = self.time(torch.cat([angle.sin(), angle.cos()], dim=-1).to(self.dtype)).expand(len(x), -1)
        seen = torch.cat([x.flatten(1).to(self.dtype), time, ready], dim=-1)
        return self.out(self.trunk(seen)).unflatten(-1, self.shape).float()

    def act(self, features, draws=None, fixed=None, steer=None, step=None) -> Tensor:
        step, ready, x = step or self.step, self.ready(features), draws["noise"]
        for at in self.prepare() if fixed is None else fixed:
            noise = step(ready, x, torch.full((1,), at.time, device=x.device))
            x = at.clean * (x - at.noise_level * noise) / at.signal + at.noise * noise
        return x

    def loss(self, features, actions, pad, **draws) -> dict[str, Tensor]:
        noise = draws["noise"] if "noise" in draws else torch.randn_like(actions)
        time = draws.get("time")
        if time is None:
            time = torch.randint(0, self.size.num_train_timesteps, (len(actions),), device=actions.device)
        told = self.step(self.ready(features), self.scheduler.add_noise(actions, noise, time), time)
        return {"loss": mean_of_valid((told - noise).square(), pad)}


@dataclass(frozen=True)
class FlowSize:
    """`hidden`: width of the `layers`; `mlp`: of their hidden layers; `num_steps` at inference."""

    hidden: Width = 256
    layers: Annotated[int, Range(1, 100)] = 4
    heads: Count = 8
    mlp: Annotated[int, Range(1, 262_144)] = 1024
    num_steps: Steps = 10

    def __post_init__(self) -> None:
        check_heads(self.hidden, self.heads)
        if self.hidden % 2:
            raise InputError(f"hidden {self.hidden}, expected an even number: half of the time's features are sines")


@tensors
class Known:
    """Keys and values of the hidden states, (layers, B, heads, S, head_dim) each, and the (B, 1, 1, S) bool mask."""

    key: Tensor
    value: Tensor
    mask: Tensor


class FlowLayer(nn.Module):
    """Self-attention of the rows of a chunk, cross-attention to the hidden states, an MLP; each after a norm."""

    def __init__(self, size: FlowSize, width: int) -> None:
        super().__init__()
        hidden, self.heads = size.hidden, size.heads
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(hidden) for _ in range(3))
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.query, self.key_value = nn.Linear(hidden, hidden), nn.Linear(width, 2 * hidden)
        self.cross_out = nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, size.mlp), nn.Linear(size.mlp, hidden)

    def split(self, x: Tensor, parts: int) -> Tensor:
        """(B, S, parts * hidden) to (parts, B, heads, S, head_dim)."""
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """(B, H, hidden) to the same."""
        attend = functional.scaled_dot_product_attention
        own = attend(*self.split(self.qkv(layer_normalised(self.norm1, x)), 3))
        x = x + self.out(own.transpose(1, 2).flatten(2))
        query = self.split(self.query(layer_normalised(self.norm2, x)), 1)[0]
        x = x + self.cross_out(attend(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(layer_normalised(self.norm3, x))))


class FlowHead(Head):
    """A transformer that predicts the velocity noise - actions (Lipman et al. 2022, https://arxiv.org/abs/2210.02747);
    its inputs from the observation are computed once for all steps."""

    Size, steps, reads, guidance = FlowSize, True, "tokens", ("prior", "exact")

    def __init__(self, size: FlowSize, width: int, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.size, self.shape, hidden = size, (horizon, action_dim), size.hidden
        self.first, self.last = nn.Linear(action_dim, hidden), nn.Linear(hidden, action_dim)
        self.places = nn.Parameter(sinusoids(horizon, hidden))  # as large as the features, else they have no effect
        self.time = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.norm_in, self.norm = nn.LayerNorm(width), nn.LayerNorm(hidden)
        self.layers = nn.ModuleList(FlowLayer(size, width) for _ in range(size.layers))

    def draws(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"noise": (size, *self.shape)}

    def prepare(self, num_steps: int | None = None) -> Tensor:
        """(num_steps, hidden) features of the times of the steps."""
        return self._timed(times(num_steps or self.size.num_steps, self.first.weight.device))

    def _timed(self, time: Tensor) -> Tensor:
        return self.time(time_features(time, self.size.hidden).to(self.dtype))

    def ready(self, features: Features) -> Known:
        seen = layer_normalised(self.norm_in, features.tokens.to(self.dtype))
        pairs = [layer.split(layer.key_value(seen), 2) for layer in self.layers]
        key, value = (torch.stack(part) for part in zip(*pairs, strict=True))
        return Known(key, value, features.valid[:, None, None])

    def step(self, ready: Known, x: Tensor, constants: Tensor) -> Tensor:
        """Velocity of (B, H, D), with (1 or B, hidden) features of the time."""
        hidden = self.first(x.to(self.dtype)) + self.places + constants[:, None]
        for i, layer in enumerate(self.layers):
            hidden = layer(hidden, ready.key[i], ready.value[i], ready.mask)
        return self.last(layer_normalised(self.norm, hidden)).float()

    def act(self, features, draws=None, fixed=None, steer=None, step=None) -> Tensor:
        constants, ready = self.prepare() if fixed is None else fixed, self.ready(features)
        step = step or self.step

        def velocity(x: Tensor, at: int) -> Tensor:
            return step(ready, x, constants[at : at + 1])

        return sample(velocity, draws["noise"], len(constants), steer)

    def loss(self, features, actions, pad, **draws: Any) -> dict[str, Tensor]:
        noise = draws["noise"] if "noise" in draws else torch.randn_like(actions)
        time = draws["time"] if "time" in draws else draw_time(actions)
        noisy = noisy_at(actions, noise, time)
        told = self.step(self.ready(features), noisy, self._timed(time))
        return {"loss": mean_of_valid((told - (noise - actions)).square(), pad)}
