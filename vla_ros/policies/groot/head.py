"""GR00T's action head: a diffusion transformer (DiT) over state and noisy actions that attends to the features.

Sources: the Isaac GR00T code of all generations; layers of Peebles and Xie 2023 (https://arxiv.org/abs/2212.09748) with
an adaptive norm only before attention. Every second layer attends to the features, whose keys and values depend neither
on noise nor on time and are therefore computed once per observation.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.policies.groot.config import GrootConfig
from vla_ros.policies.policy import tensors

Modulation = tuple[Tensor, Tensor]  # scale and shift, (N, 1, width) each


@tensors
class StepConstants:
    """What only depends on the time, for N times.

    Attributes:
        wave: (N, width) time features of the action encoder.
        modulations: of each layer; output: modulation of the last norm.
    """

    wave: Tensor
    modulations: list[Modulation]
    output: Modulation

    def __getitem__(self, rows: slice) -> "StepConstants":
        pairs = [tuple(part[rows] for part in pair) for pair in (*self.modulations, self.output)]
        return StepConstants(self.wave[rows], pairs[:-1], pairs[-1])

    def __len__(self) -> int:
        return len(self.wave)


class ByEmbodiment(nn.Module):
    """A linear layer with weights of its own for each embodiment."""

    def __init__(self, embodiments: int, inner: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(embodiments, inner, out) * inner**-0.5)
        self.bias = nn.Parameter(torch.zeros(embodiments, out))

    def forward(self, x: Tensor, embodiment: Tensor) -> Tensor:
        """(B, S, inner) and (B,) int64 to (B, S, out)."""
        x = x.to(self.weight.dtype)
        return torch.baddbmm(self.bias[embodiment][:, None], x, self.weight[embodiment])


class MlpByEmbodiment(nn.Module):
    """Two such layers with a ReLU between them."""

    def __init__(self, embodiments: int, inner: int, hidden: int, out: int) -> None:
        super().__init__()
        self.layer1, self.layer2 = ByEmbodiment(embodiments, inner, hidden), ByEmbodiment(embodiments, hidden, out)

    def forward(self, x: Tensor, embodiment: Tensor) -> Tensor:
        """(B, S, inner) to (B, S, out)."""
        return self.layer2(functional.relu(self.layer1(x, embodiment)), embodiment)


class ActionEncoder(nn.Module):
    """Noisy actions and their time to tokens."""

    def __init__(self, embodiments: int, actions: int, width: int) -> None:
        super().__init__()
        self.layer1 = ByEmbodiment(embodiments, actions, width)
        self.layer2 = ByEmbodiment(embodiments, 2 * width, width)
        self.layer3 = ByEmbodiment(embodiments, width, width)

    def forward(self, actions: Tensor, wave: Tensor, embodiment: Tensor) -> Tensor:
        """(B, H, D), (1 or B, width) and (B,) to (B, H, width)."""
        x = self.layer1(actions, embodiment)
        x = torch.cat([x, wave.to(x.dtype)[:, None].expand(*x.shape)], dim=-1)
        return self.layer3(functional.silu(self.layer2(x, embodiment)), embodiment)


class DiTLayer(nn.Module):
    """Attention after an adaptive norm, MLP after a plain one; `source`: width of the features it attends to, 0:
    none."""

    def __init__(self, width: int, heads: int, source: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.source, self.dropout = heads, source, dropout
        self.modulation = nn.Linear(width, 2 * width)
        if source:
            self.query, self.key_value = nn.Linear(width, width), nn.Linear(source, 2 * width)
        else:
            self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def remember(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, P, source) to keys and values, (B, heads, P, head_dim) each."""
        return self._heads(self.key_value(features.to(self.key_value.weight.dtype)), 2)

    def forward(
        self, x: Tensor, modulation: Modulation, known: tuple[Tensor, Tensor] | None, mask: Tensor | None
    ) -> Tensor:
        """(B, S, width) to the same; `mask` (B, 1, 1, P) bool of the known keys and values."""
        scale, shift = modulation
        normed = functional.layer_norm(x, x.shape[-1:], eps=1e-5) * (1 + scale) + shift
        if known is None:
            query, key, value = self._heads(self.qkv(normed), 3)
        else:
            (query,), (key, value) = self._heads(self.query(normed), 1), known
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self._drop(self._drop(self.out(attended.transpose(1, 2).flatten(2))))  # twice, as published
        hidden = functional.gelu(self.fc1(functional.layer_norm(x, x.shape[-1:], eps=1e-5)), approximate="tanh")
        return x + self._drop(self.fc2(self._drop(hidden)))

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, S, parts * width) to `parts` tensors (B, heads, S, head_dim)."""
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training) if self.dropout else x


class ActionHead(nn.Module):
    """State, future tokens and noisy actions through the DiT to the velocity actions - noise."""

    def __init__(self, config: GrootConfig) -> None:
        super().__init__()
        self.config = config
        number, width, hidden = config.embodiments, config.width, config.hidden
        scale = width**-0.5  # at the published width about the published 0.02, here and in `ByEmbodiment`
        self.state_in = MlpByEmbodiment(number, config.max_state_dim * config.state_history, hidden, width)
        self.action_in = ActionEncoder(number, config.max_action_dim, width)
        self.action_out = MlpByEmbodiment(number, hidden, hidden, config.max_action_dim)
        self.future = nn.Parameter(scale * torch.randn(config.future_tokens, width)) if config.future_tokens else None
        self.positions = nn.Parameter(scale * torch.randn(config.max_seq_len, width))
        self.mask_token = nn.Parameter(scale * torch.randn(1, 1, width)) if config.has_mask_token else None
        self.time_1, self.time_2 = nn.Linear(256, width), nn.Linear(width, width)
        self.layers = nn.ModuleList(
            DiTLayer(width, config.dit_heads, 0 if index % 2 else config.feature_dim, config.dropout)
            for index in range(config.dit_layers)
        )
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, hidden)

    def state_token(self, state: Tensor, embodiment: Tensor, dropped: Tensor | None = None) -> Tensor:
        """(B, K, max_state_dim) to (B, 1, width); `dropped` (B,) bool: replaced by the mask token, or by zeros."""
        token = self.state_in(state.flatten(1)[:, None], embodiment)
        if dropped is None:
            return token
        other = torch.zeros_like(token) if self.mask_token is None else self.mask_token.to(token.dtype)
        return torch.where(dropped[:, None, None], other, token)

    def constants(self, buckets: Tensor) -> StepConstants:
        """Of (N,) int64 discretised times."""
        weight, time = self.time_1.weight, buckets.float()[:, None]
        turns = torch.arange(128, device=buckets.device, dtype=torch.float32) * (-math.log(10_000) / 127)
        angle = time * turns.exp()
        embedded = self.time_1(torch.cat([angle.cos(), angle.sin()], dim=-1).to(weight.dtype))
        embedded = functional.silu(self.time_2(functional.silu(embedded)))
        half = self.config.width // 2
        turns = torch.arange(half, device=buckets.device, dtype=torch.float32) * (-math.log(10_000) / half)
        angle = time * turns.exp()
        shift, scale = self.modulation(embedded)[:, None].chunk(2, dim=-1)  # in the opposite order to the layers'
        return StepConstants(
            torch.cat([angle.sin(), angle.cos()], dim=-1),
            [layer.modulation(embedded)[:, None].chunk(2, dim=-1) for layer in self.layers], (scale, shift),
        )

    def velocity(
        self, noisy: Tensor, constants: StepConstants, state: Tensor, embodiment: Tensor,
        known: list[tuple[Tensor, Tensor]], masks: list[Tensor],
    ) -> Tensor:
        """actions - noise, (B, H, D), of (B, H, D) noisy actions.

        Args:
            state: (B, 1, width) token.
            known: keys and values of each layer that attends to the features.
            masks: (), or two (B, 1, 1, P) that such layers use, see `alternate` of `GrootConfig`.
        """
        horizon = noisy.shape[1]
        actions = self.action_in(noisy, constants.wave, embodiment) + self.positions[:horizon]
        future = [] if self.future is None else [self.future.expand(len(noisy), -1, -1)]
        x = torch.cat([part.to(self.out.weight.dtype) for part in (state, *future, actions)], dim=1)
        for index, layer in enumerate(self.layers):
            pair = known[index // 2] if layer.source else None
            text = index % (2 * self.config.text_every) == 0
            mask = masks[0 if text else 1] if masks and layer.source else None
            x = layer(x, constants.modulations[index], pair, mask)
        scale, shift = constants.output
        x = functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
        return self.action_out(self.out(x[:, -horizon:]), embodiment).to(noisy.dtype)
