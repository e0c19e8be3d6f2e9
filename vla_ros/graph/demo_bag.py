"""What happened in a demo, read back from its bag."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vla_ros.bags.compress import SUFFIX
from vla_ros.bags.reader import Bag
from vla_ros.bags.streams import CHUNK, resolve
from vla_ros.core.chunk import ActionChunk
from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.chunks import read_chunk
from vla_ros.messages.commands import read_command
from vla_ros.messages.images import rgb_image
from vla_ros.messages.stamps import NS


@dataclass
class Step:
    """One instruction of the demo.

    Attributes:
        begin_ns: when it was published, ns of ROS time; None before that.
        success_ns: when the robot had done it; None while it has not.
        end_ns: when the next one began, or the demo ended.
        still_moving: fastest joint when it was published, share of its velocity limit.
    """

    instruction: str
    begin_ns: int | None = None
    success_ns: int | None = None
    end_ns: int | None = None
    still_moving: float = 0.0

    @property
    def instruction_id(self) -> int:
        return instruction_id(self.instruction)

    @property
    def duration(self) -> float | None:
        """s from instruction to success."""
        return None if self.success_ns is None else (self.success_ns - self.begin_ns) / NS


def step_at(steps: list[Step], stamp_ns: int) -> Step | None:
    """The step whose instruction is valid at a time."""
    begun = [step for step in steps if step.begin_ns is not None and step.begin_ns <= stamp_ns]
    return begun[-1] if begun else None


@dataclass(frozen=True)
class Motion:
    """Times are ns of ROS time, positions rad or m in the order of the robot file.

    Attributes:
        command_ns: (N,), with commands (N, J); NaN until a joint's group was commanded first.
        chunks: every chunk that the policy published, with its (H, J) rows, NaN for joints that it does not contain.
    """

    command_ns: np.ndarray
    commands: np.ndarray
    chunks: list[tuple[ActionChunk, np.ndarray]]


def read_motion(path: Path, robot: RobotSpec) -> Motion:
    """Commands and chunks of a bag. Raises InputError."""
    groups = {resolve(group.topic): group for group in robot.groups}
    columns = {joint: index for index, joint in enumerate(robot.joint_names)}
    times, rows, chunks = [], [], []
    current = np.full(len(robot.joints), np.nan)
    with Bag(path) as bag:
        for record in bag.records([*groups, resolve(CHUNK)]):
            message = bag.decode(record)
            if record.topic in groups:
                group = groups[record.topic]
                current[[columns[joint] for joint in group.joints]] = read_command(group, message)
                stamp = bag.header_ns(record) or record.log_ns
                if times and times[-1] == stamp:  # several groups make one command
                    rows[-1] = current.copy()
                else:
                    times.append(stamp)
                    rows.append(current.copy())
            else:
                chunk = read_chunk(message)
                chunks.append((chunk, chunk.targets.joint_positions(robot.joint_names, np.full(len(current), np.nan))))
    return Motion(np.array(times, dtype=np.int64), np.array(rows).reshape(-1, len(robot.joints)), chunks)


def read_frames(path: Path, robot: RobotSpec) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(stamp, camera -> (h, w, 3) uint8 RGB) at each image of the last camera, with the newest of the others."""
    with Bag(path) as bag:
        topics = {}
        for camera in robot.cameras:
            name = resolve(camera.topic)
            topics[name if name in bag.topics else name + SUFFIX] = camera
        newest: dict[str, np.ndarray] = {}
        for record in bag.records(list(topics)):
            camera = topics[record.topic]
            newest[camera.name] = rgb_image(bag.decode(record))
            if camera is robot.cameras[-1] and len(newest) == len(topics):
                yield bag.header_ns(record), dict(newest)


def side_by_side(images: list[np.ndarray]) -> np.ndarray:
    """(h, sum of widths, 3): all as high as the first."""
    height = images[0].shape[0]
    scaled = [
        image if image.shape[0] == height
        else cv2.resize(image, (round(image.shape[1] * height / image.shape[0]), height), interpolation=cv2.INTER_AREA)
        for image in images
    ]
    return np.concatenate(scaled, axis=1)
