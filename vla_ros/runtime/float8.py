"""A policy whose large products are of eight-bit numbers: scales measured once and kept, the answer compared first."""

import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.core.files import new_file
from vla_ros.core.observation import Sample
from vla_ros.nn.float8 import large_products, put_float8
from vla_ros.policies.policy import Batch, Policy
from vla_ros.policies.registry import LoadedPolicy
from vla_ros.runtime.engines.engaged import noisy
from vla_ros.runtime.network import private_copy
from vla_ros.runtime.remote.digest import digest

logger = logging.getLogger(__name__)
FILE = "float8.json"
LEAST = 0.999  # cosine of a chunk with that of the weights as they were
_SEEN = 4  # observations of noise that scales are measured on
_ROOM = 1.25  # how much larger a number may be than any that was seen


def require_float8(device: torch.device) -> None:
    """Raises InputError where such products are not to be had."""
    where = f"the policy runs on {device}"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= (8, 9):
            return
        where = f"{torch.cuda.get_device_name(device)} has {capability[0]}.{capability[1]}"
    raise InputError(f"dtype float8: it needs an NVIDIA GPU of compute capability 8.9 or higher (Ada, Hopper), {where}"
                     "; expected dtype bfloat16, or float32 on a CPU")


def convert(loaded: LoadedPolicy, folder: Path, sample: Sample) -> float:
    """Give the loaded policy products of eight bits, with the scales in the folder's float8.json, or measured on noise
    and kept there.

    Returns the cosine of its chunk with that of before, for noise that was not measured on. Raises InputError where
    it is below 0.999 or the policy has no such products; the policy is then as it was.
    """
    policy = loaded.policy
    names = set(large_products(policy))
    if not names:
        raise InputError(f"dtype float8: {loaded.family} has no large products of Gemma's or SigLIP's layers; expected "
                         "dtype bfloat16")
    device, generator = next(policy.parameters()).device, torch.Generator().manual_seed(0)
    batch = policy.with_elapsed(loaded.processor.inputs([sample]))
    batches = [{name: value.to(device) for name, value in noisy(batch, generator).items()} for _ in range(_SEEN + 1)]
    file, weights = folder / FILE, digest(loaded)
    largest = _kept(file, weights, names)
    if largest is None:
        largest = measured(policy, batches[1:])
        try:
            with new_file(file, "scales") as part:
                part.write_text(json.dumps({"digest": weights, "largest": largest}, indent=1) + "\n", encoding="utf-8")
        except (InputError, OSError) as error:
            logger.warning("dtype float8: the scales are measured at each start: %s", error)
    found = private_copy(policy)
    put_float8(found, largest)
    cosine = similar(found, policy, batches[0])
    if not cosine >= LEAST:
        raise InputError(f"dtype float8: the cosine of its chunk with that of {str(_kind(policy)).split('.')[-1]} is "
                         f"{cosine:.5f}, expected at least {LEAST}; expected dtype bfloat16")
    put_float8(policy, largest)
    return cosine


@torch.no_grad()
def measured(policy: Policy, batches: Iterable[Batch]) -> dict[str, float]:
    """Name -> the largest number that each large product is multiplied with, and a quarter more."""
    layers = large_products(policy)
    found: dict[str, Tensor] = {}

    def look(name: str):
        def hook(layer: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
            most = given[0].abs().amax().float()
            found[name] = torch.maximum(found[name], most) if name in found else most

        return hook

    handles = [layer.register_forward_pre_hook(look(name)) for name, layer in layers.items()]
    try:
        for seed, batch in enumerate(batches):
            _answer(policy, batch, seed)
    finally:
        for handle in handles:
            handle.remove()
    return {name: float(found[name]) * _ROOM if name in found else 1.0 for name in layers}


@torch.no_grad()
def similar(one: Policy, other: Policy, batch: Batch) -> float:
    """The cosine of two policies' (1, H, D) actions."""
    found, expected = (_answer(policy, batch, _SEEN).flatten().double() for policy in (one, other))
    return float(torch.cosine_similarity(found, expected, 0))


def _answer(policy: Policy, batch: Batch, seed: int) -> Tensor:
    device, generator = next(policy.parameters()).device, torch.Generator().manual_seed(seed)
    draws = {name: torch.randn(shape, generator=generator).to(device) for name, shape in policy.draws(1).items()}
    return policy.eval().predict(batch, draws)


def _kind(policy: Policy) -> torch.dtype:
    return next(iter(large_products(policy).values())).weight.dtype


def _kept(file: Path, weights: str, names: set[str]) -> dict[str, float] | None:
    """The scales of these weights, where the file has them, for exactly these products."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        largest = {str(name): float(value) for name, value in said["largest"].items()}
        if said["digest"] == weights and set(largest) == names and all(0 < x < math.inf for x in largest.values()):
            return largest
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None
