"""Build a LeRobot dataset from bags: complete or absent, and nothing is left out silently."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.bags.episodes import CutOptions, Episode, cut_bag, episode_name, plan_episode
from vla_ros.bags.frames import Frame, read_frames
from vla_ros.bags.index import BagIndex, Progress, index_bag
from vla_ros.bags.reader import Bag
from vla_ros.core.errors import InputError
from vla_ros.core.files import new_folder
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import COMMAND
from vla_ros.datasets.values import DONE, INTERVENTION, SUCCESS
from vla_ros.datasets.writer import DatasetWriter, Outcome
from vla_ros.messages.observation import unexpected_sizes

SOURCES = "vla_ros_sources.json"  # in `meta`: which bag and time each episode is from
Resize = Callable[[np.ndarray], np.ndarray]


@dataclass
class BuildReport:
    """What was written. `problems`: a sentence for each episode that was left out; `notes`: other findings."""

    output: Path
    episodes: int = 0
    frames: int = 0
    problems: list[str] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)


def plan_bag(
    path: Path, robot: RobotSpec, options: CutOptions, namespace: str = "/", progress: Progress | None = None
) -> tuple[BagIndex, list[Episode], list[str]]:
    """(index, good episodes, problems of the bad ones) of a bag. Raises InputError when it has no episodes at all."""
    with Bag(path) as bag:
        index = index_bag(bag, robot, namespace, options.marker, progress)
        try:
            cuts = cut_bag(index, options)
        except InputError as error:
            raise InputError(f"bag {path}: {error}") from None
        if not cuts:
            if options.succeeded:
                raise InputError(f"bag {path}: no episodes with the outcome success")
            looked = {"instruction": "instruction", "task": "run of RunInstruction", "marker": options.marker}
            span = f"between {bag.when(index.start_ns)} and {bag.when(index.stop_ns)}"
            raise InputError(f"bag {path}: no episodes: no {looked.get(options.by)} {span}")
        episodes, problems = [], []
        for number, cut in enumerate(cuts):
            try:
                episodes.append(plan_episode(number, cut, index, options, bag.when))
            except InputError as error:
                problems.append(f"bag {path}: {episode_name(number, cut)}: {error}")
    index.joints.states.clear()  # the episodes have everything they need
    return index, episodes, problems


def build_dataset(
    bags: Sequence[str | Path],
    output: str | Path,
    robot: RobotSpec,
    options: CutOptions,
    namespace: str = "/",
    resize: Resize | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> BuildReport:
    """Write `output` from the episodes of the bags, in their order.

    Args:
        resize: (h, w, 3) -> (h', w', 3), applied to every frame before it is stored.
        skip_bad: leave out episodes that cannot be used instead of refusing all; the report says which and why.
        progress: called with messages done, messages in all (each is read twice), and what is being done.

    Raises InputError: for bags, episodes or an output that cannot be used. The output then does not exist.
    """
    paths = [Path(path) for path in bags]
    report = BuildReport(Path(output))
    with new_folder(output, "dataset", replace=False) as part:
        meter = _Meter(paths, progress)
        plans = []
        for path in paths:
            index, episodes, problems = plan_bag(path, robot, options, namespace, meter.step(f"looking at {path.name}"))
            plans.append((path, index, episodes))
            report.problems += problems
        if report.problems and not skip_bad:
            raise InputError(_refusal(report.problems))
        writer = DatasetWriter(part, robot, options.fps, marks=_marks([e for *_, made in plans for e in made]))
        sources = []
        for path, index, episodes in plans:
            step = meter.step(f"reading {path.name}")
            with Bag(path) as bag:
                report.notes |= set(index.notes)
                sources += _write_bag(bag, robot, index, episodes, writer, resize, skip_bad, report, step)
        report.episodes, report.frames = len(sources), sum(row["frames"] for row in sources)
        if not sources:
            raise InputError("no episode can be used:\n  " + "\n  ".join(report.problems))
        writer.finish()
        text = json.dumps({"episodes": sources}, indent=2)
        (part / "meta" / SOURCES).write_text(text, encoding="utf-8")
    return report


def _write_bag(
    bag: Bag, robot: RobotSpec, index: BagIndex, episodes: list[Episode], writer: DatasetWriter,
    resize: Resize | None, skip_bad: bool, report: BuildReport, progress: Progress,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of SOURCES for the episodes that were written."""
    sources = []
    for _, made in groupby(read_frames(bag, robot, index, episodes, progress), lambda frame: frame.episode.number):
        frames, shapes, error = [], {}, None
        for frame in made:
            error = error or frame.error or _changed_size(shapes, frame)
            report.notes |= unexpected_sizes(robot, frame.observation.images if frame.observation else {})
            frames.append(_resized(frame, resize))
        episode = frames[0].episode
        if error is not None:
            problem = f"bag {bag.path}: {episode.name}: {error.removeprefix(f'bag {bag.path}: ')}"
            if not skip_bad:
                raise InputError(_refusal([problem]))
            report.problems.append(problem)
            continue
        seen = [frame.observation for frame in frames]
        images, values = (
            {name: np.stack([getattr(one, part)[name] for one in seen]) for name in getattr(seen[0], part)}
            for part in ("images", "values")
        )
        states, actions = np.stack([one.state for one in seen]), np.stack([frame.action for frame in frames])
        values = {name: rows for name, rows in values.items() if not name.startswith(COMMAND)}
        cut = episode.cut
        last = np.arange(len(states)) == len(states) - 1
        marks = {INTERVENTION: episode.by_person, SUCCESS: last & (cut.outcome == "success"), DONE: last}
        outcome = Outcome(cut.outcome, cut.by, cut.message)
        writer.add_episode(images, states, actions, cut.instruction, values, outcome, marks)
        sources.append({"bag": str(bag.path), "episode": episode.number, "start_ns": int(episode.times[0]),
                        "frames": len(frames), "outcome": cut.outcome, "by": cut.by, "message": cut.message})
    return sources


def _marks(episodes: Sequence[Episode]) -> list[str]:
    """Marks of every frame; none that nobody reported."""
    who = np.concatenate([episode.by_person for episode in episodes]) if episodes else np.zeros(0)
    judged = all(episode.cut.outcome for episode in episodes)
    return [INTERVENTION] * (len(np.unique(who)) > 1) + [SUCCESS, DONE] * judged


def _changed_size(shapes: dict[str, tuple[int, ...]], frame: Frame) -> str | None:
    """What is wrong if a camera's image differs in size from the last one, which `shapes` keeps by camera; else ""."""
    for camera, image in frame.observation.images.items():
        height, width = shapes.setdefault(camera, image.shape)[:2]
        if image.shape[:2] != (height, width):
            return (f"camera {camera}: from frame {frame.index} on images of {image.shape[1]}x{image.shape[0]} pixels, "
                    f"before of {width}x{height}: expected one size")
    return None


def _resized(frame: Frame, resize: Resize | None) -> Frame:
    if not resize or frame.observation is None:
        return frame
    images = {camera: resize(image) for camera, image in frame.observation.images.items()}
    return replace(frame, observation=replace(frame.observation, images=images))


def _refusal(problems: list[str]) -> str:
    head = f"{len(problems)} bad episode(s); nothing is written (leave them out with --skip-bad):"
    return "\n  ".join([head, *problems])


class _Meter:
    """Counts messages read over all bags and both passes."""

    def __init__(self, paths: Sequence[Path], progress: Callable[[int, int, str], None] | None) -> None:
        self._progress = progress
        self._done = self._total = 0
        for path in paths:
            with Bag(path) as bag:
                self._total += 2 * bag.message_count

    def step(self, what: str) -> Progress:
        def advance(count: int) -> None:
            self._done += count
            if self._progress:
                self._progress(self._done, self._total, what)

        return advance
