"""Record the topics of a robot file, chunks, commands, status and instructions in a bag. Ctrl-C finishes the bag.

    vla-ros record --robot so101 -o pushes --compressed-images

Type s, f or a and Enter to say how the last instruction ended: success, failure or aborted. Words after the
letter say why.
"""

import argparse
import signal
import sys
import threading
from dataclasses import fields
from typing import Any

from vla_ros.bags.compress import FORMATS
from vla_ros.bags.index import OUTCOMES
from vla_ros.bags.judged import Judgements
from vla_ros.bags.writer import COMPRESSIONS
from vla_ros.cli import options
from vla_ros.core.discovery import discovery_line
from vla_ros.core.errors import InputError
from vla_ros.core.resources import resolve_robot
from vla_ros.core.text import plain, say
from vla_ros.messages.stamps import stamp_ns

_ASK_PERIOD = 0.5  # s; a task reports its own outcome right after its end


def arguments(parser: argparse.ArgumentParser) -> None:
    options.robot(parser, required=True)
    options.output(parser, "folder of the bag (default: ROBOT_DATE_TIME)", default="")
    parser.add_argument("--topics", nargs="*", default=[], metavar="TOPIC", help="additional topics to record")
    options.namespace(parser, "namespace of the robot's topics")
    parser.add_argument("--compressed-images", action="store_true", help="compress raw images")
    parser.add_argument("--image-format", choices=FORMATS, default="jpeg",
                        help="image format, with --compressed-images")
    parser.add_argument("--image-quality", type=int, default=95, help="JPEG quality, 1 to 100")
    parser.add_argument("--compression", choices=list(COMPRESSIONS), default="none",
                        help="compression of the chunks in the files")
    parser.add_argument("--max-file-size", type=float, default=0.0, metavar="MB",
                        help="start a new file beyond this size; 0: never")
    parser.add_argument("--max-file-duration", type=float, default=0.0, metavar="S",
                        help="start a new file after this time; 0: never")
    parser.add_argument("--buffer-size", type=float, default=512.0, metavar="MB",
                        help="memory for messages that are not written yet")
    parser.add_argument("--min-free-disk", type=float, default=500.0, metavar="MB",
                        help="stop recording when less disk space is free")
    parser.add_argument("--outcomes", action="store_true", help="ask how each instruction ended, and count at the end")
    parser.add_argument("--by", default="operator", metavar="NAME", help="who reports the outcomes with the keys")
    parser.add_argument("--keep-last", type=float, default=0.0, metavar="S",
                        help="keep only this much, in memory, and write it to a bag after a failure")
    options.use_sim_time(parser, "use simulated time, record /clock")


def _take_marks(node: Any, by: str, judgements: Judgements) -> None:
    """Read keys to the end of the input. They answer the questions in order; without one they are for the last
    instruction."""
    meanings = {"s": 1, "success": 1, "f": 2, "failure": 2, "a": 3, "aborted": 3}  # the constants of Outcome.msg
    try:
        for line in sys.stdin:
            word, _, why = line.strip().partition(" ")
            if (outcome := meanings.get(word.lower())) is not None:
                asked = judgements.unanswered()
                if asked is None:
                    node.mark(outcome, by, why.strip())
                else:
                    asked.outcome = OUTCOMES[outcome]  # another answer may arrive before this one is recorded
                    node.mark(outcome, by, why.strip(), asked.instruction, (asked.since_ns + asked.until_ns) // 2)
                of = f" of {plain(asked.instruction)!r}" if asked else ""
                say(f"noted: {OUTCOMES[outcome]}{of}{f': {why.strip()}' if why else ''}")
            elif word:
                say("s, f or a, and why: how the last instruction ended (success, failure, aborted); Ctrl-C ends the "
                    "recording")
    except (OSError, ValueError):  # in the background a terminal cannot be read
        pass


def main(args: argparse.Namespace) -> int:
    from rclpy.lifecycle import TransitionCallbackReturn
    from rclpy.parameter import Parameter
    from rclpy.serialization import deserialize_message
    from std_msgs.msg import String

    from vla_ros.bags.streams import INSTRUCTION, OUTCOME
    from vla_ros.graph.process import check_namespace
    from vla_ros.msg import Outcome
    from vla_ros.nodes.base import spin_node
    from vla_ros.nodes.recorder_node import RecorderNode, RecorderParameters
    from vla_ros.nodes.security import enclave_arguments

    check_namespace(args.namespace)
    robot = str(resolve_robot(args.robot))
    say(discovery_line())

    class CommandLineRecorder(RecorderNode):
        """A recorder that ends the program when it cannot record."""

        judgements = Judgements()

        def heard(self, name: str, data: bytes) -> None:
            super().heard(name, data)
            try:
                said = deserialize_message(data, {INSTRUCTION: String, OUTCOME: Outcome}[name])
            except Exception:  # another stream, or bytes that cannot be decoded, which are recorded as they are
                return
            if isinstance(said, String):
                self.judgements.instructed(said.data.strip(), self.now_ns())
            else:
                self.judgements.judged(OUTCOMES.get(said.outcome, ""), said.instruction.strip(), stamp_ns(said))

        def ask(self) -> None:
            for one in self.judgements.unasked():
                say(f"how did {plain(one.instruction)!r} end? s, f or a, and why")

        def deactivate(self) -> None:
            super().deactivate()
            if args.outcomes:
                say(f"outcomes: {self.judgements}")

        def refused(self, reason: str) -> None:
            self.reason = reason

        def failed(self, reason: str) -> None:
            raise InputError(reason)

    def make() -> Any:
        names = {item.name for item in fields(RecorderParameters)} & set(vars(args))
        values = {name: getattr(args, name) for name in names} | {"robot": robot, "use_sim_time": args.use_sim_time}
        if not args.topics:
            del values["topics"]  # ROS has no type for an empty list
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = CommandLineRecorder(namespace=args.namespace or None, parameter_overrides=overrides)
        for trigger in (node.trigger_configure, node.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                node.destroy_node()
                raise InputError(node.reason)
        if args.outcomes:
            node.create_steady_timer(_ASK_PERIOD, node.ask)
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # reading must not stop a recorder in the background
        threading.Thread(target=_take_marks, args=(node, args.by, node.judgements), name="marks", daemon=True).start()
        return node

    return spin_node(make, enclave_arguments("recorder_node"))
