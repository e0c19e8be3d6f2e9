"""Measures the parts that it is told, see run.sh: a line {"begin": PART}, lines of what was found, {"done": PART}.

Times are ms: the median of the runs, the 99th percentile, and of the stages; `bound_ms` is what this machine would need
for the products and weights of the pass at the speed of one large matrix product and one large copy, `of_bound` its
share of the median; `cosine` and `error` (of the largest value) compare the chunk with the same weights in float32.
"""

import argparse
import copy
import gc
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from gpu_subjects import Subject, groot, openvla

from vla_ros.bench.lerobot_peer import LeRobotPeer
from vla_ros.bench.peers import time_peers
from vla_ros.bench.subjects import (
    pi0_config,
    random_batch,
    random_lerobot,
    random_pi0,
    random_policy,
    write_lerobot_config,
)
from vla_ros.bench.timing import Timing, draws_for, stage_work, time_session, total_bound
from vla_ros.bench.work import Machine, measure_machine
from vla_ros.core.errors import InputError
from vla_ros.nn.float8 import put_float8
from vla_ros.nn.fused import fuse
from vla_ros.nn.gemma import GemmaLayer
from vla_ros.nn.siglip import SiglipLayer
from vla_ros.policies.policy import Batch, Policy
from vla_ros.policies.registry import load
from vla_ros.runtime.float8 import measured, require_float8
from vla_ros.runtime.network import private_copy

ROOT = Path(__file__).parents[2]
STEPS = 10
TESTS = "test/runtime/test_session.py", "test/nn/test_kernels.py"
BLOCKS = {GemmaLayer: ("project", "finish"), SiglipLayer: ("forward",)}  # what repeats in π0


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)


class Bench:
    """What all parts share."""

    def __init__(self, rehearse: bool) -> None:
        self.rehearse = rehearse
        self.device = torch.device("cpu" if rehearse else "cuda")
        self.dtype = torch.float32 if rehearse else torch.bfloat16
        self.size, self.runs = ("tiny", 3) if rehearse else ("full", 100)

    @cached_property
    def machine(self) -> Machine:
        return measure_machine(self.device, self.dtype)

    def pi0(self, cameras: int, adaptive: bool = False) -> tuple[Policy, Batch]:
        policy = random_pi0(pi0_config(self.size, cameras, adaptive), self.device, self.dtype)
        return policy, random_batch(policy)

    def built(self, subject: Subject) -> tuple[Policy, Batch]:
        make, batch = subject
        return random_policy(make, self.device, self.dtype), batch

    def lerobot(self, family: str) -> tuple[Policy, Batch]:
        with tempfile.TemporaryDirectory() as folder:
            write_lerobot_config(Path(folder), family, self.size, 2)
            policy = random_lerobot(Path(folder), self.device, self.dtype)
        return policy, random_batch(policy)

    def report(self, part: str, way: str, timing: Timing, bound: float, **more: object) -> None:
        line = {"part": part, "way": way, "dtype": str(self.dtype).removeprefix("torch.")} | more
        if timing.problem:
            say(**line, problem=timing.problem)
            return
        line |= {"median_ms": timing.median() * 1e3, "p99_ms": timing.p99() * 1e3}
        line |= {f"{stage}_ms": timing.median(stage) * 1e3 for stage in timing.stages if stage != "total"}
        line |= {"bound_ms": bound * 1e3, "of_bound": bound / timing.median(), "memory_gb": timing.memory / 1e9}
        line["runs"] = len(timing.stages["total"])
        say(**{name: round(value, 4) if isinstance(value, float) else value for name, value in line.items()})

    def absent(self, part: str, way: str, why: str, **more: object) -> None:
        self.report(part, way, Timing(way, problem=why), 0.0, **more)

    def ways(self, part: str, policy: Policy, batch: Batch, steps: int | None, **more: object) -> None:
        """A policy operation by operation and recorded, and how near it is to float32."""
        bound = total_bound(stage_work(policy, batch, steps), self.machine)
        more |= {"cameras": batch["images"].shape[-4], "steps": steps}
        for way, graph in (("graph", True), ("eager", False)):
            if graph and self.device.type == "cpu":
                self.absent(part, way, "a CPU has no CUDA graphs", **more)
                continue
            runs = self.runs if graph else max(3, self.runs // 5)
            self.report(part, way, time_session(policy, batch, self.device, runs, steps, graph), bound, **more)
        exact = copy.deepcopy(policy).float()
        say(part=part, way="float32", **compared(policy, exact, batch, self.device, steps), **more)


@torch.no_grad()
def compared(policy: Policy, other: Policy, batch: Batch, device: torch.device, steps: int | None) -> dict[str, object]:
    """One policy's answer beside another's, from the same draws."""
    batch = {name: value.to(device) for name, value in policy.with_elapsed(batch).items()}
    draws, answers = draws_for(policy, device), []
    for one in (policy, other):
        context = one.encode(batch, one.begin(1), draws)
        answers.append(one.act(context, draws, one.prepare(steps)).actions.flatten())
    if not answers[0].is_floating_point():
        return {"same_tokens": float((answers[0] == answers[1]).float().mean())}
    ours, exact = (answer.double() for answer in answers)
    error = (ours - exact).abs().max() / exact.abs().max()
    return {"cosine": round(float(torch.cosine_similarity(ours, exact, 0)), 6), "error": round(float(error), 6)}


def machine(bench: Bench, part: str) -> None:
    """Which it is, and how fast."""
    found, cuda = bench.machine, bench.device.type == "cuda"
    name = torch.cuda.get_device_name() if cuda else platform.processor() or "CPU"
    say(part=part, device=name, date=time.strftime("%Y-%m-%d"), torch=torch.__version__,
        tflops=round(found.flops_per_second / 1e12, 2), gb_per_s=round(found.bytes_per_second / 1e9, 1),
        dtype=str(bench.dtype).removeprefix("torch."), rehearsal=bench.rehearse)  # fmt: skip


def gpu_tests(bench: Bench, part: str) -> None:
    """The tests that are marked `gpu`; where there is none they are skipped, and counted so."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={file}"]
        if not bench.rehearse and importlib.util.find_spec("xdist"):
            command += ["-n", "8"]
        result = subprocess.run([*command, *TESTS], cwd=ROOT, capture_output=True, text=True)
        if not file.exists():
            say(part=part, problem=(result.stdout + result.stderr).strip().splitlines()[-1])
            return
        cases = list(ElementTree.parse(file).iter("testcase"))
    bad = [case.get("name") for case in cases if {"failure", "error"} & {found.tag for found in case}]
    skipped = sum(case.find("skipped") is not None for case in cases)
    say(part=part, tests=len(cases), skipped=skipped, failed=bad)


def pi0(cameras: int) -> Callable[[Bench, str], None]:
    def part(bench: Bench, part: str) -> None:
        bench.ways(part, *bench.pi0(cameras), STEPS)

    return part


def pi0_compiled(bench: Bench, part: str) -> None:
    """The layers alone, each compiled once for all that repeat it, and the whole recorded."""
    policy, batch = bench.pi0(3)
    bound, start = total_bound(stage_work(policy, batch, STEPS), bench.machine), time.monotonic()
    policy = private_copy(policy)
    torch._dynamo.config.recompile_limit = 64  # the towers' sizes and lengths
    for module in policy.modules():
        for name in BLOCKS.get(type(module), ()):
            backend = "eager" if bench.rehearse else "inductor"
            setattr(module, name, torch.compile(getattr(module, name), dynamic=False, backend=backend))
    timing = time_session(policy, batch, bench.device, bench.runs, STEPS)
    taken = round(time.monotonic() - start, 1)
    way = "compiled" if bench.rehearse else "compiled, graph"
    bench.report(part, way, timing, bound, cameras=3, steps=STEPS, seconds_to_compile_and_run=taken)


def fused(adaptive: bool) -> Callable[[Bench, str], None]:
    """With the Triton kernels, and with products of eight-bit numbers, beside the answer without them."""

    def part(bench: Bench, part: str) -> None:
        require_float8(bench.device)
        policy, batch = bench.pi0(3, adaptive)
        bound = total_bound(stage_work(policy, batch, STEPS), bench.machine)
        fused, small = private_copy(policy), private_copy(policy)
        fuse(fused)
        put_float8(small, measured(policy, [{name: value.to(bench.device) for name, value in batch.items()}]))
        for way, changed in (("fused, graph", fused), ("float8, graph", small)):
            near = compared(changed, policy, batch, bench.device, STEPS)
            timing = time_session(changed, batch, bench.device, bench.runs, STEPS)
            bench.report(part, way, timing, bound, cameras=3, steps=STEPS, **near)

    return part


def pi0_peers(bench: Bench, part: str) -> None:
    policy, batch = bench.pi0(3)
    bound = total_bound(stage_work(policy, batch, STEPS), bench.machine)
    for timing in time_peers(policy, batch, bench.device, bench.dtype, max(3, bench.runs // 10), STEPS):
        bench.report(part, timing.name, timing, bound, cameras=3, steps=STEPS)


def family(make: Callable[[Bench], tuple[Policy, Batch]], steps: int | None = None) -> Callable[[Bench, str], None]:
    return lambda bench, part: bench.ways(part, *make(bench), steps)


def from_lerobot(name: str) -> Callable[[Bench, str], None]:
    """Of a LeRobot family, beside LeRobot's own class where this Python has it."""

    def part(bench: Bench, part: str) -> None:
        bench.ways(part, *bench.lerobot(name), None)
        if importlib.util.find_spec("lerobot") is None:
            bench.absent(part, "LeRobot", "this Python has no lerobot")
            return
        with tempfile.TemporaryDirectory() as folder:
            beside_lerobot(bench, part, name, Path(folder))

    return part


def beside_lerobot(bench: Bench, part: str, name: str, folder: Path) -> None:
    """LeRobot's class with its own weights, in turn with ours, which reads them."""
    write_lerobot_config(folder, name, bench.size, 2)
    kind = str(bench.dtype).removeprefix("torch.")
    with LeRobotPeer(sys.executable, folder, bench.device, kind, torch.get_num_threads(), None) as peer:
        policy = load(folder, device=bench.device, dtype=bench.dtype).policy.eval().requires_grad_(False)
        batch, draws = random_batch(policy), draws_for(policy, bench.device)
        peer.set_inputs(policy, batch, draws, None)
        time_session(policy, batch, bench.device, max(3, bench.runs // 5), turn=peer.turn)
        actions = policy.predict({name: value.to(bench.device) for name, value in batch.items()}, draws)
        bound = total_bound(stage_work(policy, batch, None), bench.machine)
        bench.report(part, peer.name, peer.timing(actions.float().cpu()), bound)


PARTS: dict[str, Callable[[Bench, str], None]] = {
    "machine": machine, "gpu_tests": gpu_tests, "pi0_3": pi0(3), "pi0_2": pi0(2), "pi0_1": pi0(1),
    "pi0_3_compiled": pi0_compiled, "pi0_3_fused": fused(False), "pi0_3_peers": pi0_peers,
    "pi05": family(lambda bench: bench.pi0(3, adaptive=True), STEPS), "pi05_fused": fused(True),
    "smolvla": from_lerobot("smolvla"), "act": from_lerobot("act"), "diffusion": from_lerobot("diffusion"),
    "groot": family(lambda bench: bench.built(groot(bench.size, 2))),
    "openvla": family(lambda bench: bench.built(openvla(bench.size, 1))),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("parts", nargs="+", choices=PARTS)
    args = parser.parse_args()
    # Whoever started this process may be killed: then its end of the pipe is shut.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    if not args.rehearse and not torch.cuda.is_available():
        raise InputError("torch finds no CUDA device; `--rehearse` tries everything on the CPU at tiny sizes")
    bench = Bench(args.rehearse)
    for part in args.parts:
        say(begin=part)
        try:
            PARTS[part](bench, part)
        except InputError as error:
            say(part=part, problem=str(error))
        except Exception as error:  # one part's trouble is not another's
            say(part=part, problem=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            say(done=part)
            return 1  # a GPU's error may stay with the process: the next part begins in another
        gc.collect()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
        say(done=part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
