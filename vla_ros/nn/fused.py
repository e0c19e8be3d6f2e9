"""A Gemma tower with five kernel launches per layer for few tokens and nine for many, and SigLIP's with nine. Not
measured on a GPU yet, therefore not used by default."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.nn.attention import KeyValueCache, added_mask, grouped_attention
from vla_ros.nn.embeddings import Rotary
from vla_ros.nn.gemma import GemmaTower
from vla_ros.nn.norms import RMSNorm
from vla_ros.nn.siglip import Siglip


def _require_triton() -> None:
    try:
        import vla_ros.nn.kernels  # noqa: F401
    except ImportError as error:
        raise InputError(f"fused kernels need triton: {error}") from None


class FusedTower(nn.Module):
    """Replaces a tower, with its weights, if no gradients are needed.

    Raises InputError for a tower with adaptive norms, and if triton is missing.
    """

    def __init__(self, tower: GemmaTower) -> None:
        super().__init__()
        if not isinstance(tower.norm, RMSNorm):
            raise InputError("fused kernels: a tower with adaptive norms (π0.5's expert), expected plain ones")
        _require_triton()
        self.tower = tower
        self._scales = [scale.detach() for scale in tower.scales()]  # the weights must not change from here on

    @property
    def layers(self) -> nn.ModuleList:
        return self.tower.layers

    def scales(self) -> list[Tensor]:
        """As `GemmaTower.scales`."""
        return self._scales

    def fill(self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor | None) -> None:
        """As `GemmaTower.fill`."""
        self._run(x, rotary, cache, key_mask, self.scales(), keep=True, whole=False)

    def forward(
        self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor | None,
        modulations: list[Tensor] | None = None, keep: bool = False,
    ) -> Tensor:
        """As `GemmaTower.forward`; `modulations`: its `scales()`."""
        return self._run(x, rotary, cache, key_mask, modulations or self.scales(), keep, whole=True)

    def _run(
        self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor | None, scales: list[Tensor],
        keep: bool, whole: bool,
    ) -> Tensor:
        """If not `whole`, the last layer stops at its keys and values."""
        from vla_ros.nn.few_rows import MOST

        key_mask = added_mask(key_mask, x.dtype)
        alike = key_mask is not None and key_mask.shape[1:3] == (1, 1)  # the same for all queries
        few = alike and x.shape[0] * x.shape[1] <= MOST
        return (self._few if few else self._many)(x, rotary, cache, key_mask, scales, keep, whole)

    def _few(
        self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor, scales: list[Tensor], keep: bool,
        whole: bool,
    ) -> Tensor:
        """Each norm is fused into the product after it, each sum into the product before it."""
        from vla_ros.nn import few_rows, kernels

        eps = self.tower.norm.eps
        for index, layer in enumerate(self.layers):
            keys, values, *own = cache.room(index, x.shape[1], keep)
            query = few_rows.norm_turn(x, scales[2 * index], eps, layer.qkv.weight, *rotary, *own)
            if not whole and index + 1 == len(self.layers):
                return x
            x = _added(x, few_rows.attend(query, keys, values, key_mask), layer.out.weight)
            hidden = few_rows.norm_gated(x, scales[2 * index + 1], eps, layer.gate_up.weight)
            x = _added(x, hidden, layer.down.weight)
        return kernels.add_norm(x, None, scales[-1], eps)[1]

    def _many(
        self, x: Tensor, rotary: Rotary, cache: KeyValueCache, key_mask: Tensor | None, scales: list[Tensor],
        keep: bool, whole: bool,
    ) -> Tensor:
        """The kernel of the next norm also adds the output of the layer before."""
        from vla_ros.nn import kernels

        eps, more = self.tower.norm.eps, None
        for index, layer in enumerate(self.layers):
            total, normed = kernels.add_norm(x, more, scales[2 * index], eps)
            x = total if more is not None else x
            keys, values, *own = cache.room(index, x.shape[1], keep)
            query = kernels.turn(layer.qkv(normed), *rotary, *own)
            if not whole and index + 1 == len(self.layers):
                return x
            attended = grouped_attention(query.transpose(1, 2), keys, values, key_mask)
            x, normed = kernels.add_norm(x, layer.out(attended), scales[2 * index + 1], eps)
            more = layer.down(kernels.gated(layer.gate_up(normed)))
        return kernels.add_norm(x, more, scales[-1], eps)[1]


def _added(x: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """x + rows · weightᵀ, (B, S, width), in one launch."""
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
    """Replace π0's towers by these. Raises InputError if one cannot be replaced, before any is."""
    towers = {name: FusedTower(getattr(policy, name)) for name in ("prefix", "expert")}
    tokens = policy.image_tokens
    if isinstance(tokens.tower, Siglip):
        tokens.tower = FusedSiglip(tokens.tower)
    for name, tower in towers.items():
        setattr(policy, name, tower)
