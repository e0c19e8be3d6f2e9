"""Make a LeRobot dataset (version 3) from bags, show one (versions 2.1 and 3), or check it.

    vla-ros dataset build BAG... -o DIR --robot so101 --fps 10 --image-size 96
    vla-ros dataset show DIR
    vla-ros dataset check DIR               exit status 1 if it has errors
"""

import argparse
import json
from collections import Counter
from dataclasses import asdict, fields
from functools import partial

import numpy as np
from rich.progress import BarColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from vla_ros.bags.build import build_dataset
from vla_ros.bags.episodes import CUTS, CutOptions
from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.terminal import Terminal, progress
from vla_ros.core.text import say
from vla_ros.datasets.check import ERROR, Finding, check
from vla_ros.datasets.contact_sheet import contact_sheet
from vla_ros.datasets.instructions import KINDS
from vla_ros.datasets.lerobot import Dataset

TIMES = (TimeElapsedColumn(), "left:", TimeRemainingColumn())
BAR = ("{task.description}", BarColumn(), "{task.percentage:.0f} %", *TIMES)
DEFAULT_FPS = 10.0
MOST_OF_A_KIND = 10  # findings in the table


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True)
    build = commands.add_parser("build", help="make a dataset from bags")
    build.add_argument("bags", nargs="+", metavar="BAG")
    options.output(build, "new folder; it appears when it is complete", required=True)
    build.add_argument("--image-size", type=int, nargs="+", metavar="PX",
                       help="store images scaled to fit into HEIGHT WIDTH or a square, aspect kept; give what the "
                       "policy sees (default: as recorded)")  # fmt: skip
    build.add_argument("--skip-bad", action="store_true", help="leave out bad episodes instead of refusing all")
    add_cut_arguments(build)
    build.add_argument("--fps", type=float, help=f"the policy's clock, Hz (default: {DEFAULT_FPS:g})")
    show = commands.add_parser("show", help="show a summary and draw a contact sheet")
    show.add_argument("dataset")
    options.output(show, "contact sheet to write (default: NAME_contact_sheet.png here; '' = none)", metavar="PNG")
    show.add_argument("--instruction", choices=KINDS, default=KINDS[0], help="which of the texts of a row to show")
    show.add_argument("--episodes", type=int, default=8, help="number of episodes in the contact sheet")
    test = commands.add_parser("check", help="list what is wrong or suspicious, by episode and row")
    test.add_argument("dataset")
    test.add_argument("--rows-only", action="store_true", help="do not check the images, as training does")
    test.add_argument("--json", action="store_true", help="print every finding as JSON")


def add_cut_arguments(parser: argparse._ActionsContainer, required: bool = True) -> None:
    """Options that say what an episode is; `cut_options` reads them."""
    defaults = CutOptions()
    options.robot(parser, required=required)
    options.namespace(parser, "namespace of the robot's topics in the bag")
    parser.add_argument("--by", choices=CUTS, default=defaults.by, help="what divides the bag into episodes")
    parser.add_argument("--instruction", help="instruction of all episodes, instead of the recorded ones")
    parser.add_argument("--marker", metavar="TOPIC", help="topic of type std_msgs/String or Bool, for --by marker")
    parser.add_argument("--succeeded", action="store_true", help="only episodes with the outcome success")
    parser.add_argument("--max-gap", type=float, default=defaults.max_gap, metavar="S",
                        help="oldest image or joint state that a frame may use")  # fmt: skip
    parser.add_argument("--max-command-gap", type=float, default=defaults.max_command_gap, metavar="S",
                        help="oldest command that a frame may use")  # fmt: skip
    parser.add_argument("--min-seconds", type=float, default=defaults.min_seconds, help="refuse shorter episodes")


def cut_options(args: argparse.Namespace) -> CutOptions:
    names = {item.name for item in fields(CutOptions)}
    return CutOptions(**{name: value for name, value in vars(args).items() if name in names})


def main(args: argparse.Namespace) -> int:
    return {"build": _build, "show": _show, "check": _check}[args.action](args)


def _build(args: argparse.Namespace) -> int:
    from vla_ros.policies.images import resize_within

    robot = RobotSpec.load(args.robot)
    cameras = ", ".join(f"{camera.name} {camera.rate:g} Hz" for camera in robot.cameras)
    why = f"the default, the robot file's cameras: {cameras or 'none'}; --fps sets another"
    args.fps, why = (DEFAULT_FPS, why) if args.fps is None else (args.fps, "--fps")
    cuts, resize = cut_options(args), None
    say(f"{args.fps:g} frames a second ({why}); step_dt of a policy trained on them is {1 / args.fps:.4g} s")
    if args.image_size:
        if len(args.image_size) > 2 or min(args.image_size) < 1:
            raise InputError(f"--image-size {args.image_size}, expected HEIGHT WIDTH or one number, in pixels")
        resize = partial(resize_within, height=args.image_size[0], width=args.image_size[-1])
    with progress(*BAR) as bar:
        task = bar.add_task("reading", total=None)
        report = build_dataset(
            args.bags, args.output, robot, cuts, args.namespace, resize, args.skip_bad,
            lambda done, total, what: bar.update(task, completed=done, total=total, description=what),
        )  # fmt: skip
        bar.update(task, completed=1, total=1)
    for note in sorted(report.notes):
        say(note)
    for problem in report.problems:
        say(f"left out: {problem}")
    say(f"{report.episodes} episodes, {report.frames} frames ({report.frames / args.fps:.1f} s) in {report.output}")
    return 0


def _show(args: argparse.Namespace) -> int:
    dataset = Dataset(args.dataset, args.instruction)
    console = Terminal()
    console.print(
        f"{dataset.path}: {len(dataset.episodes)} episodes, {len(dataset)} frames at {dataset.fps:g} Hz "
        f"({len(dataset) / dataset.fps:.1f} s), robot {dataset.robot_type or 'unknown'}",
    )
    for camera in dataset.camera_names:
        height, width = dataset.image_size(camera)
        console.print(f"camera {camera}: {width}x{height}")
    for name in dataset.streams:
        console.print(f"depth {name}" if name in dataset.depth_names else f"stream {name}")
    for name, why in dataset.unreadable.items():
        console.print(f"not read: {name}: {why}", soft_wrap=True)
    if said := _people(dataset):
        console.print(said)
    if dataset.has_subtasks:
        console.print("its rows have subtasks too: `instruction: subtask` in a training config uses them")
    for name in (name for name in dataset.info["features"] if name.startswith("language_")):
        console.print(f"not read: {name}: instructions are the tasks'")
    texts: dict[str, list[int]] = {}
    outcomes: dict[str, Counter[str]] = {}
    for episode in dataset.episodes:
        lengths = np.bincount(dataset.task_of[episode.start : episode.stop], minlength=len(dataset.tasks))
        for text in episode.instructions:
            texts.setdefault(text, []).append(int(lengths[dataset.tasks.index(text)]))
            outcomes.setdefault(text, Counter())[dataset.outcome(episode) or "unknown"] += 1
    table = Table("instruction", "episodes", "frames", "shortest s", "longest s", "outcomes")
    for text, lengths in texts.items():
        said = ", ".join(f"{count} {name}" for name, count in sorted(outcomes[text].items()))
        spans = (f"{min(lengths) / dataset.fps:.1f}", f"{max(lengths) / dataset.fps:.1f}")
        table.add_row(text, str(len(lengths)), str(sum(lengths)), *spans, said)
    console.print(table)
    names = ("min", "q01", "mean", "q99", "max", "std")
    table = Table("joint", "", *names)
    kinds = (("state", "observation.state", dataset.joint_names), ("action", "action", dataset.action_names))
    last = ""
    for joint in dict.fromkeys((*dataset.joint_names, *dataset.action_names)):
        for kind, key, joints in kinds:
            for j in (j for j, name in enumerate(joints) if name == joint):
                values = [dataset.statistics[key][name][j] for name in names]
                table.add_row("" if joint == last else joint, kind, *(f"{value:.3f}" for value in values))
                last = joint
    console.print(table)
    sheet = f"{dataset.path.resolve().name}_contact_sheet.png" if args.output is None else args.output
    if sheet:
        contact_sheet(dataset, sheet, args.episodes)
        console.print(f"contact sheet: {sheet}", soft_wrap=True)
    return 0


def _people(dataset: Dataset) -> str:
    """How episodes ended, and what persons commanded; "" if neither is known."""
    outcomes = Counter(dataset.outcome(episode) or "unknown" for episode in dataset.episodes)
    said = [f"outcomes: {', '.join(f'{count} {name}' for name, count in sorted(outcomes.items()))}"]
    if dataset.knows_persons:
        episodes = sum(bool(dataset.by_person[episode.start : episode.stop].any()) for episode in dataset.episodes)
        share = dataset.by_person.mean()
        said.append(f"commanded by a person: {dataset.by_person.sum()} frames ({share:.0%}) of {episodes} episodes")
    return "; ".join(said) if set(outcomes) != {"unknown"} or dataset.knows_persons else ""


def _check(args: argparse.Namespace) -> int:
    people = ""
    try:
        dataset = Dataset(args.dataset)
        people = _people(dataset)
        with progress(*BAR) as bar:
            task = bar.add_task("pictures", total=None)
            found = check(
                dataset, not args.rows_only, lambda done, total: bar.update(task, completed=done, total=total)
            )
    except InputError as error:
        found = [Finding(ERROR, "unreadable", str(error))]
    errors = sum(finding.level == ERROR for finding in found)
    if args.json:
        rows = {"people": people, "errors": errors, "warnings": len(found) - errors}
        rows |= {"findings": [asdict(finding) for finding in found]}
        say(json.dumps({"dataset": args.dataset} | rows, indent=1))
        return bool(errors)
    table = Table("", "what", "episode", "row", "finding")
    kinds = Counter((finding.level, finding.kind) for finding in found)
    shown: Counter[tuple[str, str]] = Counter()
    for finding in found:
        kind = finding.level, finding.kind
        shown[kind] += 1
        if shown[kind] <= MOST_OF_A_KIND:
            places = ("" if place is None else str(place) for place in (finding.episode, finding.row))
            table.add_row(*kind, *places, finding.text)
        elif shown[kind] == MOST_OF_A_KIND + 1:
            table.add_row(*kind, "", "", f"{kinds[kind] - MOST_OF_A_KIND} more (--json has them all)")
    console = Terminal()
    if found:
        console.print(table)
    if people:
        console.print(people)
    left = "; the images were not checked" if args.rows_only else ""
    console.print(f"{args.dataset}: {errors} errors, {len(found) - errors} warnings{left}", soft_wrap=True)
    return bool(errors)
