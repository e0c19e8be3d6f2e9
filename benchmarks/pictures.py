"""Pictures of two cameras from one process to another on this machine: how many arrive, and how late.

    python benchmarks/pictures.py [--count 300] [--best-effort] [--no-room]

First as the simulator in lockstep: both pictures, reliable, and the next ones when both have arrived. Then as two
cameras of 30 Hz, with a reliable reader or, `--best-effort`, one as policy_node is by default. `--no-room` leaves the
middleware the shared memory that it takes by itself (see nodes/shared_memory.py).
"""

import argparse
import os
import threading
import time
from multiprocessing import get_context
from typing import Any

SIZE, RATE, LATE = 640 * 480 * 3, 30.0, 0.5  # bytes; Hz; s
_TOPICS = ("first", "second")


def publish(count: int, room: bool, lockstep: bool, pipe: Any) -> None:
    """Sends the times (s) that each instant took; when pictures came is the reader's to say."""
    import rclpy
    from sensor_msgs.msg import Image

    from vla_ros.nodes.qos import sensor_qos
    from vla_ros.nodes.shared_memory import make_room_for_pictures

    if room:
        make_room_for_pictures()
    rclpy.init()
    node = rclpy.create_node("cameras")
    publishers = [node.create_publisher(Image, topic, sensor_qos(reliable=True)) for topic in _TOPICS]
    while any(publisher.get_subscription_count() == 0 for publisher in publishers):
        time.sleep(0.01)
    time.sleep(1.0)  # the reader may know us later than we know it
    picture, took, start = Image(data=bytes(SIZE)), [], time.monotonic()
    for number in range(1, count + 1):
        picture.height, begin = number, time.monotonic()
        for publisher in publishers:
            publisher.publish(picture)
        if lockstep:
            pipe.recv()
        took.append(time.monotonic() - begin)
        if not lockstep:
            time.sleep(max(0.0, start + number / RATE - time.monotonic()))
    pipe.send(took)
    os._exit(0)


def read(reliable: bool, pipe: Any) -> None:
    """Sends (which topic, number) of each picture that comes."""
    import rclpy
    from sensor_msgs.msg import Image

    from vla_ros.nodes.qos import sensor_qos

    rclpy.init()
    node = rclpy.create_node("reader")
    for which, topic in enumerate(_TOPICS):
        node.create_subscription(
            Image, topic, lambda message, which=which: pipe.send((which, message.height)), sensor_qos(reliable)
        )
    rclpy.spin(node)


def run(count: int, room: bool, lockstep: bool, reliable: bool) -> tuple[list[float], list[list[float]]]:
    """Times (s) of the publisher's instants, and for each topic when (s) its pictures came."""
    context = get_context("spawn")
    (ours, theirs), (heard, said) = context.Pipe(), context.Pipe(duplex=False)
    reader = context.Process(target=read, args=(reliable, said), daemon=True)
    publisher = context.Process(target=publish, args=(count, room, lockstep, theirs), daemon=True)
    reader.start()
    publisher.start()
    came: list[list[float]] = [[] for _ in _TOPICS]

    def listen() -> None:
        newest = [0 for _ in _TOPICS]
        while (told := heard.recv()) is not None:
            which, newest[which] = told[0], told[1]
            came[which].append(time.monotonic())
            if lockstep and len({*newest}) == 1:
                ours.send(None)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    took = ours.recv()
    publisher.join()
    time.sleep(4.0 if reliable else 0.5)  # what is sent again after 3 s
    reader.kill()
    said.send(None)
    listener.join()
    return took, came


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--best-effort", action="store_true")
    parser.add_argument("--no-room", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    took, _ = run(args.count, not args.no_room, lockstep=True, reliable=True)
    took = sorted(took)
    late = sum(one > LATE for one in took)
    print(f"lockstep: {len(took)} instants, median {took[len(took) // 2]:.3f} s, longest {took[-1]:.3f} s, "
          f"{late} over {LATE:g} s")  # fmt: skip
    _, came = run(args.count, not args.no_room, lockstep=False, reliable=not args.best_effort)
    for times in came:
        gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
        print(f"camera of {RATE:g} Hz: {len(times)} of {args.count} pictures, longest gap {max(gaps, default=0):.3f} s")


if __name__ == "__main__":
    main()
