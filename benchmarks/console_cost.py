"""What the console costs: its share of a core, and the bytes it sends to one page.

    python benchmarks/console_cost.py --seconds 30 [--rerun] [--minutes 10]

A made-up robot publishes what a busy one does: two cameras of 640x480 at 30 Hz, joint states and commands at 100 Hz,
chunks of 16 rows at 10 Hz and the statuses that go with them. One page is open and takes all of it. CPU is that of the
process, so other programs change it little; the images' rate says whether the robot kept up.
"""

import argparse
import asyncio
import json
import math
import shutil
import signal
import socket
import subprocess
import sys
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


def rerun(graph: Graph, seconds: float) -> str:
    """What `vla-ros rerun --save` takes beside the same robot: CPU seconds, and bytes of its file."""
    file = graph.folder / "robot.rrd"
    command = [sys.executable, "-m", "vla_ros.cli.main", "rerun", "--robot", str(ROBOT), "--save", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            watched = psutil.Process(process.pid)
            graph.wait_for(lambda: file.exists() and file.stat().st_size > 1_000_000, "the first images in the file")
            used, size = sum(watched.cpu_times()[:2]), file.stat().st_size
            time.sleep(seconds)
            used, size = sum(watched.cpu_times()[:2]) - used, file.stat().st_size - size
        finally:
            process.send_signal(signal.SIGINT)
    return f"vla-ros rerun: {used / seconds:.1%} of a core, {size / seconds / 1e3:.0f} kB/s into its file"


def left_open(port: int, minutes: float, console: psutil.Process) -> None:
    """Prints, each minute, what a page in a browser and the console hold, MB; the page's heap after a collection."""
    from selenium import webdriver  # here: the rest does without
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--window-size=1440,1050"):  # fmt: skip
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        browser.get(f"http://localhost:{port}/")
        begin, renderer = time.monotonic(), None
        print("minute  heap of the page  its process  the console's process")
        for minute in range(round(minutes) + 1):
            time.sleep(max(0.0, begin + 60.0 * minute - time.monotonic()))
            browser.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
            heap = browser.execute_cdp_cmd("Runtime.getHeapUsage", {})["usedSize"]
            if renderer is None:
                family = psutil.Process(browser.service.process.pid).children(recursive=True)
                of_pages = [one for one in family if "--type=renderer" in one.cmdline()]
                renderer = max(of_pages, key=lambda one: one.memory_info().rss)
            sizes = heap, renderer.memory_info().rss, console.memory_info().rss
            print(f"{minute:6}  " + "  ".join(f"{size / 1e6:8.1f} MB" for size in sizes), flush=True)
        age = browser.execute_script("return document.querySelector('#images figcaption span:last-child').textContent")
        print(f"at the end its first image is {age} old")
    finally:
        browser.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rerun", action="store_true", help="`vla-ros rerun` as well (needs rerun-sdk)")
    parser.add_argument("--minutes", type=float, default=0.0, help="leave a page open in chromium for so long")
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
            print(f"cameras at {rate:.1f} Hz each; no page open: {3 * idle / args.seconds:.1%} of a core")
            print(f"one page: {used / args.seconds:.1%} of a core, {sum(sizes.values()) / args.seconds / 1e3:.0f} kB/s")
            for kind, size in sizes.most_common():
                print(f"  {kind}: {counts[kind] / args.seconds:.1f} messages/s, {size / args.seconds / 1e3:.1f} kB/s")
            if args.rerun:
                print(rerun(graph, args.seconds))
            if args.minutes:
                left_open(port, args.minutes, watched)
        finally:
            robot.stop.set()
            thread.join()


if __name__ == "__main__":
    main()
