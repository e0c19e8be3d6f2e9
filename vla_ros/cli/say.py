"""Give the robot an instruction, or stop it, and wait until policy and executor follow.

    vla-ros say "pick up the red cube"
    vla-ros say --stop

After a stop of more than 2 s the robot moves again once an instruction is given, the same or a new one (parameter
`resume` of executor_node). --stop does not wait for the nodes; it is repeated until the executor has heard it. If
neither node is running (while a person demonstrates), the instruction goes to any subscriber, such as a recorder.
Like `ros2 topic pub --once -w 3 /instruction std_msgs/msg/String "data: 'pick up the red cube'"`, but it waits for the
nodes by name and says whether they follow. `vla-ros task` also waits for the result.
"""

import argparse
import time

from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.instruction import instruction_id, instruction_problem
from vla_ros.core.text import say

LISTENERS = ("policy_node", "executor_node")
_POLICY_TIME = 2.0  # s for the policy to receive a stop too; the executor has stopped by then
_REPEAT = 0.05  # s between two stops until one is followed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instruction", nargs="?", metavar="TEXT", help="instruction, a sentence")
    parser.add_argument("--stop", action="store_true", help="withdraw the instruction: the robot brakes and holds")
    options.namespace(parser)
    options.wait(parser, "for the nodes, and again for them to follow")


def main(args: argparse.Namespace) -> int:
    text = (args.instruction or "").strip()
    if bool(text) == args.stop:
        raise InputError(f"instruction {text!r}, --stop {'' if args.stop else 'not '}given: expected one of the two")
    if problem := instruction_problem(text):
        raise InputError(problem)

    from rclpy.duration import Duration
    from std_msgs.msg import String

    from vla_ros.core.discovery import discovery_time
    from vla_ros.graph.peer import peer
    from vla_ros.graph.watch import Watch
    from vla_ros.nodes.commands import node_name
    from vla_ros.nodes.qos import COMMAND_QOS

    with peer(args.namespace) as graph:
        watch, wanted, identity = Watch(graph), {graph.full_name(name) for name in LISTENERS}, instruction_id(text)
        publisher = graph.node.create_publisher(String, "instruction", COMMAND_QOS)
        discovered = time.monotonic() + discovery_time()

        def listeners() -> set[str]:
            return set(map(node_name, graph.node.get_subscriptions_info_by_topic(publisher.topic_name)))

        def there() -> bool:
            if None in taken():
                return False
            return wanted <= listeners() and publisher.get_subscription_count() >= len(wanted)

        def others_alone() -> bool:  # a recorder, while a person demonstrates
            return discovered < time.monotonic() and not wanted & listeners() and publisher.get_subscription_count() > 0

        def taken() -> list[int | None]:  # number of instructions that each has received
            return [said and said.instructions for said in (watch.policy, watch.executor)]

        def followed() -> bool:
            told = [watch.executor] if args.stop else [watch.policy, watch.executor]
            news = args.stop or all(now != then for now, then in zip(taken(), before, strict=True))
            return news and all(said is not None and said.instruction_id == identity for said in told)

        def policy_too() -> bool:  # otherwise it continues to make chunks that are not followed
            gone = discovered < time.monotonic() and graph.full_name("policy_node") not in listeners()
            return gone or watch.policy is not None and watch.policy.instruction_id == identity

        if args.stop:  # a stop does not wait for the nodes: it is repeated until the executor confirms it
            graph.node.create_timer(_REPEAT, lambda: publisher.publish(String(data="")))
        elif not graph.wait_until(lambda: there() or others_alone(), args.wait):
            silent = " and ".join(sorted(wanted - listeners())) or "somebody"
            raise InputError(f"{publisher.topic_name}: {silent} did not listen within {args.wait:g} s, "
                             "expected `vla-ros run` or a launch file to have started it")
        else:
            before = taken()
            publisher.publish(String(data=text))
        follows = graph.wait_until(lambda: followed() or others_alone(), args.wait)
        if args.stop and follows and not others_alone():
            graph.wait_until(policy_too, min(args.wait, _POLICY_TIME))
        if others_alone():
            publisher.wait_for_all_acked(Duration(seconds=args.wait))  # of a node that would otherwise hang for ever
            say(f"sent to {', '.join(sorted(listeners()))}; neither policy_node nor executor_node is running")
            return 0
        if summary := watch.summary():  # empty if no node was heard
            say(summary)
        if not follows:
            who = "the executor" if args.stop else "both"
            raise InputError(f"instruction {text!r}: not followed by {who} within {args.wait:g} s")
    return 0
