"""Policy and executor for a real robot: what vla.launch.py starts, as processes of this command.

    vla-ros run --policy CHECKPOINT --robot my_robot.yaml
    ros2 topic pub --once -w 2 /instruction std_msgs/msg/String '{data: touch the red cube}'

The robot's drivers run already: cameras, joint states and controllers on the topics of the robot file. Ctrl-C ends
the nodes: the robot brakes within its limits first.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from vla_ros.core.discovery import discovery_line
from vla_ros.core.records import read_mapping
from vla_ros.core.resources import resolve_robot
from vla_ros.core.terminal import Terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", required=True, help="checkpoint folder or policy file")
    parser.add_argument("--robot", required=True, help="robot file, or the name of one of those shipped (so101)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--num-steps", type=int, default=0, help="denoising steps (default: the checkpoint's)")
    parser.add_argument("--mode", default=None, choices=("ensemble", "latest", "rtc"), help="blending of chunks")
    parser.add_argument("--instruction", default="", help="publish it once everything is active")
    parser.add_argument("--dry-run", action="store_true", help="everything but the commands")
    parser.add_argument("--inactive", action="store_true", help="configure only; activate the executor yourself")
    parser.add_argument("--namespace", default="", help="of the nodes and the robot's topics")
    parser.add_argument("--params", action="append", default=[], metavar="FILE", help="ROS parameter files")
    parser.add_argument("--use-sim-time", action="store_true", help="the robot is a simulator that publishes /clock")
    parser.add_argument("--output", type=Path, help="folder for logs and parameter files (default: runs/run-DATE)")


def node_parameters(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Node -> parameters that the command line sets."""
    common = {"robot": str(resolve_robot(args.robot)), "use_sim_time": args.use_sim_time}
    policy = common | {
        "policy": str(Path(args.policy).expanduser().resolve()),
        "device": args.device,
        "dtype": args.dtype,
        "num_steps": args.num_steps,
    }
    executor = common | {"dry_run": args.dry_run}
    if args.mode:
        executor["mode"] = args.mode
        policy["rtc"] = args.mode == "rtc"
    return {"policy_node": policy, "executor_node": executor, "task_node": dict(common)}


def main(args: argparse.Namespace) -> int:
    from std_msgs.msg import String

    from vla_ros.graph.processes import Graph
    from vla_ros.graph.watch import Display, Watch, grid
    from vla_ros.nodes.qos import COMMAND_QOS

    console = Terminal()
    console.print(discovery_line(), soft_wrap=True)
    folder = args.output or Path("runs") / time.strftime("run-%Y-%m-%d-%H%M%S")
    parameters = node_parameters(args)
    files = [Path(path).resolve() for path in args.params]
    for file in files:
        read_mapping(file, "parameter file")
    with Graph(folder, namespace=args.namespace) as graph:
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
                        graph.activate_when_ready(name)
            if args.instruction:
                publisher = graph.node.create_publisher(String, "instruction", COMMAND_QOS)
                graph.wait_for(lambda: publisher.get_subscription_count() >= 2, "the nodes to hear the instruction")
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
