"""The work of a stage, and how fast this machine could do it at best."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vla_ros.runtime.stages import StageTimer


@dataclass(frozen=True)
class Work:
    """Floating-point operations of matrix products and attention, and bytes of weights that are read."""

    flops: int
    weight_bytes: int

    def bound(self, machine: "Machine") -> float:
        """s that the machine needs at least: the slower of computing and reading."""
        return max(self.flops / machine.flops_per_second, self.weight_bytes / machine.bytes_per_second)


@dataclass(frozen=True)
class Machine:
    """Speed of this machine, measured with a large matrix product and a large copy."""

    flops_per_second: float
    bytes_per_second: float


class _WeightReads(TorchDispatchMode):
    """Counts the bytes of parameters that operations read; views of a parameter cost nothing by themselves."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self._storages = {p.untyped_storage().data_ptr() for p in policy.parameters()}
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = {t.untyped_storage().data_ptr() for t in tree_leaves(result) if isinstance(t, Tensor)}
        lookup = func is torch.ops.aten.embedding.default
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() in self._storages - made:
                size = tree_leaves(result)[0].numel() if lookup else leaf.numel()
                self.bytes += size * leaf.element_size()
        return result


@torch.no_grad()
def measure_work(policy: nn.Module, run: Callable[[], object]) -> Work:
    """The work of one call of `run` with the policy's weights."""
    reads, counter = _WeightReads(policy), FlopCounterMode(display=False)
    with counter, reads:
        run()
    return Work(counter.get_total_flops(), reads.bytes)


def _fastest(step: Callable[[], object], device: torch.device, rounds: int) -> float:
    """s of the fastest of `rounds` calls."""
    times = []
    for _ in range(rounds):
        timer = StageTimer(device)
        timer.mark()
        step()
        timer.mark()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times += timer.seconds()
    return min(times)


def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Takes a second or two."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = _fastest(lambda: a @ b, device, 10)
    source = torch.zeros(1 << (28 if device.type == "cuda" else 26), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = _fastest(lambda: target.copy_(source), device, 10)
    return Machine(2 * size**3 / product, 2 * source.numel() / copy)
