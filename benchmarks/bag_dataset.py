"""Bags to datasets: throughput, memory as the bag grows, and the writer beside LeRobot's own.

    python benchmarks/bag_dataset.py --gigabytes 1 4 10 --lerobot-python /path/to/python

The bag is synthetic: two cameras of 640x480 at 30 Hz, joint states and commands at 100 Hz, episodes of 20 s. Each size
is built in a process of its own, whose peak memory counts; one bag lies on the disk at a time. With --lerobot-python (a
Python that imports lerobot) the same frames are also written by LeRobotDataset, turn by turn with our DatasetWriter:
with its default codec (AV1) and with H.264, which ours writes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from vla_ros.bags.build import build_dataset
from vla_ros.bags.definitions import standard_store
from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.writer import BagWriter
from vla_ros.core.robot import RobotSpec
from vla_ros.datasets.writer import DatasetWriter
from vla_ros.messages.stamps import NS
from vla_ros.policies.images import resize_within

WIDTH, HEIGHT, CAMERA_RATE, JOINT_RATE, EPISODE = 640, 480, 30, 100, 20.0
START = 1_700_000_000 * NS
JOINTS = [f"joint_{k}" for k in range(6)]
ROBOT = RobotSpec.from_dict(
    {
        "name": "synthetic",
        "cameras": [{"name": n, "topic": f"{n}/image", "width": WIDTH, "height": HEIGHT} for n in ("front", "wrist")],
        "joints": [{"name": n, "lower": -3.0, "upper": 3.0, "velocity": 1.0, "acceleration": 1.0} for n in JOINTS],
        "groups": [{"name": "arm", "topic": "arm", "interface": "joint_trajectory", "joints": JOINTS}],
    }
)
LEROBOT = """
import json, sys, time
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
data = np.load(sys.argv[1])
cameras = [name for name in data.files if name not in ("states", "actions")]
vector = {"dtype": "float32", "shape": (data["states"].shape[-1],), "names": None}
features = {"observation.state": vector, "action": vector}
for name in cameras:
    features[f"observation.images.{name}"] = {"dtype": "video", "shape": data[name].shape[2:], "names": ["height", "width", "channels"]}
episodes = {name: data[name] for name in data.files}
begin = time.perf_counter()
dataset = LeRobotDataset.create("bench/bench", fps=10, features=features, root=sys.argv[2], use_videos=True, vcodec=sys.argv[3])
for e in range(len(episodes["states"])):
    for t in range(len(episodes["states"][e])):
        frame = {"observation.state": episodes["states"][e, t], "action": episodes["actions"][e, t], "task": "synthetic"}
        frame |= {f"observation.images.{name}": episodes[name][e, t] for name in cameras}
        dataset.add_frame(frame)
    dataset.save_episode()
if hasattr(dataset, "finalize"):
    dataset.finalize()
print(json.dumps({"seconds": time.perf_counter() - begin}))
"""  # noqa: E501


def picture(k: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(height, width, 3) uint8: a gradient, a square that wanders, and a camera's noise."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.int16)
    left, top = (3 * k) % (width - width // 5), (2 * k) % (height - height // 5)
    image[top : top + height // 5, left : left + width // 5] = (220, 40, 30)
    noise = np.random.default_rng(k % 16).integers(-4, 5, (height, width, 1), np.int16)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def write_bag(path: Path, gigabytes: float) -> float:
    """Returns the length of the bag, s."""
    store = standard_store()
    kinds = store.types
    empty = np.zeros(0)

    def header(ns: int) -> object:
        time_ = kinds["builtin_interfaces/msg/Time"](sec=ns // NS, nanosec=ns % NS)
        return kinds["std_msgs/msg/Header"](stamp=time_, frame_id="")

    def put(topic: str, ns: int, message: object) -> None:
        writer.write(topic, ns, bytes(store.serialize_cdr(message, message.__msgtype__)))

    writer = BagWriter(path, max_file_bytes=1 << 30)
    types = {"/front/image": "sensor_msgs/msg/Image", "/wrist/image": "sensor_msgs/msg/Image",
             "/joint_states": "sensor_msgs/msg/JointState", "/arm": "trajectory_msgs/msg/JointTrajectory",
             "/instruction": "std_msgs/msg/String"}  # fmt: skip
    for topic, typename in types.items():
        writer.add_topic(topic, typename)
    pictures = [picture(k).reshape(-1) for k in range(100)]
    seconds = gigabytes * 1e9 / (2 * CAMERA_RATE * WIDTH * HEIGHT * 3)
    for tick in track(range(int(seconds * JOINT_RATE)), f"writing a bag of {gigabytes:g} GB", transient=True):
        ns = START + tick * NS // JOINT_RATE
        if tick % int(EPISODE * JOINT_RATE) == 0 and (tick == 0 or tick / JOINT_RATE < seconds - 2):
            number = int(tick / (EPISODE * JOINT_RATE))
            put("/instruction", ns, kinds["std_msgs/msg/String"](data=f"task {number % 2}"))
        positions = np.sin(tick / JOINT_RATE + np.arange(6))
        put("/joint_states", ns, kinds["sensor_msgs/msg/JointState"](
            header=header(ns), name=JOINTS, position=positions, velocity=empty, effort=empty))  # fmt: skip
        point = kinds["trajectory_msgs/msg/JointTrajectoryPoint"](
            positions=positions, velocities=empty, accelerations=empty, effort=empty,
            time_from_start=kinds["builtin_interfaces/msg/Duration"](sec=0, nanosec=NS // JOINT_RATE),
        )  # fmt: skip
        put("/arm", ns, kinds["trajectory_msgs/msg/JointTrajectory"](
            header=header(ns), joint_names=JOINTS, points=[point]))  # fmt: skip
        frame = tick * CAMERA_RATE // JOINT_RATE
        if frame != (tick - 1) * CAMERA_RATE // JOINT_RATE:
            for k, topic in enumerate(("/front/image", "/wrist/image")):
                put(topic, ns, kinds["sensor_msgs/msg/Image"](
                    header=header(ns), height=HEIGHT, width=WIDTH, encoding="rgb8", is_bigendian=0, step=3 * WIDTH,
                    data=pictures[(frame + 50 * k) % len(pictures)]))  # fmt: skip
    writer.close()
    return seconds


def build(bag: str, output: str) -> None:
    """Prints time, frames and the peak memory of this process as JSON."""
    begin = time.perf_counter()
    resize = partial(resize_within, height=224, width=224)
    report = build_dataset([bag], output, ROBOT, CutOptions(fps=10.0), resize=resize)
    seconds = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "frames": report.frames, "memory": memory}))


def python(*command: str) -> dict:
    """The last line that a program prints, as JSON."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare_writers(folder: Path, lerobot_python: str | None, rounds: int, console: Console) -> None:
    """The same episodes through our writer and LeRobot's, in turn."""
    episodes, length, size = 4, 100, 224
    images = {
        name: np.stack([[picture(e * length + t + 37 * c, size, size) for t in range(length)] for e in range(episodes)])
        for c, name in enumerate(("front", "wrist"))
    }
    rows = np.sin(np.arange(episodes * length * 6).reshape(episodes, length, 6) / 50).astype(np.float32)
    np.savez(folder / "episodes.npz", states=rows, actions=rows, **images)
    seconds: dict[str, list[float]] = {}
    for turn in range(rounds):
        begin = time.perf_counter()
        writer = DatasetWriter(folder / f"ours{turn}", ROBOT, 10.0)
        for e in range(episodes):
            writer.add_episode({name: frames[e] for name, frames in images.items()}, rows[e], rows[e], "synthetic")
        writer.finish()
        seconds.setdefault("vla_ros DatasetWriter", []).append(time.perf_counter() - begin)
        for codec in ("libsvtav1", "h264") if lerobot_python else ():
            output = folder / f"theirs{turn}{codec}"
            result = python(lerobot_python, "-c", LEROBOT, str(folder / "episodes.npz"), str(output), codec)
            seconds.setdefault(f"LeRobotDataset, {codec}", []).append(result["seconds"])
    megabytes = sum(frames.nbytes for frames in images.values()) / 1e6
    title = f"{episodes} episodes of {length} frames at 10 Hz, 2 cameras {size}x{size}, {rounds} rounds"
    table = Table("writer", "s (median)", "frames/s", "MB/s of pixels", "x real time", "times as long", title=title)
    ours = np.array(seconds["vla_ros DatasetWriter"])
    for name, values in seconds.items():
        took = float(np.median(values))
        table.add_row(name, f"{took:.2f}", f"{episodes * length / took:.0f}", f"{megabytes / took:.0f}",
                      f"{episodes * length / 10 / took:.0f}", f"{np.median(np.array(values) / ours):.2f}")  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, nargs="*", default=[1.0, 4.0])
    parser.add_argument("--rounds", type=int, default=3, help="of the writers")
    parser.add_argument("--folder", help="where the bags go (default: a temporary folder)")
    parser.add_argument("--lerobot-python", help="a Python that imports lerobot")
    parser.add_argument("--build", nargs=2, help=argparse.SUPPRESS)  # one measurement, in a process of its own
    args = parser.parse_args()
    if args.build:
        build(*args.build)
        return
    console = Console()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        table = Table("bag GB", "s long", "build s", "MB/s", "x real time", "frames", "peak memory MB",
                      title="bag to dataset, 10 Hz, 224x224")  # fmt: skip
        for k, gigabytes in enumerate(args.gigabytes):
            bag = folder / f"bag{k}"
            seconds = write_bag(bag, gigabytes)
            size = sum(path.stat().st_size for path in bag.iterdir())
            result = python(sys.executable, __file__, "--build", str(bag), str(folder / f"data{k}"))
            for path in bag.iterdir():
                path.unlink()
            took = result["seconds"]
            table.add_row(f"{size / 1e9:.2f}", f"{seconds:.0f}", f"{took:.1f}", f"{size / 1e6 / took:.0f}",
                          f"{seconds / took:.1f}", str(result["frames"]), f"{result['memory'] / 1e6:.0f}")  # fmt: skip
        if args.gigabytes:
            console.print(table)
        compare_writers(folder, args.lerobot_python, args.rounds, console)


if __name__ == "__main__":
    main()
