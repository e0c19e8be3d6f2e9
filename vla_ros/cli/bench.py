"""Measure the inference time of a policy, stage by stage, and compare it with other implementations.

    vla-ros bench --policy CHECKPOINT --robot so101       a real checkpoint
    vla-ros bench --policy pi0 --size tiny                random weights of the demo policy's size (or 100m, full)
    vla-ros bench --policy ws://HOST:PORT --robot so101   a policy on another machine, with the time on the network
    vla-ros bench --policy CHECKPOINT --engine openvino   torch and OpenVINO in turn
    vla-ros bench --policy act --size full --lerobot-python PY
                                                          random weights of the published size, beside LeRobot's class

The bound is the time this machine would need for the same products and weights at the speed of one large matrix
product and one large copy, both measured here. LeRobot's own class (ACT, Diffusion Policy, SmolVLA, X-VLA, GR00T N1.7,
π0-FAST) runs in a separate process with the same weights, inputs and threads; the two take turns, and their actions
(π0-FAST: tokens) are compared. PY is a Python interpreter that can import lerobot (default: this one, if it can).
"""

import argparse
import platform
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from vla_ros.bench.engine_peer import EnginePeer
from vla_ros.bench.lerobot_peer import COMPARED, LeRobotPeer, find_python
from vla_ros.bench.peers import time_peers
from vla_ros.bench.subjects import (
    SIZES,
    pi0_config,
    random_batch,
    random_lerobot,
    random_pi0,
    random_pi0_fast,
    write_groot,
    write_lerobot_config,
    write_pi0_fast,
)
from vla_ros.bench.timing import Timing, draws_for, stage_work, time_server, time_session, total_bound
from vla_ros.bench.work import measure_machine
from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.terminal import Terminal
from vla_ros.policies.policy import Batch, Policy
from vla_ros.policies.registry import LoadOptions, load, resolve
from vla_ros.policies.server_file import ServerFile, read_server
from vla_ros.runtime.engines.backends import find
from vla_ros.runtime.engines.engaged import unasked
from vla_ros.runtime.history import example_sample
from vla_ros.runtime.serving import FLOAT8, open_policy, open_server, resolve_device, resolve_dtype
from vla_ros.runtime.session import SessionOptions


def arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(SIZES)
    parser.add_argument("--policy", required=True,
                        help=f"checkpoint folder, policy file, ws://HOST:PORT, or (random weights) {names}")
    parser.add_argument("--size", choices=SIZES["pi0"], default="tiny", help="model size when the weights are random")
    parser.add_argument("--cameras", type=int,
                        help="number of cameras when the weights are random (default: 2; 3 for the larger sizes of π0)")
    options.robot(parser, default="so101")
    options.device(parser)
    options.dtype(parser)
    options.engine(parser)
    options.num_steps(parser)
    parser.add_argument("--runs", type=int, default=100, help="number of timed inferences")
    options.threads(parser)
    parser.add_argument("--no-peers", action="store_true", help="time vla_ros alone, without other implementations")
    parser.add_argument("--lerobot-python", metavar="PY",
                        help="Python interpreter that can import lerobot (default: this one)")


@dataclass
class Subject:
    """The policy to measure, LeRobot's class of the same policy, and why that cannot be measured."""

    policy: Policy
    batch: Batch
    title: str
    peers: list[LeRobotPeer | EnginePeer]
    problems: list[Timing]


def main(args: argparse.Namespace) -> int:
    for name in ("runs", "cameras"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}, expected at least 1")
    options.check_num_steps(args)
    given, server = f"with --policy {args.policy}, expected none:", read_server(args.policy)
    if _random(args):
        options.check_unused(args, ("robot",), f"{given} random weights are of no robot")
        if args.policy not in COMPARED:
            _check_not_compared(args)
    else:
        options.check_unused(args, ("size", "cameras"), f"{given} it is for random weights, of {', '.join(SIZES)}")
    if args.no_peers:
        options.check_unused(args, ("lerobot_python",), "with --no-peers, expected neither or one")
    console = Terminal()
    if server:
        options.check_unused(args, ("threads", "no_peers", "lerobot_python"), f"{given} a server's time is measured")
        return _remote(server, args, console)
    device = resolve_device(args.device)
    dtype = resolve_dtype(args.dtype, device)
    if args.threads:
        torch.set_num_threads(args.threads)
    with ExitStack() as stack:
        subject = _subject(args, device, dtype, stack)
        policy, batch = subject.policy, subject.batch
        engine = find(args.engine, device, dtype, False, False)
        if engine and not (args.engine == "auto" and unasked(policy)):
            try:
                subject.peers.insert(0, EnginePeer(engine))
            except ImportError as error:
                subject.problems.append(Timing(f"vla_ros, {engine.name}", problem=str(error)))
        machine = measure_machine(device, dtype)
        work = stage_work(policy, batch, args.num_steps)
        timings = _timings(subject, args, device, dtype)
    bounds = {stage: part.bound(machine) for stage, part in work.items()} | {"total": total_bound(work, machine)}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else (platform.processor() or "CPU")
    console.print(
        f"{subject.title} on {where}, {str(dtype).removeprefix('torch.')}, torch {torch.__version__}, "
        f"{args.runs} runs, {torch.get_num_threads()} CPU thread(s)\n"
        f"this machine: {machine.flops_per_second / 1e12:.3g} TFLOP/s, {machine.bytes_per_second / 1e9:.3g} GB/s",
        soft_wrap=True,
    )  # fmt: skip
    console.print(table([timing for timing in timings if not timing.problem], bounds))
    for timing in timings:
        if timing.problem:
            console.print(f"{timing.name}: not measured: {timing.problem}", soft_wrap=True)
    return 0


def _random(args: argparse.Namespace) -> bool:
    return args.policy in SIZES and not Path(args.policy).exists()


def _check_not_compared(args: argparse.Namespace) -> None:
    options.check_unused(args, ("lerobot_python",), f"with --policy {args.policy}, expected none: LeRobot's class is "
                         f"timed for its folders, or random weights, of {', '.join(COMPARED)}")


def _remote(server: ServerFile, args: argparse.Namespace, console: Terminal) -> int:
    """Measure a policy on another machine, without the bound of this machine."""
    robot = RobotSpec.load(args.robot)
    session_options = SessionOptions(num_steps=args.num_steps, engine=args.engine)
    session = open_server(server, robot, args.device, args.dtype, session_options)
    try:
        timing = time_server(session, example_sample(robot, session.processor, "touch the red cube"), args.runs)
    finally:
        session.close()
    console.print(f"{session.title}, robot {robot.name}, {args.runs} runs; encode and act as the server reports them",
                  soft_wrap=True)
    console.print(table([timing], {}))
    return 0


def _subject(args: argparse.Namespace, device: torch.device, dtype: torch.dtype, stack: ExitStack) -> Subject:
    peers, problems = [], []
    if _random(args):
        if args.dtype == FLOAT8:
            raise InputError(f"--dtype {FLOAT8}: its scales are measured on a checkpoint, these weights are random; "
                             "expected a checkpoint, or another type")
        cameras = args.cameras or (3 if args.policy.startswith("pi0") and args.size != "tiny" else 2)
        title = f"{args.policy} {args.size}, random weights, {cameras} cameras"
        batch = None
        if args.policy in ("pi0", "pi05"):
            policy = random_pi0(pi0_config(args.size, cameras, args.policy == "pi05"), device, dtype)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vla_ros_bench_")))
            policy = None
            if args.policy == "pi0_fast":
                policy = random_pi0_fast(args.size, cameras, device, dtype)
                if not args.no_peers:
                    write_pi0_fast(folder, policy)
            elif args.policy == "groot":
                folder = folder / "policy"
                policy, batch = write_groot(folder, args.size, cameras)
                policy = policy.store_as(dtype).to(device)
            else:
                write_lerobot_config(folder, args.policy, args.size, cameras)
            peers, problems = _open_peers(args, args.policy, folder, device, dtype, stack)
            if policy is None and peers:  # LeRobot's own weights file is read as any checkpoint is
                policy = load(folder, device=device, dtype=dtype).policy
            elif policy is None:
                policy = random_lerobot(folder, device, dtype)
        batch = batch or random_batch(policy)
    else:
        robot = RobotSpec.load(args.robot)
        loaded = open_policy(args.policy, robot, args.device, args.dtype)
        policy, title = loaded.policy, f"{loaded.family} of {args.policy}, {len(loaded.processor.cameras)} cameras"
        batch = loaded.processor.inputs([example_sample(robot, loaded.processor, "touch the red cube")])
        if loaded.layout == "lerobot" and loaded.family in COMPARED:
            folder = resolve(args.policy, LoadOptions())[0]
            peers, problems = _open_peers(args, loaded.family, folder, device, dtype, stack)
        else:
            _check_not_compared(args)
    count = sum(parameter.numel() for parameter in policy.parameters())
    steps = args.num_steps or getattr(policy.config, "num_steps", None)
    title += f", {count / 1e6:.3g} M parameters" + (f", {steps} steps" if steps else "")
    return Subject(policy.eval().requires_grad_(False), batch, title, peers, problems)


def _open_peers(
    args: argparse.Namespace, family: str, folder: Path, device: torch.device, dtype: torch.dtype, stack: ExitStack
) -> tuple[list[LeRobotPeer], list[Timing]]:
    """LeRobot's class in our data type; SmolVLA's also in the data type of its published weights."""
    kinds = [str(dtype).removeprefix("torch.")]
    if family == "smolvla" and dtype == torch.float32:
        kinds.append("bfloat16")
    peers, problems = [], []
    for kind in () if args.no_peers else kinds:
        try:
            peer = LeRobotPeer(
                find_python(args.lerobot_python), folder, device, kind, torch.get_num_threads(), args.num_steps
            )
        except InputError as error:
            problems.append(Timing(f"LeRobot, {kind}", problem=str(error)))
        else:
            peers.append(stack.enter_context(peer))
    return peers, problems


def _timings(subject: Subject, args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> list[Timing]:
    """Ours first, LeRobot in turn with it, then the others one after the other."""
    policy, batch, draws = subject.policy, subject.batch, draws_for(subject.policy, device)
    peers, problems = [], list(subject.problems)
    for peer in subject.peers:
        try:
            peer.set_inputs(policy, batch, draws, args.num_steps)
        except InputError as error:
            problems.append(Timing(peer.name, problem=str(error)))
        else:
            peers.append(peer)

    def turn(number: int) -> None:
        for peer in peers:
            peer.turn(number)

    timings = [time_session(policy, batch, device, args.runs, args.num_steps, turn=turn)]
    if peers:
        uploaded = {name: value.to(device) for name, value in batch.items()}
        with torch.inference_mode():
            actions = policy.predict(uploaded, draws, num_steps=args.num_steps).float().cpu()
        timings += [peer.timing(actions) for peer in peers]
    if not args.no_peers:
        timings += time_peers(policy, batch, device, dtype, args.runs, args.num_steps)
    return timings + problems


def table(timings: list[Timing], bounds: dict[str, float]) -> Table:
    """Rows: implementation and stage; columns: median, 99th percentile, share of the bound, ratio to the first one,
    memory."""
    made = Table()
    for title in ("", "stage", "median [ms]", "p99 [ms]", "of bound", "times as long", "peak memory [MB]"):
        made.add_column(title, justify="left" if title in ("", "stage") else "right")
    for timing in timings:
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
