"""Inference time of a policy, stage by stage, compared with the bound of the machine and with others."""

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vla_ros.bench.work import Machine, Work, measure_work
from vla_ros.core.observation import Sample
from vla_ros.policies.policy import Batch, Draws, Policy
from vla_ros.runtime.network import Held, PlainNetwork, RecordedNetwork
from vla_ros.runtime.stages import StageTimer

if TYPE_CHECKING:
    from vla_ros.runtime.remote.session import RemoteSession


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


def draws_for(policy: Policy, device: torch.device) -> Draws:
    """Random draws of one episode, always the same."""
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(shape, generator=generator).to(device) for name, shape in policy.draws(1).items()}


@torch.inference_mode()
def time_session(
    policy: Policy, batch: Batch, device: torch.device, runs: int, num_steps: int | None = None, graph: bool = True,
    turn: Callable[[int], None] | None = None,
) -> Timing:
    """As a session runs it: inputs uploaded, the stages timed apart, the result fetched at the end.

    Args:
        turn: called with its number (negative in the warm-up) after every run, so that others that take turns run under
            the same conditions.
    """
    _reset_memory(device)
    recorded = graph and device.type == "cuda"
    held = Held(policy.begin(1), draws_for(policy, device), policy.prepare(num_steps))
    batch = policy.with_elapsed(batch)
    network = RecordedNetwork(policy, held, device, 1) if recorded else PlainNetwork(policy, held, device)
    stages = {stage: [] for stage in (*policy.stages, "total")}
    timing = Timing("vla_ros, recorded" if recorded else "vla_ros", stages)
    for run in range(-min(3, runs), runs):
        timer = StageTimer(device)
        network.run(batch, None, timer).actions.cpu()
        if run >= 0:
            seconds = timer.seconds()
            for stage, taken in zip(stages, (*seconds, sum(seconds)), strict=True):
                timing.stages[stage].append(taken)
        if turn is not None:
            turn(run)
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


def time_server(session: "RemoteSession", sample: Sample, runs: int) -> Timing:
    """A policy on another machine, one request after the other: the server's times of its stages, the time on the
    network, and the total for policy_node (including the encoding of images)."""
    timing = Timing(session.title, {"encode": [], "act": [], "flight": [], "total": []})
    for run in range(-min(3, runs), runs):
        (result,) = session.infer([sample])
        if run >= 0:
            taken = result.encode_time, result.act_time, result.flight_time, result.total_time
            for stage, seconds in zip(timing.stages, taken, strict=True):
                timing.stages[stage].append(seconds)
    timing.memory = peak_memory(torch.device("cpu"))
    return timing


def stage_work(policy: Policy, batch: Batch, num_steps: int | None) -> dict[str, Work]:
    """Work of each stage."""
    device = next(policy.parameters()).device
    batch = {name: value.to(device) for name, value in policy.with_elapsed(batch).items()}
    memory, draws, found = policy.begin(1), draws_for(policy, device), []
    with torch.no_grad():
        fixed = policy.prepare(num_steps)
    return {
        "encode": measure_work(policy, lambda: found.append(policy.encode(batch, memory, draws))),
        "act": measure_work(policy, lambda: policy.act(found[0], draws, fixed)),
    }


def total_bound(work: dict[str, Work], machine: Machine) -> float:
    """s, the sum over the stages."""
    return sum(stage.bound(machine) for stage in work.values())
