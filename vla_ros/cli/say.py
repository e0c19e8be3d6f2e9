"""Give the robot an instruction, or stop it, and wait until policy and executor follow.

    vla-ros say "pick up the red cube"
    vla-ros say --stop

Where neither is there (while a person demonstrates), whoever listens is told, a recorder for example.
As `ros2 topic pub --once -w 3 /instruction std_msgs/msg/String "data: 'pick up the red cube'"`, but it waits for the
nodes by name and says whether they follow. `vla-ros task` waits for the result too.
"""

import argparse
import time

from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.instruction import instruction_id, instruction_problem
from vla_ros.core.text import say

LISTENERS = ("policy_node", "executor_node")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instruction", nargs="?", metavar="TEXT", help="what the robot shall do")
    parser.add_argument("--stop", action="store_true", help="take the instruction back: the robot brakes and holds")
    options.namespace(parser)
    options.wait(parser, "for the nodes, and again for them to follow")


def main(args: argparse.Namespace) -> int:
    text = (args.instruction or "").strip()
    if bool(text) == args.stop:
        raise InputError(f"instruction {text!r}, --stop {'' if args.stop else 'not '}given: expected one of the two")
    if problem := instruction_problem(text):
        raise InputError(problem)

    from std_msgs.msg import String

    from vla_ros.core.discovery import discovery_time
    from vla_ros.graph.peer import peer
    from vla_ros.graph.watch import Watch
    from vla_ros.nodes.commands import node_name
    from vla_ros.nodes.qos import COMMAND_QOS

    with peer(args.namespace) as graph:
        watch = Watch(graph)
        publisher = graph.node.create_publisher(String, "instruction", COMMAND_QOS)
        wanted = {graph.full_name(name) for name in LISTENERS}

        def listeners() -> set[str]:
            return set(map(node_name, graph.node.get_subscriptions_info_by_topic(publisher.topic_name)))

        def matched() -> bool:
            return wanted <= listeners() and publisher.get_subscription_count() >= len(wanted)

        def others_alone() -> bool:  # a recorder, while a person shows what is to be learned
            return discovered < time.monotonic() and not wanted & listeners() and publisher.get_subscription_count() > 0

        discovered = time.monotonic() + discovery_time()
        if not graph.wait_until(lambda: matched() or others_alone(), args.wait):
            silent = " and ".join(sorted(wanted - listeners())) or "somebody"
            raise InputError(f"{publisher.topic_name}: {silent} did not listen within {args.wait:g} s, "
                             "expected `vla-ros run` or a launch file to have started it")
        if not matched():
            publisher.publish(String(data=text))
            publisher.wait_for_all_acked()
            say(f"told {', '.join(sorted(listeners()))}; there is neither policy_node nor executor_node")
            return 0
        publisher.publish(String(data=text))

        def followed() -> bool:
            told = (watch.policy, watch.executor)
            return all(said is not None and said.instruction_id == instruction_id(text) for said in told)

        follows = graph.wait_until(followed, args.wait)
        say(watch.summary())
        if not follows:
            raise InputError(f"instruction {text!r}: not followed by both within {args.wait:g} s")
    return 0
