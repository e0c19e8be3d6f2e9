"""Publish a bag, or evaluate policies on it without ROS.

    vla-ros replay BAG --rate 0.5 --start 10 --loop --clock
    vla-ros replay BAG... --robot so101 --policy CKPT [--policy CKPT2] -o report
"""

import argparse
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import BarColumn, TimeRemainingColumn
from rich.table import Table

from vla_ros.bags.compare import compare
from vla_ros.bags.evaluate import Evaluation, evaluate
from vla_ros.bags.measures import JointMeasure, measure_of
from vla_ros.bags.player import PlayOptions
from vla_ros.bags.reader import Bag
from vla_ros.cli import options
from vla_ros.cli.dataset import add_cut_arguments, cut_options
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.core.robot import RobotSpec
from vla_ros.core.terminal import Terminal, progress
from vla_ros.core.text import say

if TYPE_CHECKING:
    from vla_ros.bags.overlay import Overlay
    from vla_ros.runtime.session import PolicySession

_PUBLISHING = ("rate", "start", "duration", "loop", "topics", "commands", "clock", "wait")
_EVALUATION = ("output", "overlay", "device", "tokenizer", "urdf", "every", "seed", "skip_bad", "by", "instruction",
               "marker", "succeeded", "max_gap", "max_command_gap", "min_seconds")  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", nargs="+", metavar="BAG")
    play = parser.add_argument_group("publishing")
    play.add_argument("--rate", type=float, default=1.0, help="playback speed; 1: as recorded")
    play.add_argument("--start", type=float, default=0.0, metavar="S",
                      help="where to start, s after the beginning of the bag")
    play.add_argument("--duration", type=float, metavar="S", help="how much of the bag to play, s")
    play.add_argument("--loop", action="store_true", help="start again at the end")
    play.add_argument("--topics", nargs="+", metavar="TOPIC", help="topics to publish (default: the sensors)")
    play.add_argument("--commands", action="store_true",
                      help="publish the command topics of the robot file as well: the robot moves")
    play.add_argument("--clock", action="store_true", help="publish /clock")
    play.add_argument("--wait", action="store_true", help="start when every topic has a subscriber, /clock included")
    test = parser.add_argument_group("open-loop evaluation")
    test.add_argument("--policy", action="append", default=[], metavar="CKPT",
                      help="checkpoint to evaluate; give two to compare them")
    options.output(test, "folder for report.json and errors.png")
    test.add_argument("--overlay", action="store_true",
                      help="with -o: overlay.json and pictures as well, which the operator's console shows")
    options.device(test)
    test.add_argument("--tokenizer", help="folder of the tokenizer's files (default: the checkpoint's own)")
    test.add_argument("--urdf", metavar="FILE", help="URDF of the robot: actions of a tool are compared in m and rad")
    test.add_argument("--every", type=int, default=1, help="ask for a chunk at every n-th step of the policy")
    test.add_argument("--seed", type=int, default=0, help="seed for sampling actions")
    test.add_argument("--skip-bad", action="store_true", help="leave out bad episodes instead of refusing all")
    add_cut_arguments(test, required=False)


def main(args: argparse.Namespace) -> int:
    if args.policy:
        options.check_unused(args, _PUBLISHING,
                             "with --policy, expected only one of them: policies are evaluated, nothing is published")
        return _evaluate(args)
    options.check_unused(args, _EVALUATION, "without --policy, expected both or neither: it is for the "
                         "evaluation of policies, and without them the bag is published")
    return _publish(args)


# Publishing


def _publish(args: argparse.Namespace) -> int:
    import rclpy

    from vla_ros.nodes.replay_node import ReplayNode
    from vla_ros.nodes.security import enclave_arguments, secured
    from vla_ros.nodes.shared_memory import make_room_for_pictures

    if len(args.bags) != 1:
        raise InputError(f"{len(args.bags)} bags, expected one (several are evaluated with --policy)")
    robot = RobotSpec.load(args.robot) if args.robot else None
    options = PlayOptions(
        args.rate, args.start, args.duration, args.loop, args.topics, args.commands, args.clock, robot, args.namespace
    )
    with Bag(args.bags[0]) as bag:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        enclave = enclave_arguments("replay_node")
        make_room_for_pictures()
        with secured(enclave):
            rclpy.init(args=enclave, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
            node = ReplayNode(bag, options)
        try:
            for note in bag.notes:
                say(note)
            for topic, reason in node.left_out.items():
                say(f"{topic}: not published: {reason}")
            if args.wait:
                node.wait_for_subscribers()
            count = node.play()
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    say(f"{count} messages published")
    return 0


# Evaluation


class SessionPredictor:
    """A checkpoint for the evaluation; each chunk has its own noise, so that the order does not matter."""

    def __init__(
        self, name: str, session: "PolicySession", measure: JointMeasure, axes: Mapping[str, str] | None = None
    ) -> None:
        """`measure`: which part of its chunks is compared; `axes`: of the base, as `RobotSpec.path_axes`: a path is
        compared as the velocities that drive it."""
        self.name, self._session = name, session
        self.step_dt = session.processor.step_dt
        self.n_obs_steps = 1 - min(min(offsets) for offsets in session.processor.steps().values())
        self.paced = session.traits.paced
        self.begin = session.begin
        self._measure, self._axes = measure, axes

    def predict(self, steps: Sequence[Observation], seed: int) -> np.ndarray:
        from vla_ros.policies.path_actions import as_velocities
        from vla_ros.runtime.history import make_sample

        sample = make_sample(steps, self._session.processor, steps[-1].instruction)
        self._session.seed(seed)
        targets = as_velocities(self._session.infer([sample])[0].targets, self._axes or {}, self.step_dt)
        return self._measure.predicted(targets, steps[-1].state)


def _evaluate(args: argparse.Namespace) -> int:
    from vla_ros.runtime.serving import open_session

    if not args.robot:
        raise InputError("--robot: missing, expected the robot file")
    if len(args.policy) > 2:
        raise InputError(f"{len(args.policy)} policies, expected one or two")
    robot = RobotSpec.load(args.robot)
    names = [Path(path).name or path for path in args.policy]
    if len(set(names)) < len(names):
        names = list(args.policy) if args.policy[0] != args.policy[1] else [f"{name} ({k + 1})"
                                                                           for k, name in enumerate(names)]  # fmt: skip
    sessions = {name: open_session(path, robot, args.device, tokenizer=args.tokenizer)
                for name, path in zip(names, args.policy, strict=True)}
    tools = [name for name, session in sessions.items()
             if getattr(getattr(session.processor, "embodiment", None), "tool", None)]
    measure = measure_of(robot, tools, args.urdf)
    predictors = [SessionPredictor(name, session, measure, robot.path_axes) for name, session in sessions.items()]
    options = cut_options(args)
    overlay = _overlay(args, robot, measure, predictors)
    for path in args.bags:
        with Bag(path) as bag:
            for note in bag.notes:
                say(note)
    with progress("chunks", BarColumn(), "{task.percentage:.0f} %", TimeRemainingColumn(), transient=True) as bar:
        task = bar.add_task("chunks", total=None)
        evaluations, problems = evaluate(
            args.bags, robot, predictors, options, args.namespace, args.every, args.seed, args.skip_bad,
            lambda done, total: bar.update(task, completed=done, total=total), measure,
            overlay.take if overlay else None,
        )  # fmt: skip
    comparison = compare(evaluations[0], evaluations[1], args.seed) if len(predictors) == 2 else None
    for problem in problems:
        say(f"left out: {problem}")
    print_tables(evaluations, Terminal())
    if comparison is not None:
        say(comparison.verdict)
    if overlay:
        say(f"overlay: {overlay.finish(evaluations, comparison.verdict if comparison else '')}")
    if args.output:
        from vla_ros.bags.report import write_report

        say(f"report.json and errors.png in {write_report(args.output, evaluations, comparison)}")
    return 0


def _overlay(
    args: argparse.Namespace, robot: RobotSpec, measure: JointMeasure, predictors: Sequence[SessionPredictor]
) -> "Overlay | None":
    if not args.overlay:
        return None
    from vla_ros.bags.overlay import Overlay

    if not args.output:
        raise InputError("--overlay: -o FOLDER is missing, expected where to write it")
    if measure.names != robot.joint_names:
        raise InputError("--overlay: draws joints, and a policy's actions are poses of the tool; expected policies of "
                         "joint positions")
    return Overlay(args.output, robot, [predictor.name for predictor in predictors], predictors[0].step_dt)


def print_tables(evaluations: Sequence[Evaluation], console: Terminal) -> None:
    """Print the mean absolute error by joint, by time ahead and by instruction."""
    one = evaluations[0]
    console.print(
        f"{len(one.errors)} chunks of {len(np.unique(one.episodes))} episodes; mean |predicted - executed|, "
        "'hold still' predicts that nothing moves",
    )
    if one.rows and one.rows < max(e.errors.shape[1] for e in evaluations):
        console.print(f"by joint and by instruction: of the first {one.rows} rows, which the chunks of both have")
    names = [e.name for e in evaluations]
    table = Table("joint", "unit", *names, title="by joint", title_justify="left")
    for j, (name, unit) in enumerate(zip(one.joint_names, one.units, strict=True)):
        table.add_row(name, unit, *(f"{e.per_joint[j]:.4f}" for e in evaluations))
    table.add_row("all", "% of range", *(f"{100 * e.score:.3f}" for e in evaluations))
    console.print(table)
    table = Table("s ahead", *names, title="by time ahead, % of the joint ranges", title_justify="left")
    for k in range(max(e.errors.shape[1] for e in evaluations)):
        values = [np.mean(e.per_step[k] / e.ranges) if k < len(e.per_step) else np.nan for e in evaluations]
        table.add_row(f"{k * one.step_dt:.2f}", *("" if np.isnan(v) else f"{100 * v:.3f}" for v in values))
    console.print(table)
    table = Table("instruction", "chunks", *names, title="by instruction, % of the joint ranges", title_justify="left")
    columns = [e.per_instruction() for e in evaluations]
    for text, (chunks, _) in columns[0].items():
        table.add_row(text, str(chunks), *(f"{100 * column[text][1]:.3f}" for column in columns))
    console.print(table)
