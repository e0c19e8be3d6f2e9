"""Names of devices and number types, as parameters and commands give them."""

import torch

from vla_ros.core.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_device(name: str) -> torch.device:
    """ "auto" (the GPU where there is one), "cpu", "cuda" or "cuda:N". Raises InputError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        found = torch.cuda.device_count()
        if (device.index or 0) >= found:
            raise InputError(f"device {name!r}: this machine has {found} CUDA device(s) that torch can use")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" (bfloat16 on a GPU, float32 on a CPU), "float32" or "bfloat16". Raises InputError."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise InputError(f"dtype {name!r}, expected auto, {' or '.join(DTYPES)}")
    return DTYPES[name]
