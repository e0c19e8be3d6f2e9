"""Measure how often a policy succeeds in the simulator, run through the ROS nodes in lockstep.

    vla-ros eval --policy runs/pi0_tiny --tasks touch --layouts 100 --jobs 2
    vla-ros eval --env aloha/transfer_cube --policy runs/act --layouts 50 --rate 0.5

Policy, executor and simulator run as nodes in separate processes, on a private ROS domain. Simulated time waits for
them, so the same checkpoint, seed and machine give the same figures however busy the machine is. Control experiments:
with `wrong_colour` the instruction names another cube than the one that success is judged by, with `shuffled_images`
the images show another layout, and with `expert` the scripted expert of the simulator does the task, without a policy.

`--env` uses another benchmark instead of the simulator (docs/benchmarks.md), with its own robot, seeds, length of an
episode and rule of success. To execute N rows of each chunk, set `--rate` to the benchmark's steps a second over N.
"""

import argparse
import json
import os
import queue
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.files import new_file
from vla_ros.core.resources import resolve_policy
from vla_ros.core.robot import RobotSpec
from vla_ros.core.terminal import Terminal
from vla_ros.core.text import say

if TYPE_CHECKING:
    from vla_ros.sim.simulated import Simulated

CONTROLS = ("none", "wrong_colour", "shuffled_images", "expert")
_LAYOUTS = 1000  # layouts between two seeds
_UNSEEN = 800_000  # seeds of layouts that no demonstration has
TIME_LIMITS = {"touch": 10.0, "pick": 15.0, "push": 15.0, "drive": 30.0, "fetch": 40.0}  # s of simulated time


@dataclass(frozen=True)
class Episode:
    """An episode to run: the layout's seed, the policy's instruction, and the one by which success is judged."""

    seed: int
    kind: str
    instruction: str
    judged: str
    time_limit: float  # s of simulated time


@dataclass(frozen=True)
class Outcome:
    """Result of an episode; `time` in s of simulated time."""

    episode: Episode
    success: bool
    time: float
    reward: float | None = None  # highest one of the episode, of a benchmark that has rewards


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", help="checkpoint folder, policy file, or ws://HOST:PORT of a server (not needed "
                        "with --control expert)")
    parser.add_argument("--tasks", nargs="+", metavar="TASK",
                        help="tasks to evaluate (docs/simulation.md), two in a row as place+press (default: touch)")
    options.scene(parser)
    parser.add_argument("--wordings", choices=("trained", "held_out"), default="trained",
                        help="how the tasks are said: as in demonstrations, or as in none of them")
    options.environment(parser)
    parser.add_argument("--layouts", type=int, default=100, help="number of episodes for each task")
    parser.add_argument("--seed", type=int, default=0, help="seed for the layouts")
    parser.add_argument("--control", choices=CONTROLS, default="none", help="control experiment, see above")
    options.robot(parser, default=None)
    parser.add_argument("--rate", type=float, default=10.0, help="inferences per simulated second, Hz (default: 10)")
    parser.add_argument("--image-rate", type=float, metavar="HZ",
                        help="images per simulated second, more than --rate for a policy with a history (default: "
                        "--rate)")
    parser.add_argument("--time-limit", type=float,
                        help="simulated time allowed for an episode, s (default: depends on the task)")
    parser.add_argument("--jobs", type=int, default=1, help="number of graphs that run at the same time")
    options.device(parser, default=None)
    options.engine(parser, default=None)
    options.params(parser)
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="folder for a video (mp4) of every failed layout")
    options.output(parser, "JSON file for the results, one entry for each episode", type=Path)


def main(args: argparse.Namespace) -> int:
    for name, low in (("layouts", 1), ("jobs", 1), ("seed", 0)):
        if getattr(args, name) < low:
            raise InputError(f"--{name} {getattr(args, name)}, expected {low} or more")
    if args.control != "expert" and not args.policy:
        raise InputError("--policy is missing: a checkpoint folder or a policy file")
    if not 0.1 <= args.rate <= 100:
        raise InputError(f"--rate {args.rate} Hz, expected 0.1 to 100")
    if not args.rate <= (args.image_rate or args.rate) <= 100:
        raise InputError(f"--image-rate {args.image_rate} Hz, expected --rate ({args.rate:g}) to 100")
    options.check_time_limit(args)
    if args.output and args.output.is_dir():
        raise InputError(f"--output {args.output}: a folder, expected a file")
    if args.control == "expert":
        options.check_unused(args, ("policy", "image_rate", "device", "engine", "params", "videos", "jobs"),
                             "with --control expert, expected only one of them: it does the tasks in the simulator "
                             "alone, without a policy and its nodes")
    if args.output and not os.access(args.output.parent, os.W_OK):
        raise InputError(f"--output {args.output}: folder {args.output.parent} cannot be written to")
    options.check_environment(args, "tasks", "scene", "wordings", "control")
    plan, world = _benchmark_plan(args) if args.env else _plan(args)
    if args.control != "expert":
        _check_rates(args)
        options.check_policy(args.policy)
    if args.videos:
        try:
            args.videos.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--videos {args.videos}: {error.strerror}, expected a folder to write to") from error
    outcomes: dict[Episode, Outcome] = {}
    began = time.monotonic()
    try:
        for outcome in run_expert(plan, world) if args.control == "expert" else run_graphs(plan, args):
            outcomes[outcome.episode] = outcome
            _progress(list(outcomes.values()), len(plan), time.monotonic() - began)
    finally:  # of what had ended before Ctrl-C or a failure, too
        _tell([outcomes[episode] for episode in plan if episode in outcomes], args)
    return 0


def _tell(outcomes: Sequence[Outcome], args: argparse.Namespace) -> None:
    """The table, and the file of results."""
    results: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        results.setdefault(outcome.episode.kind, []).append(outcome)
    if not results:
        return
    _print_table(results, args)
    if args.output:
        with new_file(args.output, "results") as part:
            part.write_text(json.dumps(_report(results, args), indent=2) + "\n", encoding="utf-8")
        say(f"written: {args.output}")


def _check_rates(args: argparse.Namespace) -> None:
    """Say to what the simulator rounds `--rate`. Raises InputError for a rate above the robot's control rate."""
    control, seen = RobotSpec.load(args.robot).control_rate, args.image_rate or args.rate
    if seen > control:
        option = "--image-rate" if args.image_rate else "--rate"
        raise InputError(f"{option} {seen:g} Hz, expected at most the robot's control_rate, {control:g} Hz")
    rounded = control / max(1, round(control / seen)) / max(1, round(seen / args.rate))
    if abs(rounded - args.rate) > 1e-3 * args.rate:
        say(f"--rate {args.rate:g} Hz: {rounded:.4g} Hz, in whole control periods of robot {args.robot}")


def _plan(args: argparse.Namespace) -> tuple[list[Episode], "type[Simulated]"]:
    """Tasks of the simulator, and its world."""
    from vla_ros.sim.worlds import scene_with  # MuJoCo, which takes a while

    args.robot, args.tasks = args.robot or "so101", args.tasks or ["touch"]
    if twice := [name for name, count in Counter(args.tasks).items() if count > 1]:
        raise InputError(f"--tasks: {twice[0]} twice, expected each once: it would have the same layouts")
    robot = RobotSpec.load(args.robot)
    world = scene_with(robot, args.scene, args.tasks)
    plan: list[Episode] = []
    for name in args.tasks:
        plan += episodes(name, args.layouts, args.seed, args.control, args.time_limit, world, args.wordings)
    args.scene = world.scene
    return plan, world


def _benchmark_plan(args: argparse.Namespace) -> tuple[list[Episode], None]:
    """Episodes of another benchmark."""
    from vla_ros.sim.environments import benchmark

    found = benchmark(args.env)
    args.robot = args.robot or found.robot
    limit = args.time_limit or found.steps / found.rate
    seeds = _unseen(args.layouts, args.seed)
    return [Episode(seed, args.env, found.instruction, found.instruction, limit) for seed in seeds], None


def _unseen(layouts: int, seed: int) -> range:
    """Seeds of layouts. Raises InputError for those that demonstrations may have."""
    if seed * _LAYOUTS + layouts > _UNSEEN:
        raise InputError(f"--seed {seed} with --layouts {layouts}: beyond the {_UNSEEN} unseen layouts")
    return range(seed * _LAYOUTS, seed * _LAYOUTS + layouts)


def episodes(
    name: str, layouts: int, seed: int, control: str = "none", time_limit: float | None = None,
    world: "type[Simulated] | None" = None, wordings: str = "trained",
) -> list[Episode]:
    """The colours in turn, wordings drawn by the layout's seed; the same arguments give the same list.

    `name`: as `task_of` takes it. `world`: None: the scene of three cubes. Raises InputError where there are no such
    wordings, or no wrong colour, and for layouts that demonstrations may have.
    """
    import numpy as np

    from vla_ros.sim.scene import COLOURS
    from vla_ros.sim.tasks import cubes_of, task_of
    from vla_ros.sim.wordings import HELD_OUT
    from vla_ros.sim.world import World

    world = world or World
    words = HELD_OUT if wordings == "held_out" else world.words
    kinds = task_of(name, "").kinds
    if lacking := [kind for kind in kinds if kind not in words]:
        raise InputError(f"--wordings {wordings}: task {lacking[0]} has none, expected trained")
    if control == "wrong_colour" and not cubes_of(kinds[0]):
        raise InputError(f"--control wrong_colour: task {name} begins with no colour, expected another task")
    found = []
    for index, layout in enumerate(_unseen(layouts, seed)):
        rng = np.random.default_rng([layout, 11])
        colour = COLOURS[index % len(COLOURS)]
        told = COLOURS[(index + 1 + int(rng.integers(2))) % len(COLOURS)] if control == "wrong_colour" else colour
        task, other = (world.suited(task_of(name, one), layout) for one in (colour, told))
        judged = task.instruction()
        instruction = judged if control == "expert" else other.instruction(rng, words)
        limit = time_limit or TIME_LIMITS.get(name) or world.limit(task)
        found.append(Episode(layout, name, instruction, judged, limit))
    return found


def run_expert(plan: Sequence[Episode], kind: "type[Simulated]") -> Iterator[Outcome]:
    """The scripted expert in the bare simulator, as a yardstick."""
    from vla_ros.sim.worlds import expert_of, tracker_of

    world = kind()
    for episode in plan:
        world.reset(episode.seed)
        task = world.understand(episode.judged)
        expert, tracker = expert_of(world, task), tracker_of(world, task)
        while not (tracker.succeeded or tracker.failed) and world.time < episode.time_limit - 1e-9:
            world.step(expert.command())
            tracker.update()
        yield Outcome(episode, tracker.succeeded, round(world.time, 3))


def run_graphs(plan: Sequence[Episode], args: argparse.Namespace) -> Iterator[Outcome]:
    """The plan through `args.jobs` graphs at a time; outcomes as they come."""
    from vla_ros.graph.evaluation import EvaluationGraph

    todo: queue.SimpleQueue[Episode] = queue.SimpleQueue()
    done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    for episode in plan:
        todo.put(episode)
    foreign_images, policy = args.control == "shuffled_images", resolve_policy(args.policy)

    def work(graph: EvaluationGraph) -> None:
        try:
            graph.bring_up()
            while True:
                episode = todo.get_nowait()
                status = graph.run_to_end(
                    episode.seed, episode.instruction, episode.time_limit, episode.judged, foreign_images
                )
                if args.videos and not status.success:
                    video = args.videos / f"{episode.kind.replace('/', '_')}_{episode.seed}.mp4"
                    graph.film.write(video, args.image_rate or args.rate, int(status.values["run_start_ns"]))
                reward = status.values.get("highest_reward")
                time_taken = float(status.values["run_time"])
                done.put(Outcome(episode, status.success, time_taken, float(reward) if reward else None))
        except queue.Empty:
            return
        except BaseException as error:  # handed to the main thread, which ends every graph
            done.put(error)

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vla_ros_eval_"))
        for job in range(min(args.jobs, len(plan))):
            graph = stack.enter_context(
                EvaluationGraph(Path(folder) / str(job), args.robot, policy, args.rate, args.device, args.params,
                                args.engine, args.image_rate, environment=args.env or "", python=args.env_python,
                                scene=args.scene, filmed=bool(args.videos))
            )
            threading.Thread(target=work, args=(graph,), name=f"job {job}", daemon=True).start()
        for _ in plan:
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            yield result


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % confidence interval of a success rate (Wilson 1927)."""
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (rate * (1 - rate) / trials + z * z / (4 * trials * trials)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def _progress(outcomes: list[Outcome], total: int, elapsed: float) -> None:
    count = len(outcomes)
    if count % 5 and count != total:
        return
    rate = sum(outcome.success for outcome in outcomes) / count
    left = elapsed / count * (total - count)
    say(f"{count}/{total} episodes, {rate:.0%} so far, {elapsed:.0f} s, about {left:.0f} s left")


def _print_table(results: dict[str, list[Outcome]], args: argparse.Namespace) -> None:
    title = "scripted expert" if args.control == "expert" else str(args.policy)
    if args.control in ("wrong_colour", "shuffled_images"):
        title += f" ({args.control})"
    table = Table(title=title)
    for name in ("task", "layouts", "success", "95 % interval", "median time of a success (s)"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for kind, outcomes in results.items():
        task, times = _summary(outcomes), [outcome.time for outcome in outcomes if outcome.success]
        low, high = task["interval"]
        median = f"{statistics.median(times):.1f}" if times else "-"
        table.add_row(kind, str(task["layouts"]), f"{task['rate']:.1%}", f"{low:.1%} to {high:.1%}", median)
    Terminal().print(table)


def _summary(outcomes: list[Outcome]) -> dict[str, Any]:
    count, wins = len(outcomes), sum(outcome.success for outcome in outcomes)
    return {"layouts": count, "successes": wins, "rate": wins / count, "interval": wilson(wins, count)}


def _report(results: dict[str, list[Outcome]], args: argparse.Namespace) -> dict[str, Any]:
    def entry(outcome: Outcome) -> dict[str, Any]:
        episode = {name: getattr(outcome.episode, name) for name in ("seed", "instruction", "judged")}
        figures = {"success": outcome.success, "time": outcome.time}
        return episode | figures | ({} if outcome.reward is None else {"highest_reward": outcome.reward})

    tasks = {kind: _summary(outcomes) | {"episodes": list(map(entry, outcomes))} for kind, outcomes in results.items()}
    given = ("policy", "env", "scene", "wordings", "control", "seed", "rate")
    return {name: getattr(args, name) for name in given} | {"tasks": tasks}
