"""Check whether the robot can move, and why it does not: checkpoint, robot file and running graph are compared.

    vla-ros doctor --robot so101 --policy CHECKPOINT

Each line is green, yellow (worth a look) or red, and says what to do. The command only subscribes. The exit status is 1
if a line is red.
"""

import argparse
import time
from pathlib import Path

from vla_ros.cli import options
from vla_ros.core.discovery import discovery_line, discovery_time
from vla_ros.core.robot import RobotSpec
from vla_ros.core.terminal import Terminal

LISTENED = 3.0  # s after discovery: rates are counted over more than a second


def arguments(parser: argparse.ArgumentParser) -> None:
    options.robot(parser, default="so101")
    parser.add_argument("--policy", default="", help="checkpoint folder or policy file to check (default: none)")
    options.namespace(parser)
    options.use_sim_time(parser, "the robot is a simulator that publishes /clock")


def main(args: argparse.Namespace) -> int:
    from rich.text import Text

    from vla_ros.graph.process import check_namespace
    from vla_ros.graph.processes import Graph
    from vla_ros.nodes.console.scene import Scene
    from vla_ros.nodes.doctor import RED, live_checks, machine_checks, policy_checks

    check_namespace(args.namespace)
    robot, console = RobotSpec.load(args.robot), Terminal()
    console.print(discovery_line(), soft_wrap=True)
    checks, processor = policy_checks(args.policy, robot) if args.policy else ([], None)
    with Graph(Path(), namespace=args.namespace, enclave="viewer", use_sim_time=args.use_sim_time) as graph:
        scene = Scene(graph.node, robot)
        end = time.monotonic() + discovery_time() + LISTENED
        while time.monotonic() < end:
            scene.poll(graph.node.get_clock().now().nanoseconds)
            for camera in robot.camera_names:
                scene.look(camera)
            time.sleep(0.1)
        checks += [*live_checks(scene, processor), *machine_checks(Path())]
    for check in checks:
        line = Text("● ", style=check.level)
        line.append(f"{check.title}: ", style="bold")
        line.append(check.words + (f" → {check.mend}" if check.mend else ""), style="default")
        console.print(line, soft_wrap=True)
    return 1 if any(check.level == RED for check in checks) else 0
