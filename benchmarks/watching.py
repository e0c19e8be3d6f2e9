"""How well the executor's monitor tells episodes that fail from those that succeed.

    python benchmarks/watching.py --layouts 20 --episodes runs/watching

The shipped policy does its tasks in the simulator through the executor, in lockstep: as it is, and made worse on
purpose. Then the monitor looks at each episode, and the area under the ROC curve (AUROC) says how often a failure
has the higher value than a success: 0.5 is a coin, below it failures have the lower values. Episodes end with success
or at the time limit, so failures are longer; the mean rate over an episode does not grow with its length, the highest
value in a window may. The same layouts and seeds give the same figures. With --episodes the commands are kept in
that folder, and read from it where they are there already.
"""

import argparse
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vla_ros.control.executor import Executor
from vla_ros.control.limits import Limits
from vla_ros.control.monitor import Monitor
from vla_ros.control.settings import Settings
from vla_ros.core.chunk import ActionChunk, Part, Targets
from vla_ros.core.instruction import instruction_id
from vla_ros.core.observation import Sample
from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec
from vla_ros.runtime.serving import open_session
from vla_ros.runtime.session import PolicySession
from vla_ros.sim.layout import Layout
from vla_ros.sim.tasks import SuccessTracker, Task, TaskKind
from vla_ros.sim.world import CAMERAS, World

CHECKPOINT = Path(__file__).parents[1] / "vla_ros" / "data" / "checkpoints" / "pi0_tiny"
TIME_LIMITS = {"touch": 8.0, "pick": 12.0}  # s
FIRST_LAYOUT, FOREIGN = 30_000, 500_000  # seeds
PERIOD_NS, OBSERVE_TICKS = 10_000_000, 10  # of control; ticks between two images
Images = dict[str, np.ndarray]


@dataclass(frozen=True)
class Way:
    """What is done to the policy; standard deviations of what is added."""

    title: str
    foreign: bool = False  # images of another layout
    wrong_colour: bool = False  # told to go to another cube
    swapped: bool = False  # each camera's images under the other's name
    frozen: bool = False  # the first images for ever
    age: int = 0  # of the images, in observations
    noise: float = 0.0  # on images, of 255
    actions: float = 0.0  # on the rows of chunks, rad


WAYS = {
    "good": Way("as it is"),
    "noise60": Way("noise on images, 60 of 255", noise=60),
    "noise120": Way("noise on images, 120 of 255", noise=120),
    "stale1": Way("images 1 s old", age=10),
    "frozen": Way("images frozen at the start", frozen=True),
    "swapped": Way("cameras swapped", swapped=True),
    "foreign": Way("images of another layout", foreign=True),
    "colour": Way("told another colour", wrong_colour=True),
    "act05": Way("noise on actions, 0.05 rad", actions=0.05),
    "act20": Way("noise on actions, 0.2 rad", actions=0.2),
}


@dataclass
class Episode:
    """K control periods of J joints: `commands`, `measured` (K, J) rad; `limited` (K, J) bool."""

    success: bool
    commands: np.ndarray
    measured: np.ndarray
    limited: np.ndarray


class Simulator:
    """One world to act in and one that only shows another layout."""

    def __init__(self, robot: RobotSpec, session: PolicySession) -> None:
        self._robot, self._session = robot, session
        self._world, self._other = World(), World()

    def run(self, kind: str, seed: int, way: Way) -> Episode:
        """An episode; a chunk is there in the instant of its images."""
        world, session, robot = self._world, self._session, self._robot
        rng = np.random.default_rng([seed, 5])
        world.reset(seed)
        session.begin()
        session.seed(seed)
        index = seed % len(world.colours)
        task = Task(TaskKind(kind), world.colours[index])
        told = (index + 1 + int(rng.integers(2))) % len(world.colours) if way.wrong_colour else index
        text = Task(TaskKind(kind), world.colours[told]).instruction(np.random.default_rng(seed))
        executor = Executor(Limits.merge(robot), robot.control_rate, Settings(resume="automatic"))
        executor.set_instruction(text)
        tracker, see = SuccessTracker(task, world), self._eyes(seed, way, rng)
        ticks: list[tuple[np.ndarray, ...]] = []
        for tick in range(round(TIME_LIMITS[kind] * 1e9 / PERIOD_NS)):
            now_ns, joints = (100 + tick) * PERIOD_NS, world.joint_positions()
            executor.joint_state(now_ns, list(world.joint_names), joints.tolist(), now_ns)
            if tick == 0:
                executor.activate(now_ns)
            if tick % OBSERVE_TICKS == 0:
                (result,) = session.infer([Sample(see(), joints[None], text, stamp_ns=now_ns)])
                targets = _shaken(result.targets, way.actions, rng) if way.actions else result.targets
                step_dt, sequence = session.processor.step_dt, tick // OBSERVE_TICKS
                executor.add_chunk(
                    ActionChunk(now_ns, step_dt, targets, instruction_id(text), sequence, session=1), now_ns
                )
            command = executor.tick(now_ns, now_ns)
            ticks.append((command.position, joints, executor.limiter.limited.copy()))
            world.step(command.position)
            if tracker.update():
                break
        return Episode(tracker.succeeded, *(np.array(column) for column in zip(*ticks, strict=True)))

    def _eyes(self, seed: int, way: Way, rng: np.random.Generator) -> Callable[[], Images]:
        """What the policy sees, one call an observation."""
        shown, past = self._world, deque[Images](maxlen=way.age + 1)
        if way.foreign:
            shown = self._other
            shown.reset(seed, layout=Layout.random(seed + FOREIGN))

        def see() -> Images:
            if way.foreign:
                shown.place(self._world.joint_positions(), {})
            if not (way.frozen and past):
                past.append({camera: shown.render(camera).copy() for camera in CAMERAS})
            images = past[0]
            if way.noise:
                images = {name: _noisy(image, way.noise, rng) for name, image in images.items()}
            if way.swapped:
                images = dict(zip(images, reversed(images.values()), strict=True))
            return {name: image[None] for name, image in images.items()}

        return see


def _noisy(image: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    return np.clip(image + rng.normal(0, size, image.shape), 0, 255).astype(np.uint8)


def _shaken(targets: Targets, size: float, rng: np.random.Generator) -> Targets:
    return Targets(tuple(Part(part.names, part.data + rng.normal(0, size, part.data.shape)) for part in targets.parts))


def look(episode: Episode, limits: Limits, window: float) -> dict[str, float]:
    """What the monitor says of an episode: of the worst joint that is not discrete."""
    glides = ~limits.discrete
    duration = len(episode.commands) * PERIOD_NS * 1e-9
    monitor, whole = Monitor(limits, window, 0.0), Monitor(limits, 2 * duration, 0.0)
    peaks, longest = np.zeros(3), 0.0
    for k, values in enumerate(zip(episode.commands, episode.measured, episode.limited, strict=True)):
        for one in (monitor, whole):
            one.tick(k * PERIOD_NS, 0, True, *values)
        if k % 10 == 9:
            now = (monitor.reversals, monitor.limited_share, monitor.deviation)
            peaks = np.maximum(peaks, [value[glides].max() for value in now])
            longest = max(longest, whole.progress_age)
    return {
        "reversals, highest in a window (1/s)": peaks[0],
        "reversals, mean of the episode (1/s)": float(whole.reversals[glides].max()) * 2,
        "share of time limited, highest in a window": peaks[1],
        "share of time limited, mean of the episode": float(whole.limited_share[glides].max()),
        "deviation, highest (rad)": float(whole.deviation[glides].max()),
        "longest time without progress (s)": longest,
        "duration of the episode (s), to compare with": duration,
    }


def auroc(failures: np.ndarray, successes: np.ndarray) -> float:
    """How often a failure (N,) has the higher value than a success (M,), ties half. NaN without one of each."""
    if not len(failures) or not len(successes):
        return float("nan")
    difference = failures[:, None] - successes
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def collect(args: argparse.Namespace) -> dict[tuple[str, str], list[Episode]]:
    """Task and way -> episodes, one for each layout."""
    torch.set_num_threads(1)
    robot = RobotSpec.load(config_file("robots/so101.yaml"))
    simulator, found = None, {}
    plan = [(kind, way, layout) for layout in range(args.layouts) for kind in args.tasks for way in args.ways]
    for kind, way, layout in track(plan, "episodes", console=Console(stderr=True)):
        path = args.episodes / f"{kind}-{way}-{layout}.npz" if args.episodes else None
        if path is not None and path.exists():
            with np.load(path) as stored:
                episode = Episode(bool(stored["success"]), *(stored[n] for n in ("commands", "measured", "limited")))
        else:
            simulator = simulator or Simulator(robot, open_session(args.policy, robot, "cpu"))
            episode = simulator.run(kind, FIRST_LAYOUT + layout, WAYS[way])
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(path, **vars(episode))
        found.setdefault((kind, way), []).append(episode)
    return found


def show(episodes: dict[tuple[str, str], list[Episode]], limits: Limits, window: float, console: Console) -> None:
    """A table of what the ways do, and one of how well each value separates, all ways together."""
    seen = {key: [look(episode, limits, window) for episode in found] for key, found in episodes.items()}
    won = {key: np.array([episode.success for episode in found]) for key, found in episodes.items()}
    first, mean = list(next(iter(seen.values()))[0])[:2]
    table = Table("task", "policy", "success", f"{first}: median, highest", f"{mean}: median",
                  "AUROC of the mean, its failures against the first's successes")  # fmt: skip
    good: dict[str, np.ndarray] = {}
    for (kind, way), values in seen.items():
        peaks, means = (np.array([value[name] for value in values]) for name in (first, mean))
        success = won[kind, way]
        good.setdefault(kind, means[success])
        table.add_row(kind, WAYS[way].title, f"{success.sum()}/{len(values)}",
                      f"{np.median(peaks):.1f}, {peaks.max():.1f}", f"{np.median(means):.1f}",
                      f"{auroc(means[~success], good[kind]):.2f}")  # fmt: skip
    console.print(table)
    kinds = list(dict.fromkeys(kind for kind, _ in seen))
    table = Table("AUROC, failure above success", *kinds)
    names = list(next(iter(seen.values()))[0])
    groups = [
        (np.concatenate([won[key] for key in seen if key[0] == kind]),
         {name: np.array([value[name] for key in seen if key[0] == kind for value in seen[key]]) for name in names})
        for kind in kinds
    ]  # fmt: skip
    table.add_row("failures, successes", *(f"{(~success).sum()}, {success.sum()}" for success, _ in groups))
    for name in names:
        table.add_row(name, *(f"{auroc(of[name][~success], of[name][success]):.2f}" for success, of in groups))
    console.print(table)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default=str(CHECKPOINT), help="checkpoint folder (default: the shipped one)")
    parser.add_argument("--layouts", type=int, default=20, help="episodes of each task and way")
    parser.add_argument("--tasks", nargs="+", default=list(TIME_LIMITS), choices=TIME_LIMITS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--window", type=float, default=Settings.monitor_window, metavar="S")
    parser.add_argument("--episodes", type=Path, help="folder to keep the episodes in")
    args = parser.parse_args(argv)
    limits = Limits.merge(RobotSpec.load(config_file("robots/so101.yaml")))
    show(collect(args), limits, args.window, Console(width=140))


if __name__ == "__main__":
    main()
