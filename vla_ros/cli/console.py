"""The operator's console: one page for a browser, served from this machine.

    vla-ros console --robot so101                         # http://localhost:8080/
    vla-ros console --robot so101 --listen 0.0.0.0        # other machines too; the address with its token is printed

A page can only watch until it is armed, but its e-stop always works. The e-stop depends on the network and on this
machine: it is no substitute for the hardware's own emergency stop.
"""

import argparse
from dataclasses import fields
from typing import Any

from vla_ros.cli import options
from vla_ros.core.discovery import discovery_line
from vla_ros.core.errors import InputError
from vla_ros.core.resources import resolve_robot
from vla_ros.core.text import say


def arguments(parser: argparse.ArgumentParser) -> None:
    options.robot(parser, default="so101")
    parser.add_argument("--policy", default="",
                        help="checkpoint or policy file that is running, for the checks and for what the policy sees")
    parser.add_argument("--compare", default="", metavar="CHECKPOINT",
                        help="second checkpoint or policy file, to show beside --policy when a recording is replayed")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on; 0 takes a free one")
    parser.add_argument("--listen", default="127.0.0.1", metavar="HOST",
                        help="address to listen on; 0.0.0.0: all (default: 127.0.0.1, this machine only)")
    parser.add_argument("--token-file", default="", metavar="FILE",
                        help="file whose first line is the token (default: a new token, or none for this machine only)")
    parser.add_argument("--recordings", default="recordings", metavar="FOLDER",
                        help="folder for recordings made from the page")
    options.namespace(parser)
    options.use_sim_time(parser, "the robot is a simulator that publishes /clock")


def main(args: argparse.Namespace) -> int:
    from rclpy.lifecycle import TransitionCallbackReturn
    from rclpy.parameter import Parameter

    from vla_ros.graph.process import check_namespace
    from vla_ros.nodes.base import spin_node
    from vla_ros.nodes.console_node import ConsoleNode, ConsoleParameters
    from vla_ros.nodes.security import enclave_arguments

    check_namespace(args.namespace)
    robot = str(resolve_robot(args.robot))
    say(discovery_line())

    class CommandLineConsole(ConsoleNode):
        def refused(self, reason: str) -> None:
            self.reason = reason

    def make() -> Any:
        names = {item.name for item in fields(ConsoleParameters)} & set(vars(args))
        values = {name: getattr(args, name) for name in names} | {"robot": robot, "use_sim_time": args.use_sim_time}
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = CommandLineConsole(namespace=args.namespace or None, parameter_overrides=overrides)
        for trigger in (node.trigger_configure, node.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                node.destroy_node()
                raise InputError(node.reason)
        return node

    return spin_node(make, enclave_arguments("console_node"))
