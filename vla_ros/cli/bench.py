"""Inference time of a policy, stage by stage, beside the bound of this machine and beside others.

    vla-ros bench --policy pi0 --size tiny          random weights of the demo policy's size (or 100m, full)
    vla-ros bench --policy CHECKPOINT --robot so101  a real checkpoint

The bound is what this machine would need for the same products and weights at the speed of one large matrix product
and one large copy, both measured here. Peers run in the same process after each other.
"""

import argparse
import platform
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from vla_ros.cli.options import resolve_robot
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.policies.base import Batch, DenoisingPolicy, Policy
from vla_ros.runtime.bench import (
    SIZES,
    Timing,
    noise_for,
    pi0_config,
    random_batch,
    random_pi0,
    stage_work,
    time_calls,
    time_session,
    total_bound,
    without_cache,
)
from vla_ros.runtime.bench_peers import transformers_pi0
from vla_ros.runtime.devices import resolve_device, resolve_dtype
from vla_ros.runtime.serving import open_policy
from vla_ros.runtime.session import example_sample
from vla_ros.runtime.work import measure_machine

FAMILIES = {"pi0": False, "pi05": True}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", required=True, help="checkpoint folder, policy file, or pi0, pi05 (random)")
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of random weights")
    parser.add_argument("--cameras", type=int, default=3, help="of random weights")
    parser.add_argument("--robot", default="so101", help="robot file, for a checkpoint")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=None, help="denoising steps (default: the policy's)")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU (default: torch's)")
    parser.add_argument("--no-peers", action="store_true", help="only vla_ros itself")


def main(args: argparse.Namespace) -> int:
    if args.runs < 1:
        raise InputError(f"--runs {args.runs}, expected at least 1")
    console = Console()
    device = resolve_device(args.device)
    dtype = resolve_dtype(args.dtype, device)
    if args.threads:
        torch.set_num_threads(args.threads)
    policy, batch, title = _subject(args, device, dtype)
    machine = measure_machine(device, dtype)
    work = stage_work(policy, batch, args.steps)
    timings = [time_session(policy, batch, device, args.runs, args.steps)]
    if not args.no_peers:
        timings += _peers(policy, batch, device, dtype, args)
    bounds = {stage: part.bound(machine) for stage, part in work.items()} | {"total": total_bound(work, machine)}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else (platform.processor() or "CPU")
    console.print(
        f"{title} on {where}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}, "
        f"{args.runs} runs, {torch.get_num_threads()} CPU thread(s)\n"
        f"this machine: {machine.flops_per_second / 1e12:.3g} TFLOP/s, {machine.bytes_per_second / 1e9:.3g} GB/s",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    console.print(table(timings, bounds))
    return 0


def _subject(args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> tuple[Policy, Batch, str]:
    if args.policy in FAMILIES and not Path(args.policy).exists():
        cameras = 2 if args.size == "tiny" else args.cameras
        config = pi0_config(args.size, cameras, FAMILIES[args.policy])
        policy = random_pi0(config, device, dtype)
        title = f"{args.policy} {args.size}, random weights, {cameras} cameras"
        batch = random_batch(config)
    else:
        robot = RobotSpec.load(resolve_robot(args.robot))
        loaded = open_policy(args.policy, robot, args.device, args.dtype)
        policy = loaded.policy.eval().requires_grad_(False)
        batch = loaded.processor.inputs([example_sample(robot, loaded.processor, "touch the red cube")])
        title = f"{loaded.family} of {args.policy}, {len(loaded.processor.cameras)} cameras"
    count = sum(parameter.numel() for parameter in policy.parameters())
    steps = args.steps or getattr(policy.config, "num_steps", None)
    return policy, batch, f"{title}, {count / 1e6:.3g} M parameters" + (f", {steps} steps" if steps else "")


def _peers(
    policy: Policy, batch: Batch, device: torch.device, dtype: torch.dtype, args: argparse.Namespace
) -> list[Timing]:
    if not isinstance(policy, DenoisingPolicy):
        return []
    noise = noise_for(policy, device)
    uploaded = {name: value.to(device) for name, value in batch.items()}
    steps = args.steps or policy.config.num_steps
    timings = []
    if device.type == "cuda":
        timings.append(time_session(policy, batch, device, args.runs, args.steps, graph=False))
    plain = lambda: without_cache(policy, uploaded, noise, steps)  # noqa: E731
    timings.append(time_calls("vla_ros, prefix again each step", plain, device, args.runs))
    if type(policy).__name__ == "Pi0":
        name = "transformers' π0"
        try:
            call = transformers_pi0(policy.config, batch, device, dtype, steps)
        except InputError as error:
            timings.append(Timing(name, problem=str(error)))
        else:
            timings.append(time_calls(name, call, device, args.runs))
    return timings


def table(timings: list[Timing], bounds: dict[str, float]) -> Table:
    """Rows: way and stage; columns: median, 99th percentile, share of the bound, ratio to the first way, memory."""
    made = Table()
    for title in ("", "stage", "median [ms]", "p99 [ms]", "of bound", "times as long", "peak memory [MB]"):
        made.add_column(title, justify="left" if title in ("", "stage") else "right")
    for timing in timings:
        if timing.problem:
            made.add_row(timing.name, f"not measured: {timing.problem}")
            continue
        for stage in timing.stages:
            last = stage == "total"
            bound = bounds.get(stage)
            made.add_row(
                timing.name if stage == next(iter(timing.stages)) else "",
                stage,
                f"{timing.median(stage) * 1e3:.2f}",
                f"{timing.p99(stage) * 1e3:.2f}",
                f"{bound / timing.median(stage):.0%}" if bound else "",
                f"{timing.median() / timings[0].median():.2f}" if last else "",
                f"{timing.memory / 1e6:.0f}" if last else "",
                end_section=last,
            )
    return made
