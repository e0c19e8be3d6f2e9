"""Show a running graph in the Rerun viewer, or record it for the viewer: cameras, commands against chunks, states.

    vla-ros rerun --robot so101                  # opens the viewer
    vla-ros rerun --robot so101 --save run.rrd   # writes a file instead

It needs the optional package rerun-sdk (requirements/view.txt) and only subscribes.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla_ros.cli import options
from vla_ros.core.chunk import MalformedChunk
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import Stream
from vla_ros.core.text import say
from vla_ros.messages.chunks import read_chunk
from vla_ros.messages.decoders import decoder_of
from vla_ros.messages.joints import measured
from vla_ros.messages.observation import message_stamp
from vla_ros.messages.stamps import stamp_ns


def arguments(parser: argparse.ArgumentParser) -> None:
    options.robot(parser, default="so101")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write a .rrd file instead of opening the viewer")
    options.namespace(parser)
    options.duration(parser)


class Bridge:
    """Logs messages with their ROS stamps. Callbacks run in the graph's thread."""

    def __init__(self, graph: Any, robot: Any, recording: Any) -> None:
        import rerun
        from std_msgs.msg import String

        from vla_ros.msg import ActionChunk, ExecutorStatus, PolicyStatus
        from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS
        from vla_ros.nodes.streams import subscribe

        self._rerun, self._recording, self._robot = rerun, recording, robot
        node = graph.node
        for stream in robot.all_streams.values():
            if not stream.is_command:
                subscribe(node, stream, self._taker(stream))
        node.create_subscription(ActionChunk, "action_chunk", self._take_chunk, COMMAND_QOS)
        node.create_subscription(ExecutorStatus, "executor_node/status", self._take_executor, STATUS_QOS)
        node.create_subscription(PolicyStatus, "policy_node/status", self._take_policy, STATUS_QOS)
        node.create_subscription(String, "instruction", self._take_instruction, COMMAND_QOS)

    def _at(self, stamp_ns: int) -> None:
        self._recording.set_time("ros_time", timestamp=stamp_ns * 1e-9)

    def _scalar(self, path: str, value: float) -> None:
        self._recording.log(path, self._rerun.Scalars(value))

    def _taker(self, stream: Stream) -> Any:
        decode = None if stream.is_state else decoder_of(stream, self._robot)

        def take(message: Any) -> None:
            self._at(message_stamp(stream, message, time.time_ns()))
            try:
                if stream.is_state:
                    self._take_joints(*measured(stream, message))
                elif stream.is_camera:
                    image = self._rerun.Image(decode(message)[stream.name]).compress(jpeg_quality=85)
                    self._recording.log(f"camera/{stream.name}", image)
                else:
                    self._show(stream, decode(message))
            except InputError as error:
                self._recording.log(f"stream/{stream.name}", self._rerun.TextLog(str(error), level="ERROR"))

        return take

    def _show(self, stream: Stream, readings: Any) -> None:
        value = readings[stream.name]
        if stream.dtype == "uint16":
            shown = self._rerun.DepthImage(value[..., 0], meter=1000.0)
        elif stream.points:
            shown = self._rerun.Points3D(value[: readings[f"{stream.name}_count"][0], :3])
        elif stream.dtype == "string":
            shown = self._rerun.TextLog(" ".join(value.ravel()))
        else:
            shown = self._rerun.Scalars(value.ravel().astype(float))
        self._recording.log(f"stream/{stream.name}", shown)

    def _take_joints(self, names: Sequence[str], positions: Sequence[float]) -> None:
        for name, position in zip(names, positions, strict=False):  # there may be no positions
            if name in self._robot.joint_names:
                self._scalar(f"joint/{name}/measured", position)

    def _take_chunk(self, message: Any) -> None:
        try:
            chunk = read_chunk(message)
        except MalformedChunk:
            return  # the executor refuses it and says so
        for row in range(chunk.horizon):
            self._at(chunk.stamp_ns + round(row * chunk.step_dt * 1e9))
            for part in chunk.targets.parts:
                for name, value in zip(part.names, part.data[row], strict=True):
                    self._scalar(f"{part.group or 'joint'}/{name}/chunk", value)

    def _take_executor(self, message: Any) -> None:
        self._at(stamp_ns(message))
        for name, position in zip(message.names, message.position, strict=False):
            self._scalar(f"joint/{name}/command", position)
        self._scalar("executor/state", message.state)
        self._scalar("executor/chunk_latency", message.chunk_latency)

    def _take_policy(self, message: Any) -> None:
        self._at(stamp_ns(message))
        self._scalar("policy/state", message.state)
        self._scalar("policy/inference_time", message.inference_time)

    def _take_instruction(self, message: Any) -> None:
        self._recording.log("instruction", self._rerun.TextLog(message.data or "(none)"))


def main(args: argparse.Namespace) -> int:
    try:
        import rerun
    except ImportError:
        raise InputError("rerun-sdk is not installed, expected `pip install -r requirements/view.txt`") from None

    from vla_ros.graph.peer import peer

    robot = RobotSpec.load(args.robot)
    recording = rerun.RecordingStream("vla_ros")
    if args.save:
        recording.save(args.save)
    else:
        recording.spawn()
    with peer(args.namespace, enclave="viewer") as graph:
        Bridge(graph, robot, recording)
        end = time.monotonic() + args.duration if args.duration else None
        try:
            while end is None or time.monotonic() < end:
                time.sleep(0.1)
        finally:
            recording.flush()
            if args.save:
                say(f"wrote {args.save}")
    return 0
