"""A Gemma tower with five kernel launches per layer for few tokens (seven with adaptive norms) and nine for many, and
SigLIP's with nine. Not measured on a GPU yet, therefore not used by default."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.nn.attention import KeyValueCache, added_mask, grouped_attention
from vla_ros.nn.embeddings import Rotary
from vla_ros.nn.gemma import GemmaTower
from vla_ros.nn.norms import Modulation, RMSNorm
from vla_ros.nn.siglip import Siglip

Norm = tuple[Tensor, Tensor | None, Tensor | None]  # scale, shift, gate


def _require_triton() -> None:
    try:
        import vla_ros.nn.kernels  # noqa: F401
    except ImportError as error:
        raise InputError(f"fused kernels need triton: {error}") from None


class FusedTower(nn.Module):
    """Replaces a tower, with its weights, if no gradients are needed.

    Raises InputError where triton is missing.
    """

    def __init__(self, tower: GemmaTower) -> None:
        super().__init__()
        _require_triton()
        self.tower = tower
        # The weights must not change from here on.
        self._scales = [scale.detach() for scale in tower.scales()] if isinstance(tower.norm, RMSNorm) else []

    @property
    def layers(self) -> nn.ModuleList:
        return self.tower.layers

    def scales(self) -> list[Tensor]:
        """As `GemmaTower.scales`."""
        return self._scales

    def modulations(self, condition: Tensor) -> list[Modulation]:
        """As `GemmaTower.modulations`."""
        return self.tower.modulations(condition)

    def fill(self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor | None) -> None:
        """As `GemmaTower.fill`."""
        self._run(x, rotary, cache, key_mask, self.scales(), keep=True, whole=False)

    def forward(
        self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor | None,
        modulations: list[Modulation] | list[Tensor] | None = None, keep: bool = False,
    ) -> Tensor:
        """As `GemmaTower.forward`."""
        return self._run(x, rotary, cache, key_mask, modulations or self.scales(), keep, whole=True)

    def _run(
        self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor | None,
        modulations: list[Modulation] | list[Tensor], keep: bool, whole: bool,
    ) -> Tensor:
        """If not `whole`, the last layer stops at its keys and values."""
        from vla_ros.nn.few_rows import MOST

        key_mask, width = added_mask(key_mask, x.dtype), x.shape[-1]
        norms = [(scale, None, None) if isinstance(scale, Tensor) else scale for scale in modulations]
        # All queries see the same keys, and all rows are scaled alike.
        alike = key_mask is not None and key_mask.shape[1:3] == (1, 1) and norms[0][0].numel() == width
        few = alike and x.shape[0] * x.shape[1] <= MOST
        return (self._few if few else self._many)(x, rotary, cache, key_mask, norms, keep, whole)

    def _few(
        self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor, norms: list[Norm], keep: bool,
        whole: bool,
    ) -> Tensor:
        """Each norm is fused into the product after it, each sum into the product before it."""
        from vla_ros.nn import few_rows, kernels

        eps = self.tower.norm.eps
        for index, layer in enumerate(self.layers):
            keys, values, *own = cache.room(index, x.shape[1], keep)
            scale, shift, gate = norms[2 * index]
            query = few_rows.norm_turn(x, scale, eps, layer.qkv.weight, *rotary, *own, shift)
            if not whole and index + 1 == len(self.layers):
                return x
            x = _added(x, few_rows.attend(query, keys, values, key_mask), layer.out.weight, gate)
            scale, shift, gate = norms[2 * index + 1]
            hidden = few_rows.norm_gated(x, scale, eps, layer.gate_up.weight, shift)
            x = _added(x, hidden, layer.down.weight, gate)
        return kernels.add_norm(x, None, norms[-1][0], eps, norms[-1][1])[1]

    def _many(
        self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor | None, norms: list[Norm],
        keep: bool, whole: bool,
    ) -> Tensor:
        """The kernel of the next norm also adds the output of the layer before."""
        from vla_ros.nn import kernels

        eps, more, gate = self.tower.norm.eps, None, None

        def summed(norm: Norm) -> Tensor:
            nonlocal x, gate
            total, normed = kernels.add_norm(x, more, norm[0], eps, norm[1], gate)
            x, gate = x if more is None else total, norm[2]
            return normed

        for index, layer in enumerate(self.layers):
            normed = summed(norms[2 * index])
            keys, values, *own = cache.room(index, x.shape[1], keep)
            query = kernels.turn(layer.qkv(normed), *rotary, *own)
            if not whole and index + 1 == len(self.layers):
                return x
            more = layer.out(grouped_attention(query.transpose(1, 2), keys, values, key_mask))
            more = layer.down(kernels.gated(layer.gate_up(summed(norms[2 * index + 1]))))
        return summed(norms[-1])


def _added(x: Tensor, rows: Tensor, weight: Tensor, gate: Tensor | None) -> Tensor:
    """x + gate · rows · weightᵀ, (B, S, width); without a gate in one launch."""
    if gate is not None:
        return torch.addcmul(x, gate, F.linear(rows, weight))
    return torch.addmm(x.flatten(0, 1), rows.flatten(0, 1), weight.t()).view_as(x)


class FusedSiglip(nn.Module):
    """Replaces SigLIP's tower, with its weights. Raises InputError if triton is missing."""

    def __init__(self, tower: Siglip) -> None:
        super().__init__()
        _require_triton()
        self.tower = tower

    def forward(self, images: Tensor) -> Tensor:
        """As `Siglip.forward`; the kernel of the next norm also adds the output of the layer before."""
        from vla_ros.nn.kernels import add_layer_norm

        x, more = self.tower.embed(images), None

        def summed(norm: nn.LayerNorm) -> Tensor:
            nonlocal x
            total, normed = add_layer_norm(x, more, norm.weight, norm.bias, norm.eps)
            x = x if more is None else total
            return normed

        for layer in self.tower.layers:
            heads = layer.qkv(summed(layer.norm1)).unflatten(-1, (3, layer.heads, -1)).permute(2, 0, 3, 1, 4)
            more = layer.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
            more = layer.fc2(F.gelu(layer.fc1(summed(layer.norm2)), approximate=layer.approximate))
        return summed(self.tower.norm)


def fuse(policy: nn.Module) -> None:
    """Replace the towers of a π0 or π0.5 by these. Raises InputError if triton is missing."""
    for name in ("prefix", "expert"):
        setattr(policy, name, FusedTower(getattr(policy, name)))
    tokens = policy.image_tokens
    if isinstance(tokens.tower, Siglip):
        tokens.tower = FusedSiglip(tokens.tower)
