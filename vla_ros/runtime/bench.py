"""Inference time of a policy, stage by stage, beside the bound of the machine and beside others."""

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vla_ros.core.errors import InputError
from vla_ros.nn.gemma import GemmaSize
from vla_ros.nn.keypoint_stem import KeypointStemSize
from vla_ros.nn.siglip import SiglipSize
from vla_ros.policies.base import Batch, DenoisingPolicy, Policy
from vla_ros.policies.pi0.config import GEMMA, Pi0Config
from vla_ros.policies.pi0.model import Pi0
from vla_ros.runtime.network import PlainNetwork, RecordedNetwork, forward
from vla_ros.runtime.stages import StageTimer
from vla_ros.runtime.work import Machine, Work, measure_work

MID_PREFIX = GemmaSize(width=640, depth=8, mlp=2560, heads=8, kv_heads=1, head_dim=64)
MID_EXPERT = GemmaSize(width=384, depth=8, mlp=1536, heads=8, kv_heads=1, head_dim=64)
MID_VISION = SiglipSize(hidden=384, depth=10, heads=6, mlp=1536, patch=14, image=224)
SIZES = ("tiny", "100m", "full")


def pi0_config(size: str, cameras: int, adaptive: bool = False) -> Pi0Config:
    """tiny: as the shipped demo policy; 100m: about 100 million parameters; full: the published π0 (or π0.5)."""
    names = tuple(f"camera_{index}" for index in range(cameras))
    pi05 = {"adaptive": True, "prompt": "pi05", "text_length": 200} if adaptive else {}
    if size == "tiny":
        return Pi0Config(vision=KeypointStemSize(), prefix=GEMMA["tiny_prefix"], expert=GEMMA["tiny_expert"],
                         vocabulary=64, cameras=names, state_dim=6, action_dim=6, horizon=16, step_dt=0.1,
                         **{"text_length": 16, **pi05})  # fmt: skip
    if size == "100m":
        return Pi0Config(vision=MID_VISION, prefix=MID_PREFIX, expert=MID_EXPERT, vocabulary=32_000, cameras=names,
                         **pi05)  # fmt: skip
    if size == "full":
        return Pi0Config(cameras=names, **pi05)
    raise InputError(f"size {size!r}, expected one of {SIZES}")


def random_pi0(config: Pi0Config, device: torch.device, dtype: torch.dtype) -> Pi0:
    """Random weights made on the device itself, in their final type: a full-size policy never exists in float32."""
    with torch.device("meta"):
        policy = Pi0(config)
    policy = policy.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.02
            parameter.normal_(std=scale, generator=generator)
        for name, buffer in policy.named_buffers():
            raise InputError(f"policy: buffer {name} of {tuple(buffer.shape)} has no value without a checkpoint")
    return policy.eval().requires_grad_(False)


def random_batch(config: Pi0Config) -> Batch:
    """One observation on the CPU: every camera there, a prompt of full length."""
    generator = torch.Generator().manual_seed(1)
    cameras, side = len(config.cameras), config.vision.image
    return {
        "images": torch.randint(0, 256, (1, cameras, 3, side, side), dtype=torch.uint8, generator=generator),
        "image_mask": torch.ones(1, cameras, dtype=torch.bool),
        "tokens": torch.randint(0, config.vocabulary, (1, config.text_length), generator=generator),
        "token_mask": torch.ones(1, config.text_length, dtype=torch.bool),
        "state": torch.randn(1, config.state_dim, generator=generator),
    }


@dataclass
class Timing:
    """Times of one way to run a policy: stage -> s of each run; "total" always."""

    name: str
    stages: dict[str, list[float]] = field(default_factory=dict)
    memory: int = 0  # bytes, the highest during the runs
    problem: str = ""  # why there are no times

    def median(self, stage: str = "total") -> float:
        return float(np.median(self.stages[stage]))

    def p99(self, stage: str = "total") -> float:
        return float(np.percentile(self.stages[stage], 99))


def peak_memory(device: torch.device) -> int:
    """Bytes: of a GPU what torch had allocated at most since the last reset, of a CPU the process at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def noise_for(policy: Policy, device: torch.device) -> Tensor:
    """(1, H, D), always the same."""
    shape = (1, policy.config.horizon, policy.config.action_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(device)


@torch.inference_mode()
def time_session(
    policy: Policy, batch: Batch, device: torch.device, runs: int, num_steps: int | None = None, graph: bool = True
) -> Timing:
    """As a session runs it: inputs uploaded, prefix and denoising timed apart, the result fetched at the end."""
    _reset_memory(device)
    recorded = graph and device.type == "cuda"
    if isinstance(policy, DenoisingPolicy):
        policy.prepare(num_steps)
    network = RecordedNetwork(policy, device, num_steps, 1) if recorded else PlainNetwork(policy, device, num_steps)
    noise = noise_for(policy, device)
    timing = Timing("vla_ros, recorded" if recorded else "vla_ros", {"prefix": [], "denoising": [], "total": []})
    for run in range(-3, runs):
        timer = StageTimer(device)
        network.run(batch, noise, None, timer).cpu()
        if run >= 0:
            prefix, denoising = timer.seconds()
            for stage, seconds in (("prefix", prefix), ("denoising", denoising), ("total", prefix + denoising)):
                timing.stages[stage].append(seconds)
    timing.memory = peak_memory(device)
    return timing


@torch.inference_mode()
def time_calls(name: str, call: Callable[[], Tensor], device: torch.device, runs: int) -> Timing:
    """Any function that ends with a tensor on the device."""
    _reset_memory(device)
    timing = Timing(name, {"total": []})
    for run in range(-3, runs):
        timer = StageTimer(device)
        timer.mark()
        result = call()
        timer.mark()
        result.cpu()
        if run >= 0:
            timing.stages["total"].append(timer.seconds()[0])
    timing.memory = peak_memory(device)
    return timing


def without_cache(policy: DenoisingPolicy, batch: Batch, noise: Tensor, num_steps: int) -> Tensor:
    """What a policy without a prefix cache does: images and text again for each step."""
    x = noise
    for _ in range(num_steps):
        x = policy.sample(policy.encode_prefix(batch), x, None, 1)
    return x


def stage_work(policy: Policy, batch: Batch, num_steps: int | None) -> dict[str, Work]:
    """Work of prefix and denoising (of the whole network for a policy that does not denoise)."""
    device = next(policy.parameters()).device
    batch = {name: value.to(device) for name, value in batch.items()}
    noise = noise_for(policy, device)
    if not isinstance(policy, DenoisingPolicy):
        return {"denoising": measure_work(policy, lambda: forward(policy, batch, noise, None, None))}
    with torch.no_grad():
        prefix = policy.encode_prefix(batch)
    return {
        "prefix": measure_work(policy, lambda: policy.encode_prefix(batch)),
        "denoising": measure_work(policy, lambda: policy.sample(prefix, noise, None, num_steps)),
    }


def total_bound(work: dict[str, Work], machine: Machine) -> float:
    """s, the sum over the stages."""
    return sum(stage.bound(machine) for stage in work.values())
