"""What the console costs: its share of a core, and the bytes it sends to one page.

    python benchmarks/console_cost.py --seconds 30

A made-up robot publishes what a busy one does: two cameras of 640x480 at 30 Hz, joint states and commands at 100 Hz,
chunks of 16 rows at 10 Hz and the statuses that go with them. One page is open and takes all of it.
"""

import argparse
import asyncio
import json
import math
import socket
import tempfile
import threading
import time
from collections import Counter

import numpy as np
import psutil
from live_graph import ROBOT
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from websockets.asyncio.client import connect

from vla_ros.core.chunk import ActionChunk, Part, Targets
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.processes import Graph
from vla_ros.messages.chunks import chunk_message
from vla_ros.messages.stamps import set_stamp
from vla_ros.msg import ActionChunk as ChunkMessage
from vla_ros.msg import ActionPart, ExecutorStatus, PolicyStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, sensor_qos


class Robot:
    """Publishes at 100 Hz, images and chunks now and then, in a thread of its own until `stop` is set."""

    def __init__(self, node: Node, robot: RobotSpec) -> None:
        self._node, self._robot, self.stop = node, robot, threading.Event()
        self._names = list(robot.joint_names)
        make = node.create_publisher
        self._states = make(JointState, robot.joint_state_topics[0], sensor_qos())
        self._groups = [(make(JointTrajectory, group.topic, COMMAND_QOS), group) for group in robot.groups]
        self._cameras = [make(Image, camera.topic, sensor_qos()) for camera in robot.cameras]
        self._chunks = make(ChunkMessage, "action_chunk", COMMAND_QOS)
        self._executor = make(ExecutorStatus, "executor_node/status", STATUS_QOS)
        self._policy = make(PolicyStatus, "policy_node/status", STATUS_QOS)
        noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        smooth = np.indices((480, 640)).sum(0)[..., None] // 5 % 256
        self._image = Image(height=480, width=640, encoding="rgb8", step=1920)
        self._image.data = ((3 * smooth + noise) // 4).astype(np.uint8).tobytes()
        self.images = self._sent = 0

    def run(self) -> None:
        tick, begin = 0, time.monotonic()
        while not self.stop.wait(max(0.0, begin + 0.01 * tick - time.monotonic())):
            now = self._node.get_clock().now().nanoseconds
            rows = [self._at(now * 1e-9 + 0.1 * row) for row in range(16)]
            self._states.publish(set_stamp(JointState(name=self._names, position=rows[0]), now))
            for publisher, group in self._groups:
                point = JointTrajectoryPoint(positions=[rows[0][self._names.index(name)] for name in group.joints])
                publisher.publish(JointTrajectory(joint_names=list(group.joints), points=[point]))
            if tick % 10 == 0:
                self._infer(np.array(rows), now)
            if self.images < 0.3 * tick:
                self.images += 1
                for publisher in self._cameras:
                    publisher.publish(set_stamp(self._image, now))
            tick += 1

    def _at(self, seconds: float) -> list[float]:
        return [0.5 * math.sin(seconds + index) for index in range(len(self._names))]

    def _infer(self, rows: np.ndarray, now: int) -> None:
        self._sent += 1
        chunk = ActionChunk(now, 0.1, Targets((Part(tuple(self._names), rows),)), 0, self._sent, 7)
        self._chunks.publish(chunk_message(ChunkMessage, ActionPart, chunk))
        status = ExecutorStatus(
            state=ExecutorStatus.EXECUTING, names=self._names, position=rows[0], measured=rows[0], live_chunks=16,
            deviation=[0.01] * len(self._names), reversals=[0.1] * len(self._names), chunk_session=7,
            limited_share=[0.0] * len(self._names), accepted_chunks=self._sent, chunk_sequence=self._sent,
        )  # fmt: skip
        self._executor.publish(set_stamp(status, now))
        self._policy.publish(set_stamp(PolicyStatus(state=PolicyStatus.RUNNING), now))


async def read(port: int, seconds: float, process: psutil.Process) -> tuple[Counter, Counter, float]:
    """Bytes and messages of each kind that one page gets, and CPU seconds of the console meanwhile."""
    sizes, counts = Counter(), Counter()
    host = f"127.0.0.1:{port}"
    async with connect(f"ws://{host}/ws?token=", origin=f"http://{host}", proxy=None) as page:
        await asyncio.sleep(3.0)
        begin, end = sum(process.cpu_times()[:2]), time.monotonic() + seconds
        while time.monotonic() < end:
            message = await page.recv()
            kind = "image" if isinstance(message, bytes) else json.loads(message)["kind"]
            sizes[kind] += len(message)
            counts[kind] += 1
        return sizes, counts, sum(process.cpu_times()[:2]) - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, Graph(folder) as graph:
        robot = Robot(graph.node, RobotSpec.load(ROBOT))
        thread = threading.Thread(target=robot.run)
        process = graph.start("console_node", parameters={"robot": str(ROBOT), "port": port})
        graph.bring_up("console_node")
        watched = psutil.Process(process.popen.pid)
        try:
            idle = sum(watched.cpu_times()[:2])
            thread.start()
            time.sleep(args.seconds / 3)
            idle = sum(watched.cpu_times()[:2]) - idle
            images, begin = robot.images, time.monotonic()
            sizes, counts, used = asyncio.run(read(port, args.seconds, watched))
            rate = (robot.images - images) / (time.monotonic() - begin)
        finally:
            robot.stop.set()
            thread.join()
    print(f"cameras at {rate:.1f} Hz each; no page open: {3 * idle / args.seconds:.1%} of a core")
    print(f"one page: {used / args.seconds:.1%} of a core, {sum(sizes.values()) / args.seconds / 1e3:.0f} kB/s")
    for kind, size in sizes.most_common():
        print(f"  {kind}: {counts[kind] / args.seconds:.1f} messages/s, {size / args.seconds / 1e3:.1f} kB/s")


if __name__ == "__main__":
    main()
