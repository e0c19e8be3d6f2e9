"""The messages of a robot, its policy and its executor, polled by a viewer; no node waits for it."""

import time
from typing import Any

from std_msgs.msg import String

from vla_ros.core.chunk import ActionChunk, MalformedChunk
from vla_ros.core.errors import InputError
from vla_ros.core.instruction import Agreement
from vla_ros.core.joint_states import joint_fault
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.chunks import MAX_PARTS, chunk_size_limit, read_chunk
from vla_ros.messages.decoders import decoder_of
from vla_ros.messages.joints import measured
from vla_ros.messages.stamps import NS, stamp_ns
from vla_ros.msg import ActionChunk as ChunkMessage
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.bounded import SMALL
from vla_ros.nodes.console.cameras import LARGEST, Picture
from vla_ros.nodes.console.ears import Ears
from vla_ros.nodes.executor.parameters import ExecutorParameters
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, sensor_qos
from vla_ros.nodes.streams import message_class

SILENT = 3.0  # s without a status: the node counts as gone


class Scene:
    """The newest message of everything. `poll` is called from one thread.

    Attributes:
        policy, executor: the newest statuses, None before the first one and after a silence of `SILENT`.
        pictures: of the cameras, by name.
        joints: name -> (position in rad or m, its stamp in ns), of every joint that was ever received.
        texts: instructions since they were last taken.
        chunks: chunks since they were last taken, with their time of arrival, ns.
        budget: s, duration of the newest chunk from its stamp, 0 before the first.
    """

    def __init__(self, node: Any, robot: RobotSpec, views: dict[str, Any] | None = None) -> None:
        """`views`: camera -> function to the policy's view of its images, if known."""
        self.node, self.robot = node, robot
        self.policy: PolicyStatus | None = None
        self.executor: ExecutorStatus | None = None
        self.pictures = {
            camera.name: Picture(camera, index, (views or {}).get(camera.name))
            for index, camera in enumerate(robot.cameras)
        }
        self.joints: dict[str, tuple[float, int]] = {}
        self.commands: dict[str, float] = {}
        self.texts: list[str] = []
        self.chunks: list[tuple[ActionChunk, int]] = []
        self.budget = 0.0
        self._agreement = Agreement()
        self._came = {"policy": 0.0, "executor": 0.0}
        self._ears = ears = Ears(node)
        ears.listen("policy", PolicyStatus, "policy_node/status", STATUS_QOS, SMALL)
        ears.listen("executor", ExecutorStatus, "executor_node/status", STATUS_QOS, SMALL)
        largest = chunk_size_limit(robot, ExecutorParameters().max_horizon)
        ears.listen("chunk", ChunkMessage, "action_chunk", COMMAND_QOS, largest)
        ears.listen("instruction", String, "instruction", COMMAND_QOS, SMALL)
        streams = robot.all_streams
        for camera in robot.cameras:
            kind = message_class(streams[camera.name].type)
            ears.listen(camera.name, kind, camera.topic, sensor_qos(depth=1), LARGEST)
        self._states = [streams[name] for name in robot.state_streams]
        for stream in self._states:
            ears.listen(stream.name, message_class(stream.type), stream.topic, sensor_qos(), SMALL)
        self._commanded = []
        for group in robot.groups:
            if not group.of_tool:  # joints are plotted
                stream = streams[f"command/{group.name}"]
                ears.listen(stream.name, message_class(stream.type), stream.topic, sensor_qos(depth=1), SMALL)
                self._commanded.append((stream, group.joints, decoder_of(stream, robot)))

    def poll(self, now_ns: int) -> None:
        """Take what has arrived, except images."""
        for name in self._came:
            for message, _ in self._ears.new(name, newest=True):
                setattr(self, name, message)
                self._came[name] = time.monotonic()
            if time.monotonic() - self._came[name] > SILENT:
                setattr(self, name, None)
        for stream in self._states:
            for message, _ in self._ears.new(stream.name):
                names, values = measured(stream, message)
                if not joint_fault(names, values):
                    stamp = stamp_ns(message) or now_ns
                    self.joints |= {name: (value, stamp) for name, value in zip(names, values, strict=False)}
        for stream, joints, decode in self._commanded:
            for message, _ in self._ears.new(stream.name, newest=True):
                try:
                    self.commands |= dict(zip(joints, decode(message)[stream.name], strict=True))
                except InputError:
                    continue  # malformed; the controller handles it
        self.texts += [message.data for message, _ in self._ears.new("instruction")]
        for message, _ in self._ears.new("chunk"):
            self._take_chunk(message, now_ns)

    def _take_chunk(self, message: ChunkMessage, now_ns: int) -> None:
        if len(message.parts) > MAX_PARTS:
            return  # the executor refuses it and says so
        try:
            chunk = read_chunk(message)
        except MalformedChunk:
            return
        self.budget = chunk.duration
        self.chunks.append((chunk, now_ns))

    def look(self, camera: str) -> bool:
        """Take the newest image of a camera; True if there was a new one."""
        found = False
        for message, number in self._ears.new(camera, newest=True):
            self.pictures[camera].take(message, number)
            found = True
        return found

    def positions(self) -> dict[str, float]:
        """The measured positions, rad or m."""
        return {name: position for name, (position, _) in self.joints.items()}

    def ages(self, now_ns: int) -> dict[str, float]:
        """s since the stamps of the joints' positions."""
        return {name: (now_ns - stamp) / NS for name, (_, stamp) in self.joints.items()}

    def disagreement(self) -> str:
        """How the instructions of policy and executor differ, in words; else ""."""
        policy, executor = self.policy, self.executor
        if policy is None or executor is None or not (policy.state and executor.state):
            return ""
        alike = policy.instruction_id == executor.instruction_id
        return self._agreement.problem(policy.instruction, executor.instruction, alike, time.monotonic())
