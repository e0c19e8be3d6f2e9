"""A Gemma tower in nine launches a layer, for a GPU; not measured on one, so nothing takes it by default."""

from torch import Tensor, nn

from vla_ros.core.errors import InputError
from vla_ros.nn.attention import KeyValueCache, added_mask, grouped_attention
from vla_ros.nn.embeddings import Rotary
from vla_ros.nn.gemma import GemmaTower
from vla_ros.nn.norms import RMSNorm


class FusedTower(nn.Module):
    """Stands in the place of a tower, with its weights, where no gradients are needed.

    Raises InputError for a tower with adaptive norms, and where triton is missing.
    """

    def __init__(self, tower: GemmaTower) -> None:
        super().__init__()
        if not isinstance(tower.norm, RMSNorm):
            raise InputError("fused kernels: a tower with adaptive norms (π0.5's expert), expected plain ones")
        try:
            import vla_ros.nn.kernels  # noqa: F401
        except ImportError as error:
            raise InputError(f"fused kernels need triton: {error}") from None
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
        """What a layer adds is added by the norm of the next; not `whole`: the last stops at its keys and values."""
        from vla_ros.nn import kernels

        eps, more = self.tower.norm.eps, None
        key_mask = added_mask(key_mask, x.dtype)
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
