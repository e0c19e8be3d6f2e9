"""Gemma blocks, split so that two towers can share one attention."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.core.records import Count, Inner, Layers, Width
from vla_ros.nn.attention import KeyValueCache, added_mask, grouped_attention
from vla_ros.nn.embeddings import Rotary, rotate
from vla_ros.nn.norms import AdaptiveRMSNorm, Modulation, RMSNorm


@dataclass(frozen=True)
class GemmaSize:
    """Width of a tower; `depth`, `kv_heads` and `head_dim` must agree between towers that share attention."""

    width: Width
    depth: Layers
    mlp: Inner
    heads: Count
    kv_heads: Count
    head_dim: Count


def add_gated(residual: Tensor, out: Tensor, gate: Tensor | None) -> Tensor:
    """residual + gate · out, (B, S, width); `gate` is None for a norm without one: residual + out."""
    return residual + out if gate is None else torch.addcmul(residual, gate, out)


class GemmaLayer(nn.Module):
    """Norm, attention, norm, GeGLU. One matrix computes queries, keys and values, one computes gate and up.

    Fusing them is exact: a product with stacked rows is the stack of the products.
    """

    def __init__(self, size: GemmaSize, condition_width: int | None) -> None:
        super().__init__()
        self.size = size
        inner = size.heads * size.head_dim
        self.input_norm = _norm(size.width, condition_width)
        self.qkv = nn.Linear(size.width, inner + 2 * size.kv_heads * size.head_dim, bias=False)
        self.out = nn.Linear(inner, size.width, bias=False)
        self.post_norm = _norm(size.width, condition_width)
        self.gate_up = nn.Linear(size.width, 2 * size.mlp, bias=False)
        self.down = nn.Linear(size.mlp, size.width, bias=False)

    def project(self, x: Tensor, rotary: Rotary, modulation: Modulation | None) -> tuple[Tensor, ...]:
        """(B, S, width) to query (B, heads, S, D), key and value (B, kv_heads, S, D), and the residual's gate."""
        size = self.size
        normed, gate = self.input_norm(x, modulation)
        heads = self.qkv(normed).unflatten(-1, (-1, size.head_dim)).transpose(1, 2)
        turned, value = heads.split([size.heads + size.kv_heads, size.kv_heads], dim=1)
        query, key = rotate(turned, rotary).split([size.heads, size.kv_heads], dim=1)
        return query, key, value, gate

    def finish(self, x: Tensor, attended: Tensor, gate: Tensor | None, modulation: Modulation | None) -> Tensor:
        """Attention's output (B, S, heads * D) and the MLP added to the residual (B, S, width)."""
        x = add_gated(x, self.out(attended), gate)
        normed, gate = self.post_norm(x, modulation)
        hidden, up = self.gate_up(normed).chunk(2, dim=-1)
        return add_gated(x, self.down(F.gelu(hidden, approximate="tanh") * up), gate)


class GemmaTower(nn.Module):
    """A stack of layers with its own weights; it can read the keys and values of another tower through the cache.

    With `condition_width` every norm is adaptive (π0.5's expert).
    """

    def __init__(self, size: GemmaSize, condition_width: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.ModuleList(GemmaLayer(size, condition_width) for _ in range(size.depth))
        self.norm = _norm(size.width, condition_width)

    def modulations(self, condition: Tensor) -> list[Modulation]:
        """1 + scale, shift, gate of every norm in order (two a layer, then the last) for an (N, R, width)
        condition."""
        kind = self.layers[0].qkv.weight.dtype
        return [norm.modulation(condition, kind) for norm in self._norms()]

    def scales(self) -> list[Tensor]:
        """Computed once for many calls of `forward`; takes the place of modulations if norms are not adaptive."""
        return [norm.scale() for norm in self._norms()]

    def _norms(self) -> list[nn.Module]:
        return [*(norm for layer in self.layers for norm in (layer.input_norm, layer.post_norm)), self.norm]

    def fill(self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor | None) -> None:
        """Run (B, S, width) tokens only to store their keys and values in the cache.

        The last layer stops at its keys and values, since nothing reads its output. This is exact, and saves one
        layer's attention and MLP.
        """
        key_mask = added_mask(key_mask, x.dtype)
        for index, layer in enumerate(self.layers):
            query, key, value, gate = layer.project(x, rotary, None)
            keys, values = cache.store(index, key, value)
            if index + 1 < len(self.layers):
                x = layer.finish(x, grouped_attention(query, keys, values, key_mask), gate, None)

    def forward(
        self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor | None,
        modulations: list[Modulation] | list[Tensor] | None = None, keep: bool = False,
    ) -> Tensor:
        """(B, S, width) tokens that see the cache and each other, to (B, S, width) after the last norm.

        `modulations`: of adaptive norms, or `scales()` of other norms; computed here if None.
        `keep`: their keys and values stay in the cache, for tokens that are decoded one by one.
        """
        key_mask, steps = added_mask(key_mask, x.dtype), modulations or [None] * (2 * len(self.layers) + 1)
        for index, layer in enumerate(self.layers):
            query, key, value, gate = layer.project(x, rotary, steps[2 * index])
            keys, values = (cache.store if keep else cache.attach)(index, key, value)
            x = layer.finish(x, grouped_attention(query, keys, values, key_mask), gate, steps[2 * index + 1])
        return self.norm(x, steps[-1])[0]


def _norm(width: int, condition_width: int | None) -> nn.Module:
    return RMSNorm(width) if condition_width is None else AdaptiveRMSNorm(width, condition_width)
