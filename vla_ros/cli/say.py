"""Give the robot an instruction, or stop it, and wait until policy and executor follow.

    vla-ros say "pick up the red cube"
    vla-ros say --stop

As `ros2 topic pub --once -w 3 /instruction std_msgs/msg/String "data: 'pick up the red cube'"`, but it waits for the
nodes by name and says whether they follow. `vla-ros task` waits for the result too.
"""

import argparse

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

    from vla_ros.graph.peer import peer
    from vla_ros.graph.watch import Watch
    from vla_ros.nodes.commands import node_name
    from vla_ros.nodes.qos import COMMAND_QOS

    with peer(args.namespace) as graph:
        watch = Watch(graph)
        publisher = graph.node.create_publisher(String, "instruction", COMMAND_QOS)
        wanted = {graph.full_name(name) for name in LISTENERS}

        def deaf() -> list[str]:
            heard = map(node_name, graph.node.get_subscriptions_info_by_topic(publisher.topic_name))
            return sorted(wanted - set(heard))

        def matched() -> bool:
            return not deaf() and publisher.get_subscription_count() >= len(wanted)

        if not graph.wait_until(matched, args.wait):
            silent = " and ".join(deaf()) or "somebody"
            raise InputError(f"{publisher.topic_name}: {silent} did not listen within {args.wait:g} s, "
                             "expected `vla-ros run` or a launch file to have started it")
        publisher.publish(String(data=text))

        def followed() -> bool:
            told = (watch.policy, watch.executor)
            return all(said is not None and said.instruction_id == instruction_id(text) for said in told)

        follows = graph.wait_until(followed, args.wait)
        say(watch.summary())
        if not follows:
            raise InputError(f"instruction {text!r}: not followed by both within {args.wait:g} s")
    return 0
