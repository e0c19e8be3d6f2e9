"""Let a leader arm (or another source on `takeover_topic` of executor_node) take over from the policy, or give control
back.

    vla-ros takeover
    vla-ros takeover --end

As `ros2 service call /executor_node/take_over std_srvs/srv/SetBool "{data: true}"`, and with `false`.
"""

import argparse

from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.text import say


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--end", action="store_true", help="give control back: the policy continues with new "
                                                           "observations")
    options.namespace(parser)
    options.wait(parser, "for the executor")


def main(args: argparse.Namespace) -> int:
    from std_srvs.srv import SetBool

    from vla_ros.graph.peer import peer

    with peer(args.namespace, enclave="takeover") as graph:
        client = graph.node.create_client(SetBool, "executor_node/take_over")
        if not graph.wait_until(client.service_is_ready, args.wait):
            name = graph.full_name("executor_node")
            raise InputError(f"{name} did not answer within {args.wait:g} s, expected it to be configured")
        answer = graph.call(client, SetBool.Request(data=not args.end))
    if not answer.success:
        raise InputError(answer.message)
    say(answer.message)
    return 0
