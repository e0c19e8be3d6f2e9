"""Attention with fewer key/value heads than query heads, and the cache of keys and values."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree


def causal_mask(valid: Tensor, groups: int, prefix: Tensor | None = None) -> Tensor:
    """Causal mask of (B, S) valid keys: each query sees itself and the keys before it: (B, 1, S * groups, S).

    `prefix`: (B, P), valid keys before all of these, seen by every query: (B, 1, S * groups, P + S).
    """
    length = valid.shape[1]
    sees = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril() & valid[:, None]
    if prefix is not None:
        sees = torch.cat([prefix[:, None].expand(-1, length, -1), sees], dim=2)
    return sees[:, None].repeat_interleave(groups, dim=2)


def added_mask(sees: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A bool mask as numbers that attention adds to its scores, 0 or -inf; other masks are returned unchanged.

    Computed once for all layers instead of in each. Rows begin at multiples of eight numbers, so that a GPU's kernels
    read them without a copy.
    """
    if sees is None or sees.dtype != torch.bool:
        return sees
    mask = torch.zeros((*sees.shape[:-1], -(-sees.shape[-1] // 8) * 8), dtype=dtype, device=sees.device)
    return mask[..., : sees.shape[-1]].masked_fill_(~sees, float("-inf"))


def grouped_attention(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None) -> Tensor:
    """Softmax attention with fewer key/value heads than query heads.

    The query heads that share a key/value head become additional queries of it, those of one token next to each other,
    so keys and values are read once and never repeated. With one key/value head this is their layout already.

    Args:
        query: (B, heads, S, D).
        key, value: (B, kv_heads, K, D); `heads` is a multiple of `kv_heads`.
        key_mask: (B, 1, 1, K) or (B, 1, S * heads / kv_heads, K) bool, True if a key may be seen, or numbers that
            are added to the scores; None when all may.

    Returns:
        (B, S, heads * D).
    """
    batch, heads, length, width = query.shape
    groups = query.unflatten(1, (key.shape[1], -1)).transpose(2, 3).flatten(2, 3)  # (B, kv_heads, S * groups, D)
    out = F.scaled_dot_product_attention(groups, key, value, attn_mask=key_mask)
    return out.unflatten(2, (length, -1)).transpose(1, 2).reshape(batch, length, heads * width)


class KeyValueCache:
    """Keys and values of every layer, in one buffer that is allocated once.

    `store` keeps what all denoising steps share (the prefix); `attach` writes the tokens of one step after it, into the
    same buffer, so a step neither copies the prefix nor allocates. If gradients are needed (training, the exact form of
    guidance), writing in place would break autograd, and an exported graph would copy the whole buffer at each write:
    in these cases the tensors are concatenated instead.

    Args:
        known: (2, layers, B, kv_heads, P, head_dim), initial keys and values; never written to.
        extra: number of positions that can be stored or attached after them.
    """

    def __init__(self, known: Tensor, extra: int) -> None:
        buffer, length, self.extra = known, known.shape[4], extra
        if not _concatenates(known):
            buffer = known.new_empty((*known.shape[:4], length + extra, known.shape[5]))
            buffer[..., :length, :] = known
        self._buffer = buffer
        self._layers = list(zip(*(part.unbind() for part in buffer.unbind()), strict=True))  # keys and values of each
        self._lengths = [length] * known.shape[1]

    def stored(self) -> Tensor:
        """(2, layers, B, kv_heads, P, head_dim), everything known or stored; P is the same in all layers."""
        if any(_concatenates(keys) for keys, _ in self._layers):
            return torch.stack([torch.stack(part) for part in zip(*self._layers, strict=True)])
        return self._buffer[..., : self._lengths[0], :]

    def store(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, kv_heads, S, head_dim) permanently; returns all keys and values of the layer so far."""
        keys, values = self.attach(layer, key, value)
        if _concatenates(key):
            self._layers[layer] = keys, values
        self._lengths[layer] += key.shape[2]
        return keys, values

    def attach(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All stored keys and values of the layer followed by these, (B, kv_heads, P + S, head_dim) each.

        The stored part is left unchanged; the next `attach` overwrites what this one appended.
        """
        if _concatenates(key):
            keys, values = (part[:, :, : self._lengths[layer]] for part in self._layers[layer])
            return torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        keys, values, own_keys, own_values = self.room(layer, key.shape[2])
        own_keys.copy_(key)
        own_values.copy_(value)
        return keys, values

    def room(self, layer: int, length: int, keep: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Keys and values of the layer with `length` more positions, (B, kv_heads, P + length, head_dim) each, and
        views of the new positions, (B, kv_heads, length, head_dim), which the caller writes before it reads the first
        two. `keep`: the new positions are stored."""
        start, end = self._lengths[layer], self._lengths[layer] + length
        keys, values = (part[:, :, :end] for part in self._layers[layer])
        if keep:
            self._lengths[layer] = end
        return keys, values, keys[:, :, start:], values[:, :, start:]


def _concatenates(key: Tensor) -> bool:
    return key.requires_grad or torch.compiler.is_exporting()


# An exported step takes the cache as a tensor, and the number of positions that may follow it.
pytree.register_pytree_node(
    KeyValueCache,
    lambda cache: ([cache.stored()], cache.extra),
    lambda parts, extra: KeyValueCache(*parts, extra),
)
