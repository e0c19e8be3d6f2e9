"""Press the e-stop and wait until the executor confirms it, or reset it, after which the robot may move again.

    vla-ros e-stop
    vla-ros e-stop --reset

The first acts as a button on the topic `e_stop`, the second as
`ros2 service call /executor_node/reset_e_stop std_srvs/srv/Trigger`. Both depend on the network and on this machine:
they are no substitute for the hardware's own emergency stop.
"""

import argparse
from typing import Any

from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.text import plain, say

_REPEAT = 0.05  # s between presses until one is confirmed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reset", action="store_true", help="reset the e-stop, so that the robot may move again")
    options.namespace(parser)
    options.wait(parser, "for the executor")


def main(args: argparse.Namespace) -> int:
    from vla_ros.graph.peer import peer
    from vla_ros.msg import ExecutorStatus
    from vla_ros.nodes.qos import STATUS_QOS

    with peer(args.namespace, enclave="reset_e_stop" if args.reset else "operator") as graph:
        heard: list[ExecutorStatus] = []
        graph.node.create_subscription(ExecutorStatus, "executor_node/status", heard.append, STATUS_QOS)
        return _reset(graph, args.wait) if args.reset else _press(graph, heard, args.wait)


def _press(graph: Any, heard: list, patience: float) -> int:
    from std_msgs.msg import Bool

    from vla_ros.graph.watch import LONGEST
    from vla_ros.msg import ExecutorStatus
    from vla_ros.nodes.qos import COMMAND_QOS

    publisher = graph.node.create_publisher(Bool, "e_stop", COMMAND_QOS)
    graph.node.create_timer(_REPEAT, lambda: publisher.publish(Bool(data=True)))

    def stopped() -> ExecutorStatus | None:
        return next((said for said in reversed(heard) if said.state == ExecutorStatus.E_STOPPED), None)

    if not (said := graph.wait_until(stopped, patience)):
        raise InputError(f"{graph.full_name('executor_node')} did not confirm it within {patience:g} s; "
                         "use the robot's own emergency stop")
    say(f"e-stopped: {plain(said.message, LONGEST)}; `vla-ros e-stop --reset` lets it move again")
    return 0


def _reset(graph: Any, patience: float) -> int:
    from std_srvs.srv import Trigger

    client = graph.node.create_client(Trigger, "executor_node/reset_e_stop")
    if not graph.wait_until(client.service_is_ready, patience):
        name = graph.full_name("executor_node")
        raise InputError(f"{name} did not answer within {patience:g} s, expected it to be running")
    answer = graph.call(client, Trigger.Request())
    if not answer.success:
        raise InputError(f"not reset: {answer.message}")
    say(answer.message or "e-stop reset")
    return 0
