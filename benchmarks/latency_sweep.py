"""Success and smoothness against inference delay, in the simulator, in simulated time.

    python benchmarks/latency_sweep.py --layouts 10 --json sweep.json --plot docs/latency_sweep.png

The executor is the one that executor_node feeds; delays are injected in simulated time, so the machine's speed does
not matter. Five ways of execution:
    ensemble, latest, rtc   the executor's modes; the policy infers again as soon as it is done, at most at 10 Hz.
                            "ensemble 0.01" is ensemble with another ensemble_m than the default; "rolled latest" and
                            "rolled ensemble" show the policy the state of when the chunk will be there (roll_state)
    wait                    the naive runner: execute the chunk row by row, then observe, wait for the next chunk; the
                            rows are sent as they are
    wait, limited           the same rows through the executor's limits
A run ends with success or after the time limit. Jerk is the root mean square of the third difference of the published
commands of the arm's joints, rad/s³.
"""

import argparse
import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vla_ros.control.executor import Executor
from vla_ros.control.limiter import Limiter
from vla_ros.control.limits import Limits
from vla_ros.control.settings import Settings
from vla_ros.core.chunk import ActionChunk
from vla_ros.core.errors import InputError
from vla_ros.core.instruction import instruction_id
from vla_ros.core.observation import Sample
from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec
from vla_ros.runtime.serving import open_session
from vla_ros.runtime.session import Inference, PolicySession, SessionOptions
from vla_ros.sim.tasks import SuccessTracker, Task, TaskKind
from vla_ros.sim.world import World

CHECKPOINT = Path(__file__).parents[1] / "vla_ros" / "data" / "checkpoints" / "pi0_tiny"
ROLLED = "rolled "
MODES = ("ensemble", "latest", "rtc", "wait", "wait, limited")
WAYS = f"{'; '.join(MODES)}; 'ensemble M', 'rolled latest' or 'rolled ensemble'"
PERIOD_NS = 10_000_000
OBSERVE_TICKS = 10  # control periods between two images
SERVED_ROWS = 12  # of a chunk's 16 rows that the naive runner executes before it observes again


@dataclass
class Episode:
    """One run: whether it succeeded, when (s), and the commands (K, J) it published."""

    success: bool
    time: float
    commands: np.ndarray


class Overlapping:
    """The executor in one of its modes; the policy infers again as soon as it is done."""

    def __init__(self, robot: RobotSpec, session: PolicySession, mode: str, text: str, delay_ticks: int) -> None:
        self._session, self._text, self._delay = session, text, delay_ticks
        name, _, m = mode.removeprefix(ROLLED).partition(" ")
        settings = Settings(mode=name, ensemble_m=float(m)) if m else Settings(mode=name)
        self._executor = Executor(Limits.merge(robot), robot.control_rate, settings)
        self._executor.set_instruction(text)
        self._continues = mode == "rtc" or mode.startswith(ROLLED)
        self._pending: tuple[int, int, Inference] | None = None  # ready at tick, stamp, chunk
        self._sequence = 0
        self._active = False

    def command(self, tick: int, now_ns: int, world: World) -> np.ndarray:
        executor, joints = self._executor, world.joint_positions()
        executor.joint_state(now_ns, list(world.joint_names), joints.tolist(), now_ns)
        if not self._active:
            executor.activate(now_ns)
            self._active = True
        if self._pending is None and tick % OBSERVE_TICKS == 0:
            (result,) = self._session.infer([observe(world, self._text, now_ns)])
            self._pending = (tick + self._delay, now_ns, result)
        if self._pending is not None and self._pending[0] <= tick:
            _, stamp_ns, result = self._pending
            self._pending = None
            processor = self._session.processor
            chunk = ActionChunk(
                stamp_ns + round(result.lead * 1e9), processor.step_dt, result.targets, instruction_id(self._text),
                self._sequence, session=1,
            )
            executor.add_chunk(chunk, now_ns)
            self._sequence += 1
            if self._continues:
                self._session.delivered((now_ns - stamp_ns) * 1e-9)
        return executor.tick(now_ns, now_ns).position


class Waiting:
    """Executes a chunk row by row, then observes and waits for the next one."""

    def __init__(self, robot: RobotSpec, session: PolicySession, text: str, delay_ticks: int, limited: bool) -> None:
        self._session, self._text, self._delay = session, text, delay_ticks
        self._limiter = Limiter(Limits.merge(robot), 1.0 / robot.control_rate) if limited else None
        self._ticks_per_row = ticks_of(session.processor.step_dt, "mode wait, step_dt")
        self._rows: np.ndarray | None = None
        self._begin = 0  # tick at which the first row is due
        self._last: np.ndarray | None = None

    def command(self, tick: int, now_ns: int, world: World) -> np.ndarray:
        if self._last is None:
            self._last = world.joint_positions()
            if self._limiter:
                self._limiter.reset(self._last)
        if self._rows is None or tick >= self._begin + SERVED_ROWS * self._ticks_per_row:
            # Row 0 is meant for the observation's own instant, which is gone when the chunk arrives: rows from 1 on.
            (result,) = self._session.infer([observe(world, self._text)])
            joints = self._session.processor.joints
            self._rows = result.targets.joint_positions(joints, world.joint_positions())[1:]
            self._begin = tick + self._delay
        if tick >= self._begin:
            self._last = self._rows[(tick - self._begin) // self._ticks_per_row]
        return self._limiter.follow(self._last, np.zeros_like(self._last)) if self._limiter else self._last


def observe(world: World, text: str, stamp_ns: int = 0) -> Sample:
    images = {camera: world.render(camera)[None] for camera in ("front", "wrist")}
    return Sample(images, world.joint_positions()[None], text, stamp_ns=stamp_ns)


def run(world: World, robot: RobotSpec, session: PolicySession, kind: str, seed: int, mode: str, delay: float,
        time_limit: float) -> Episode:  # fmt: skip
    world.reset(seed)
    session.begin()
    session.seed(seed)
    task = Task(TaskKind(kind), world.colours[seed % len(world.colours)])
    text = task.instruction(np.random.default_rng(seed))
    ticks = ticks_of(delay, "--delays")
    if mode.startswith("wait"):
        runner = Waiting(robot, session, text, ticks, limited=mode != "wait")
    else:
        runner = Overlapping(robot, session, mode, text, ticks)
    tracker, commands, success = SuccessTracker(task, world), [], False
    for tick in range(round(time_limit / (PERIOD_NS * 1e-9))):
        command = runner.command(tick, (100 + tick) * PERIOD_NS, world)
        commands.append(command)
        world.step(command)
        if tracker.update():
            success = True
            break
    return Episode(success, len(commands) * PERIOD_NS * 1e-9, np.array(commands))


def ticks_of(seconds: float, what: str) -> int:
    """Control periods. Raises InputError for a fraction of one, which nothing here can wait."""
    ticks = seconds / (PERIOD_NS * 1e-9)
    if ticks < 0 or abs(ticks - round(ticks)) > 1e-6:
        raise InputError(f"{what} {seconds:g} s, expected multiples of {PERIOD_NS * 1e-9:g} s")
    return round(ticks)


def check_mode(mode: str) -> None:
    """Raises InputError for what is no way of execution: another mode would run in its place."""
    if mode not in MODES and not re.fullmatch(rf"({ROLLED})?(latest|ensemble( -?\d+(\.\d+)?)?)", mode):
        raise InputError(f"--modes {mode!r}, expected {WAYS}")


def jerk(commands: np.ndarray, arm: np.ndarray) -> float:
    """Root mean square over time and the arm's joints, rad/s³."""
    third = np.diff(commands[:, arm], n=3, axis=0) / (PERIOD_NS * 1e-9) ** 3
    return float(np.sqrt(np.mean(third**2))) if len(third) else 0.0


def sweep(args: argparse.Namespace) -> list[dict]:
    torch.set_num_threads(1)
    robot = RobotSpec.load(config_file("robots/so101.yaml"))
    arm = ~robot.discrete
    world = World()
    options = {mode: SessionOptions(guided=mode == "rtc", roll_state=mode.startswith(ROLLED)) for mode in args.modes}
    rows = []
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("episodes", total=len(args.modes) * len(args.delays) * len(args.tasks) * args.layouts)
        for kind in args.tasks:
            for delay in args.delays:
                # New ones, since they expect the delays that they have met.
                sessions = {one: open_session(args.policy, robot, "cpu", options=one) for one in set(options.values())}
                for mode in args.modes:
                    episodes, session = [], sessions[options[mode]]
                    for seed in range(args.seed, args.seed + args.layouts):
                        episodes.append(run(world, robot, session, kind, seed, mode, delay, args.time_limit))
                        progress.advance(bar)
                    rows.append({
                        "task": kind, "delay": delay, "mode": mode, "layouts": args.layouts,
                        "successes": sum(episode.success for episode in episodes),
                        "jerk": float(np.mean([jerk(episode.commands, arm) for episode in episodes])),
                        "time": float(np.mean([episode.time for episode in episodes])),
                    })  # fmt: skip
    return rows


def show(rows: list[dict]) -> None:
    table = Table("task", "delay (ms)", "mode", "success", "jerk (rad/s³)", "jerk, wait = 1", "mean time (s)")
    naive = {(row["task"], row["delay"]): row["jerk"] for row in rows if row["mode"] == "wait"}
    for row in rows:
        base = naive.get((row["task"], row["delay"]))
        success = f"{row['successes']}/{row['layouts']}"
        share = f"{row['jerk'] / base:.3f}" if base else ""
        delay = f"{row['delay'] * 1e3:.0f}"
        table.add_row(row["task"], delay, row["mode"], success, f"{row['jerk']:.0f}", share, f"{row['time']:.1f}")
    Console(width=110).print(table)


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, axes = plt.subplots(2, len(tasks), figsize=(5.5 * len(tasks), 7), sharex=True, squeeze=False)
    curves = defaultdict(list)
    for row in rows:
        curves[row["task"], row["mode"]].append(row)
    for (task, mode), points in curves.items():
        column = tasks.index(task)
        delays = [point["delay"] * 1e3 for point in points]
        success = [100 * point["successes"] / point["layouts"] for point in points]
        axes[0, column].plot(delays, success, "o-", label=mode)
        axes[1, column].plot(delays, [point["jerk"] for point in points], "o-", label=mode)
    for column, task in enumerate(tasks):
        axes[0, column].set(title=task, ylabel="success (%)", ylim=(-3, 103))
        axes[1, column].set(xlabel="inference delay (ms)", ylabel="jerk of the commands (rad/s³)", yscale="log")
        axes[0, column].grid(alpha=0.3)
        axes[1, column].grid(alpha=0.3)
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default=str(CHECKPOINT), help="checkpoint folder (default: the shipped one)")
    parser.add_argument("--layouts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=20_000, help="of the first layout")
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5], metavar="S")
    parser.add_argument("--tasks", nargs="+", default=["touch", "pick"])
    parser.add_argument("--modes", nargs="+", default=list(MODES), help=WAYS)
    parser.add_argument("--time-limit", type=float, default=12.0, metavar="S")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    try:
        for mode in args.modes:
            check_mode(mode)
        for delay in args.delays:
            ticks_of(delay, "--delays")
        rows = sweep(args)
    except InputError as error:
        parser.error(str(error))
    show(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
