"""A digest that tells policies apart without reading all weights."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_ros.policies.registry import LoadedPolicy

_MOST = 256  # numbers of each tensor of the weights


def digest(loaded: LoadedPolicy) -> str:
    """32 letters that differ between checkpoints: of some numbers of every tensor, spread over it, of the sizes, and of
    the processor's statistics, embodiment and options."""
    found = hashlib.blake2b(digest_size=16)
    with torch.inference_mode():
        for name, tensor in loaded.policy.state_dict().items():
            if not isinstance(tensor, Tensor):
                continue
            flat = tensor.detach().reshape(-1)
            some = flat[:: flat.numel() // _MOST | 1].contiguous().view(torch.uint8).cpu().numpy()
            found.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode() + some.tobytes())
    _add(found, loaded.family)
    _add(found, getattr(loaded.policy, "config", None))
    _add(found, loaded.processor)
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    """What a value says; of objects that are no records (a tokenizer) the kind alone."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {"": type(value).__name__} | {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, (list, tuple)):
        found.update(f"[{len(value)} ".encode())
        for part in value:
            _add(found, part)
    elif isinstance(value, (np.ndarray, Tensor)):
        rows = value.detach().float().cpu().numpy() if isinstance(value, Tensor) else value
        found.update(f"{rows.dtype} {rows.shape} ".encode() + rows.tobytes())
    elif value is None or isinstance(value, (str, bytes, bool, int, float, np.generic)):
        found.update(f"{value!r} ".encode())
    else:
        found.update(f"{type(value).__name__} ".encode())
