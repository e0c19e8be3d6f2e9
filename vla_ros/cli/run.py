"""Run policy and executor for a real robot: the nodes of vla.launch.py, as processes of this command.

    vla-ros run --policy CHECKPOINT --robot my_robot.yaml
    vla-ros say "touch the red cube"

The robot's drivers must be running: cameras, joint states and controllers on the topics of the robot file. Ctrl-C ends
the nodes, after the robot has braked within its limits.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla_ros.cli import options
from vla_ros.core.discovery import discovery_line
from vla_ros.core.resources import resolve_robot
from vla_ros.core.terminal import Terminal
from vla_ros.nodes.parameter_files import check_sections, means, sections


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", required=True, help="checkpoint folder, policy file, or ws://HOST:PORT of a server")
    options.robot(parser, required=True)
    options.device(parser, default=None)
    options.dtype(parser, default=None)
    options.engine(parser, default=None)
    options.num_steps(parser)
    parser.add_argument("--mode", choices=("ensemble", "latest", "rtc"),
                        help="how overlapping chunks are blended (default: ensemble)")
    parser.add_argument("--instruction", default="", help="instruction to publish once everything is active")
    parser.add_argument("--dry-run", action="store_true",
                        help="do everything except publish commands; a parameter file can ask for it too")
    parser.add_argument("--inactive", action="store_true", help="configure the nodes without activating them")
    options.namespace(parser)
    options.params(parser)
    options.use_sim_time(parser, "the robot is a simulator that publishes /clock")
    options.output(parser, "folder for logs and parameter files (default: runs/run-DATE)", type=Path)


def node_parameters(args: argparse.Namespace, dry_run: bool) -> dict[str, dict[str, Any]]:
    """Node -> parameters that the command line sets: only options that were given, so that a parameter file may set the
    others.

    Args:
        dry_run: a parameter file asks for a dry run; the command line can ask for one, but not forbid it.
    """
    common: dict[str, Any] = {"robot": str(resolve_robot(args.robot)), "autostart": False}
    if args.use_sim_time:
        common["use_sim_time"] = True
    policy = common | {"policy": options.check_policy(args.policy)}
    policy |= {
        name: getattr(args, name)
        for name in ("device", "dtype", "engine", "num_steps") if getattr(args, name) is not None
    }
    executor = common | ({"dry_run": True} if args.dry_run or dry_run else {})
    if args.mode:
        executor["mode"] = args.mode
        policy["rtc"] = args.mode == "rtc"
    return {"policy_node": policy, "executor_node": executor, "task_node": dict(common)}


def asks_for_dry_run(files: Sequence[Path], executor: str) -> bool:
    """Whether any of the parameter files asks for a dry run, for the executor of that full name."""
    found = ((section, values.get("dry_run")) for file in files for section, values in sections(file).items())
    return any(value is True and means(section, executor) for section, value in found)


def main(args: argparse.Namespace) -> int:
    from std_msgs.msg import String

    from vla_ros.graph.processes import Graph
    from vla_ros.graph.watch import Display, Watch, grid
    from vla_ros.nodes.qos import COMMAND_QOS

    options.check_num_steps(args)
    console = Terminal()
    console.print(discovery_line(), soft_wrap=True)
    folder = args.output or Path("runs") / time.strftime("run-%Y-%m-%d-%H%M%S")
    files = [Path(path).resolve() for path in args.params]
    graph = Graph(folder, namespace=args.namespace)
    parameters = node_parameters(args, asks_for_dry_run(files, graph.full_name("executor_node")))
    for file in files:
        check_sections(file, [graph.full_name(name) for name in parameters])
    with graph:
        watch = Watch(graph)
        for name, values in parameters.items():
            graph.start(name, parameters=values, files=files)
        try:
            with console.status("loading the policy and warming it up"):
                for name in parameters:
                    graph.configure(name)
            if not args.inactive:
                with console.status("waiting for the robot"):
                    for name in parameters:
                        graph.activate_when_ready(name, math.inf, lambda words: console.print(words, soft_wrap=True))
            if args.instruction:
                publisher = graph.node.create_publisher(String, "instruction", COMMAND_QOS)
                graph.wait_for(
                    lambda: publisher.get_subscription_count() >= len(parameters), "the nodes to hear the instruction"
                )
                publisher.publish(String(data=args.instruction))
            console.print(f"running; logs in {folder}; Ctrl-C ends it")
            with Display(console) as display:
                while True:
                    graph.check()
                    display.show([grid(watch.rows())], watch.summary())
                    time.sleep(0.1)
        except KeyboardInterrupt:
            console.print("ending the nodes")
    return 0
