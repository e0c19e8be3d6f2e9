"""Compiles the Triton kernels, as a pass of π0 and π0.5 of full size calls them, for GPUs that are not there.

    python benchmarks/gpu/compile_kernels.py [--capabilities 8.9 9.0]

Finds what Triton's interpreter does not see: code that has no machine code, and more shared memory than a block may
have. Needs triton alone. Ends with status 1 where a kernel does not fit.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from unittest.mock import patch

os.environ["TRITON_INTERPRET"] = "0"
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compiled
from triton.runtime.jit import JITFunction

from vla_ros.nn import few_rows, kernels

# Bytes of shared memory that a block may have, by compute capability (CUDA C++ Programming Guide).
SHARED = {"8.0": 166_912, "8.6": 101_376, "8.7": 166_912, "8.9": 101_376, "9.0": 232_448, "10.0": 232_448,
          "12.0": 101_376}  # fmt: skip
TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}


def of(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def call_all() -> None:
    """Every operation, with and without what is optional: the expert's 50 tokens, the prefix's 816, SigLIP's 256."""
    float32 = torch.float32
    x, scale, turn = of(1, 50, 1024), of(1024, dtype=float32), of(1, 1, 50, 256, dtype=float32)
    for shift in (None, scale):
        few_rows.norm_turn(x, scale, 1e-6, of(2560, 1024), turn, turn, of(1, 1, 50, 256), of(1, 1, 50, 256), shift)
        few_rows.norm_gated(x, scale, 1e-6, of(8192, 1024), shift)
        kernels.add_norm(x, None, scale, 1e-6, shift)
    kernels.add_norm(x, x, of(1, 50, 1024, dtype=float32), 1e-6, of(1, 50, 1024, dtype=float32), of(1, 50, 1024))
    few_rows.attend(of(1, 50, 8, 256), of(1, 1, 867, 256), of(1, 1, 867, 256), of(1, 1, 1, 867))
    x, scale, turn = of(1, 816, 2048), of(2048, dtype=float32), of(1, 1, 816, 256, dtype=float32)
    for more in (None, x):
        kernels.add_norm(x, more, scale, 1e-6)
    kernels.turn(of(1, 816, 2560), turn, turn, of(1, 1, 816, 256), of(1, 1, 816, 256))
    kernels.gated(of(1, 816, 32_768))
    x, bias = of(3, 256, 1152), of(1152, dtype=float32)
    for more in (None, x):
        kernels.add_layer_norm(x, more, bias, bias, 1e-6)


def launches() -> list[tuple[JITFunction, dict, dict]]:
    """Kernel, arguments by name and options of each."""
    found = []

    def run(kernel: JITFunction, *args: object, grid: object, warmup: bool, **named: object) -> None:
        named |= dict(zip(kernel.arg_names, args, strict=False))
        found.append((kernel, {name: named.pop(name) for name in kernel.arg_names}, named))

    with patch.object(JITFunction, "run", run):
        call_all()
    return found


def source_of(kernel: JITFunction, given: dict) -> ASTSource:
    """With what Triton itself sees in arguments: ones are constants, others are multiples of 16 or not."""
    signature, fixed, even = {}, {}, {}
    for place, (parameter, value) in enumerate(zip(kernel.params, given.values(), strict=True)):
        kind = "constexpr"
        if parameter.is_constexpr or isinstance(value, int) and value == 1:
            fixed[(place,)] = value and parameter.name != "WIDE" if isinstance(value, bool) else value
        elif isinstance(value, float):
            kind = "fp32"
        else:
            kind = TYPES[value.dtype] if isinstance(value, Tensor) else "i32"
            if isinstance(value, Tensor) or value % 16 == 0:
                even[(place,)] = [["tt.divisibility", 16]]
        signature[parameter.name] = kind
    return ASTSource(kernel, signature, fixed, even)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capabilities", nargs="+", choices=SHARED, default=list(SHARED))
    args, too_large = parser.parse_args(), 0
    for capability in args.capabilities:
        target = GPUTarget("cuda", int(capability.replace(".", "")), 32)
        for kernel, given, options in launches():
            shared = compiled(source_of(kernel, given), target=target, options=options).metadata.shared
            fits = shared <= SHARED[capability]
            too_large += not fits
            print(json.dumps({"kernel": kernel.fn.__name__, "capability": capability, "shared": shared, "fits": fits}))
    return int(too_large > 0)


if __name__ == "__main__":
    sys.exit(main())
