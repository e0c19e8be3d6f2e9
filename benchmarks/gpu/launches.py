"""How many kernels a pass of π0 launches on a GPU, and how many bytes they move; no GPU needed.

    python benchmarks/gpu/launches.py [--size full] [--cameras 3] [--steps 10] [--pi05] [--fused] [--dtype bfloat16]

Runs the two stages on the meta device, where tensors have shapes and no numbers, and counts every operation that is
not a view, by kind. One operation is one launch, which is near the truth for eager execution: a few operations launch
two kernels, allocations none (they are not counted).

The bytes of an operation are those of the tensors that it reads and writes, of an embedding the rows that are looked
up. The bound is what no implementation goes below: the weights that a stage multiplies with, once for each time that it
does.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vla_ros.bench.subjects import SIZES, pi0_config, random_batch
from vla_ros.nn.fused import fuse
from vla_ros.nn.meta import without_numbers
from vla_ros.policies.pi0.model import Pi0
from vla_ros.policies.policy import Policy
from vla_ros.runtime.serving import DTYPES

ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "scalar_tensor")
# One kernel on a GPU, several operations elsewhere.
KERNELS = {functional.scaled_dot_product_attention: "attention", functional.rms_norm: "rms_norm"}


@dataclass
class Launches:
    """Of one stage.

    Attributes:
        kinds: name of an operation -> how often.
        bytes: name of an operation -> what it read and wrote.
        weights: bytes of weights among them.
    """

    kinds: Counter = field(default_factory=Counter)
    bytes: Counter = field(default_factory=Counter)
    weights: int = 0

    @property
    def total(self) -> int:
        return self.kinds.total()

    @property
    def moved(self) -> int:
        return self.bytes.total()


class _Operations(TorchDispatchMode):
    """Counts all but `KERNELS`."""

    def __init__(self, policy: Policy, found: Launches) -> None:
        super().__init__()
        self._weights, self._found, self.paused = {_storage(p) for p in policy.parameters()}, found, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not self.paused:
            self.note(func.overloadpacket.__name__, (args, kwargs), result, func._schema.is_mutable)
        return result

    def note(self, name: str, arguments: object, result: object, writes: bool = False) -> None:
        """One operation, unless its result is a view of its arguments."""
        read, made = _tensors(arguments), _tensors(result)
        known = {_storage(tensor) for tensor in read}
        fresh = [tensor for tensor in made if _storage(tensor) not in known]
        if name in ALLOCATIONS or not (fresh or writes):
            return
        self._found.kinds[name] += 1
        self._found.bytes[name] += sum(map(_bytes, fresh))
        for tensor in read:
            size = _bytes(made[0]) if name == "embedding" and tensor.is_floating_point() else _bytes(tensor)
            self._found.bytes[name] += size
            self._found.weights += size if _storage(tensor) in self._weights else 0


class CountLaunches(TorchFunctionMode):
    """Counts what is run inside of it into `found`; `KERNELS` are one launch each, attention one more where it has to
    make numbers of a mask of bools first, as it does on a GPU."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.found = Launches()
        self._operations = _Operations(policy, self.found)

    def __enter__(self):
        self._operations.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        return self._operations.__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in KERNELS:
            return func(*args, **kwargs)
        self._operations.paused = True
        result = func(*args, **kwargs)
        if KERNELS[func] == "attention":  # a GPU's kernels write heads within tokens, as the next product reads them
            result = result.transpose(-3, -2).contiguous().transpose(-3, -2)
        self._operations.paused = False
        mask = kwargs.get("attn_mask")
        if mask is not None and mask.dtype == torch.bool:
            self._operations.note("mask of bools", mask, mask.new_empty(mask.shape, dtype=args[0].dtype))
        self._operations.note(KERNELS[func], (args, kwargs), result)
        return result


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensor: Tensor) -> int:
    """Of its different elements: a repeated one is read once."""
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return torch.Size(sizes).numel() * tensor.element_size()


@torch.no_grad()
def count(policy: Policy, steps: int) -> dict[str, Launches]:
    """Launches of "prefix", and of "act" with its steps, of a policy on the meta device."""
    batch = {name: value.to("meta") for name, value in random_batch(policy).items()}
    draws = {name: torch.empty(shape, device="meta") for name, shape in policy.draws(1).items()}
    fixed, found = policy.prepare(steps), {}
    with CountLaunches(policy) as counted:
        context = policy.encode(batch, policy.begin(1), draws)
    found["prefix"] = counted.found
    with CountLaunches(policy) as counted:
        policy.act(context, draws, fixed)
    found["act"] = counted.found
    return found


def pass_of(found: dict[str, Launches], steps: int) -> dict[str, object]:
    """Of a whole pass: launches of prefix and step, and bytes beside the bound."""
    prefix, act = found["prefix"], found["act"]
    moved, weights = prefix.moved + act.moved, prefix.weights + act.weights
    return {
        "launches": prefix.total + act.total, "prefix": prefix.total, "step": round(act.total / steps, 1),
        "moved_gb": round(moved / 1e9, 2), "bound_gb": round(weights / 1e9, 2), "of_bound": round(moved / weights, 2),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES["pi0"], default="full")
    parser.add_argument("--cameras", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pi05", action="store_true")
    parser.add_argument("--fused", action="store_true", help="with the Triton kernels; needs triton")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    args = parser.parse_args()
    with without_numbers():
        policy = Pi0(pi0_config(args.size, args.cameras, args.pi05))
    if args.fused:
        fuse(policy)
    found = count(policy.store_as(DTYPES[args.dtype]).eval(), args.steps)
    for stage, launches in found.items():
        gigabytes = {name: round(size / 1e9, 2) for name, size in launches.bytes.most_common(8)}
        print(json.dumps({"stage": stage, "launches": launches.total, "kinds": dict(launches.kinds.most_common()),
                          "moved_gb": gigabytes}))
    print(json.dumps(pass_of(found, args.steps)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
