"""Follow one instruction as a task and wait for its result; Ctrl-C cancels it.

    vla-ros task "pick up the red cube" --time-limit 30

The exit status is the task's error code (0: success; see action/RunInstruction.action).
"""

import argparse
import signal
import time
from typing import Any

from vla_ros.cli import options
from vla_ros.core.discovery import discovery_time
from vla_ros.core.errors import InputError
from vla_ros.core.terminal import Terminal
from vla_ros.core.text import plain


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instruction", help="instruction, a sentence")
    parser.add_argument("--time-limit", type=float, default=0.0, metavar="S",
                        help="time allowed for the task, s; 0: no limit (default)")
    parser.add_argument("--success-topic", default="", help="std_msgs/Bool that ends the task with success when true")
    options.namespace(parser, "namespace of task_node")
    options.wait(parser, "for task_node")


def main(args: argparse.Namespace) -> int:
    import rclpy
    from rclpy.action import ActionClient

    from vla_ros.action import RunInstruction
    from vla_ros.graph.process import check_namespace
    from vla_ros.graph.watch import LONGEST, Display, milliseconds
    from vla_ros.nodes.commands import node_name
    from vla_ros.nodes.names import EXECUTOR_STATES, POLICY_STATES, constants
    from vla_ros.nodes.security import enclave_arguments, secured

    check_namespace(args.namespace)
    console = Terminal()
    enclave = enclave_arguments("operator")
    with secured(enclave):
        rclpy.init(args=enclave, signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
        node = rclpy.create_node("vla_ros_task", namespace=args.namespace or None)
    interrupted, discovered = [], time.monotonic() + discovery_time()
    previous = signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
    try:
        client = ActionClient(node, RunInstruction, "run_instruction")
        if not client.wait_for_server(timeout_sec=args.wait):
            raise InputError(f"action run_instruction: no server within {args.wait:g} s, expected task_node to run")
        time.sleep(max(0.0, discovered - time.monotonic()))
        servers = node.get_publishers_info_by_topic(node.resolve_topic_name("run_instruction/_action/status"))
        if len(servers) > 1:
            names = ", ".join(sorted(node_name(info) for info in servers))
            raise InputError(f"action run_instruction: offered by {names}, expected one node; give a --namespace each")
        with Display(console) as display:

            def show(message: Any) -> None:
                now = message.feedback
                said = plain(now.message, LONGEST)
                states = f"policy {POLICY_STATES[now.policy_state]}, executor {EXECUTOR_STATES[now.executor_state]}"
                line = (
                    f"{now.elapsed:5.1f} s  {states}, chunk {milliseconds(now.chunk_age)} old, "
                    f"inference {milliseconds(now.inference_time)}  {said}"
                )
                display.show([line], f"{states} {said}".rstrip())

            goal = RunInstruction.Goal(
                instruction=args.instruction, time_limit=args.time_limit, success_topic=args.success_topic
            )
            sent = client.send_goal_async(goal, feedback_callback=show)
            rclpy.spin_until_future_complete(node, sent)
            handle = sent.result()
            if not handle.accepted:
                raise InputError("task_node rejected the goal, expected it to accept every goal")
            finished = handle.get_result_async()
            cancel = None
            while not finished.done():
                rclpy.spin_once(node, timeout_sec=0.1)
                if interrupted and cancel is None:
                    cancel = handle.cancel_goal_async()
                elif len(interrupted) > 1:
                    console.print("ended without waiting for the result; task_node was asked to cancel the task")
                    return 130
        result = finished.result().result
        word = constants(RunInstruction.Result)[result.error_code]
        console.print(f"{word} after {result.elapsed:.1f} s: {plain(result.message, LONGEST)}")
        return result.error_code
    finally:
        signal.signal(signal.SIGINT, previous)
        node.destroy_node()
        rclpy.try_shutdown()
