"""Take over from the policy, or give back: with a leader arm, or steering by hand in this terminal.

    vla-ros takeover                                 # from now on the robot follows `takeover_topic` of executor_node
    vla-ros takeover --end
    vla-ros takeover --keyboard --robot so101        # steers the tool, or joint by joint; shows its keys
    vla-ros takeover --joy joy --robot so101         # with a gamepad: ros2 run joy joy_node
    vla-ros takeover --keyboard --robot lekiwi --base --topic /leader/joint_states    # the base, beside a leader arm

The first two are `ros2 service call /executor_node/take_over std_srvs/srv/SetBool "{data: true}"`, and with `false`.
Keyboard and gamepad are such a source themselves, within all limits of the executor; when they end, they give back.
"""

import argparse
import sys
from contextlib import nullcontext
from typing import Any

from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.text import say


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--end", action="store_true", help="give control back to the policy")
    by_hand = parser.add_argument_group("steering by hand")
    by_hand.add_argument("--keyboard", action="store_true", help="steer with the keys of this terminal")
    by_hand.add_argument("--joy", metavar="TOPIC", help="steer with a gamepad: topic of its sensor_msgs/Joy")
    options.robot(by_hand)
    by_hand.add_argument("--urdf", metavar="FILE",
                         help="URDF of the robot, to move its tool (default: the one on the topic robot_description)")
    by_hand.add_argument("--joints", action="store_true", help="steer joints, also if the robot file has a tool")
    by_hand.add_argument("--base", action="store_true",
                         help="steer only the base, beside a leader arm that publishes on --topic")
    by_hand.add_argument("--topic", default="executor_node/takeover/joint_command", metavar="TOPIC",
                         help="where to publish: takeover_topic of executor_node")
    options.namespace(parser)
    options.wait(parser, "for the executor, and for the URDF")


def main(args: argparse.Namespace) -> int:
    hands = args.keyboard + (args.joy is not None)
    if hands + args.end > 1:
        raise InputError("--keyboard, --joy and --end: expected one of them")
    if not hands:
        options.check_unused(args, ("robot", "urdf", "joints", "base", "topic"),
                             "without --keyboard and --joy, expected one of these: without them the executor follows "
                             "the source on its takeover_topic")
    return _steer(args) if hands else _ask(args)


def _ask(args: argparse.Namespace) -> int:
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


def _steer(args: argparse.Namespace) -> int:
    from vla_ros.control.limits import Limits
    from vla_ros.control.steering import Steering
    from vla_ros.control.tool_arm import ToolArm
    from vla_ros.core.robot import RobotSpec
    from vla_ros.graph.handles import Keys, Pad
    from vla_ros.graph.peer import peer
    from vla_ros.graph.steered import Steered

    if not args.robot:
        raise InputError("--robot: missing, expected the robot file: its joints, tool and base are steered")
    robot = RobotSpec.load(args.robot)
    limits = Limits.merge(robot)
    if any(group.of_tool for group in robot.groups):
        raise InputError(f"robot {robot.name}: its tool is commanded, and takeovers are joint positions, expected a "
                         "robot file with a command group of joints")
    if args.base and not robot.base_groups:
        raise InputError(f"--base: robot {robot.name} has none, expected a robot file with a base")
    keys = Keys(sys.stdin.fileno()) if args.keyboard else None
    with peer(args.namespace, enclave="takeover") as graph:
        arm = None
        if robot.tool is not None and not args.joints and not args.base:
            arm = ToolArm(robot.tool, args.urdf or _description(graph, args.wait), limits)
        steering, handle = Steering(limits, arm, robot.base_axes, args.base), keys or Pad(graph.node, args.joy)
        steered = Steered(graph, args.topic, steering, handle)
        if not graph.wait_until(lambda: steered.there, args.wait):
            raise InputError(f"{graph.full_name('executor_node')} did not say within {args.wait:g} s where the joints "
                             f"{', '.join(limits.names)} are, expected it to be configured, of the same robot file")
        if not graph.wait_until(lambda: steered.read, args.wait):
            raise InputError(f"--topic {steered.topic}: {graph.full_name('executor_node')} does not subscribe to it, "
                             "expected its takeover_topic: otherwise another source would take over")
        if not args.base and (rivals := steered.rivals):
            raise InputError(f"--topic {steered.topic}: {rivals[0]} publishes on it too, expected one source of each "
                             "joint: end it, or steer a base alone beside it, with --base")
        say(handle.help(steering, arm is not None))
        with keys or nullcontext():
            steered.run()
    return 0


def _description(graph: Any, patience: float) -> str:
    """The URDF of the topic robot_description. Raises InputError where there is none."""
    from std_msgs.msg import String

    from vla_ros.control.urdf import MOST_BYTES
    from vla_ros.nodes.bounded import subscribe_bounded
    from vla_ros.nodes.qos import STATUS_QOS

    heard: list[str] = []
    subscribe_bounded(graph.node, String, "robot_description", lambda message: heard.append(message.data), STATUS_QOS,
                      limit=MOST_BYTES)
    if not graph.wait_until(lambda: heard, patience):
        raise InputError(f"robot_description: no URDF within {patience:g} s, which moves the tool; expected "
                         "robot_state_publisher, --urdf FILE, or --joints to steer joint by joint")
    return heard[-1]
