"""Show the lifecycle states of the nodes, or request a transition of one of them.

    vla-ros lifecycle                             all nodes with a lifecycle, and their states
    vla-ros lifecycle executor_node activate      configure, activate, deactivate, cleanup

Like `ros2 lifecycle set /executor_node activate`, but a refusal is printed with the node's reason.
"""

import argparse

from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.text import say

STARTED = "`vla-ros run` or a launch file to have started it"
TRANSITIONS = ("configure", "activate", "deactivate", "cleanup")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", nargs="?", help="name of a node (default: show all)")
    parser.add_argument("transition", nargs="?", choices=TRANSITIONS,
                        help="transition to request (default: show the state)")
    options.namespace(parser)
    options.wait(parser, "for the node")


def main(args: argparse.Namespace) -> int:
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState, GetState
    from rcl_interfaces.msg import Log
    from rclpy.logging import LoggingSeverity

    from vla_ros.core.discovery import discovery_time
    from vla_ros.graph.peer import peer
    from vla_ros.nodes.qos import profile

    with peer(args.namespace) as graph:
        node = graph.node

        def found() -> list[str]:
            """Full names of the nodes with a lifecycle in this namespace."""
            own, listed = graph.full_name(""), node.get_service_names_and_types()
            names = [name for name, types in listed if "lifecycle_msgs/srv/GetState" in types and name.startswith(own)]
            return sorted(name.removesuffix("/get_state") for name in names)

        def state(name: str) -> str:
            return graph.call(node.create_client(GetState, f"{name}/get_state"), GetState.Request()).current_state.label

        if args.node is None:
            graph.wait_until(lambda: False, discovery_time())
            if not (names := found()):
                raise InputError(f"a node with a lifecycle in namespace {graph.full_name('')}: not found within "
                                 f"{discovery_time():g} s, expected {STARTED}")
            for name in names:
                say(f"{name}: {state(name)}")
            return 0
        name = args.node if args.node.startswith("/") else graph.full_name(args.node)
        if not graph.wait_until(lambda: name in found(), args.wait):
            expected = f"one of {', '.join(found())}" if found() else STARTED
            raise InputError(f"node {name}: not found within {args.wait:g} s, expected {expected}")
        if args.transition is not None:
            said: list[str] = []
            logger = name.strip("/").replace("/", ".")

            def listen(message: Log) -> None:
                if message.name == logger and message.level >= LoggingSeverity.ERROR:
                    said.append(message.msg)

            node.create_subscription(Log, "/rosout", listen, profile(100, reliable=True))
            client = node.create_client(ChangeState, f"{name}/change_state")
            graph.wait_until(client.service_is_ready, args.wait)
            number = getattr(Transition, f"TRANSITION_{args.transition.upper()}")
            future = client.call_async(ChangeState.Request(transition=Transition(id=number)))
            graph.wait_for(future.done, f"{name} to {args.transition}", 600.0)  # a large policy loads for minutes
            if not future.result().success:
                graph.wait_until(lambda: said, 1.0)
                reason = said[-1] if said else f"it is {state(name)}, expected a state that can"
                raise InputError(f"node {name} did not {args.transition}: {reason}")
        say(f"{name}: {state(name)}")
    return 0
