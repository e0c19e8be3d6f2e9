"""π0 and π0.5 of the published size on a GPU: stage times, share of the bound, and peers in the same run.

    python benchmarks/gpu_pi0.py [--output results.json]

Needs torch, transformers, safetensors and numpy (no ROS, no checkpoint: the weights are random, the shapes the
published ones). Ends within 8 minutes: what does not fit into the time is printed as not measured.
"""

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import transformers

from vla_ros.bench.peers import time_peers
from vla_ros.bench.subjects import SIZES, pi0_config, random_batch, random_pi0
from vla_ros.bench.timing import Timing, stage_work, time_session, total_bound
from vla_ros.bench.work import measure_machine
from vla_ros.runtime.serving import resolve_device

BUDGET = 420.0  # s after which nothing new is begun; the longest single measurement takes well below a minute
HEAD = "| policy | cameras | steps | way | encode | act | total | p99 | of bound | memory [GB] |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES["pi0"], default="full", help="tiny to try the script out on a CPU")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--output", type=Path, help="JSON file with every number")
    args = parser.parse_args()
    start = time.monotonic()
    device = resolve_device(args.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    machine = measure_machine(device, dtype)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}, {time.strftime('%Y-%m-%d')}")
    tera, giga = machine.flops_per_second / 1e12, machine.bytes_per_second / 1e9
    print(f"measured {tera:.0f} TFLOP/s, {giga:.0f} GB/s; times in ms")
    print(HEAD + "\n" + "|---" * HEAD.count(" | ") + "|---|")
    rows = []
    # The most wanted lines first: peers are compared with three cameras and ten steps.
    plan = [(family, cameras, steps) for family in ("pi0", "pi05") for cameras in (3, 2, 1) for steps in (10, 5)]
    for family, cameras, steps in plan:
        if time.monotonic() - start > BUDGET:
            print(f"| {family} | {cameras} | {steps} | not measured: out of time |" + " |" * 6)
            continue
        peers = (cameras, steps) == (3, 10)
        rows += _measure(family, cameras, steps, args, device, dtype, machine, peers)
    if args.output:
        said = {"device": name, "torch": torch.__version__, "machine": asdict(machine), "rows": rows}
        args.output.write_text(json.dumps(said, indent=1))
    print(f"{time.monotonic() - start:.0f} s")
    return 0


def _measure(family, cameras, steps, args, device, dtype, machine, peers) -> list[dict]:
    config = pi0_config(args.size, cameras, family == "pi05")
    policy = random_pi0(config, device, dtype)
    batch = random_batch(policy)
    bound = total_bound(stage_work(policy, batch, steps), machine)
    timings = [time_session(policy, batch, device, args.runs, steps)]
    if peers:
        timings += time_peers(policy, batch, device, dtype, max(1, args.runs // 5), steps)
    return [_print(family, cameras, steps, timing, bound) for timing in timings]


def _print(family, cameras, steps, timing: Timing, bound: float) -> dict:
    if timing.problem:
        cells = [timing.name, f"not measured: {timing.problem}", "", "", "", "", ""]
    else:
        stages = ("encode", "act", "total")
        parts = [f"{timing.median(stage) * 1e3:.2f}" if stage in timing.stages else "" for stage in stages]
        share = f"{bound / timing.median():.0%} of {bound * 1e3:.2f}"
        cells = [timing.name, *parts, f"{timing.p99() * 1e3:.2f}", share, f"{timing.memory / 1e9:.1f}"]
    print(f"| {family} | {cameras} | {steps} | " + " | ".join(cells) + " |", flush=True)
    return {"family": family, "cameras": cameras, "steps": steps, "bound": bound, **asdict(timing)}


if __name__ == "__main__":
    sys.exit(main())
