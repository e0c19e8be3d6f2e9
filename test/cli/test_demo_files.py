"""The video and the plot of a demo, from a bag of a run that is made up here."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="messages are serialized by ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_ros.bags.writer import BagWriter
from vla_ros.cli import demo_pictures
from vla_ros.cli.demo_pictures import BANNER, write_plot, write_video
from vla_ros.core.chunk import ActionChunk as Chunk
from vla_ros.core.chunk import Part, Targets
from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.graph.demo_bag import Step, read_motion, step_at
from vla_ros.messages.chunks import chunk_message
from vla_ros.messages.commands import CommandWriter
from vla_ros.messages.stamps import NS, set_stamp
from vla_ros.msg import ActionChunk, ActionPart

ROBOT = RobotSpec.load(Path(__file__).parents[2] / "config" / "robots" / "so101.yaml")
START = 100 * NS


def wish(t: np.ndarray) -> np.ndarray:
    """(N,) times to (N, 6) positions."""
    return 0.5 * np.sin(np.asarray(t)[:, None] * 0.8 + np.arange(6))


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return [
        Step("touch the red cube", START, START + 3 * NS, START + 4 * NS),
        Step("pick up the blue cube", START + 4 * NS, None, START + 8 * NS),
    ]


@pytest.fixture(scope="module")
def bag(tmp_path_factory, steps) -> Path:
    """8 s: commands at 50 Hz, chunks and compressed images of 160x120 at 10 Hz."""
    path = tmp_path_factory.mktemp("demo") / "bag"
    writer = BagWriter(path)
    groups = [
        (f"/{g.topic}", CommandWriter(g, JointTrajectory(), JointTrajectoryPoint),
         [ROBOT.joint_names.index(joint) for joint in g.joints]) for g in ROBOT.groups
    ]  # fmt: skip
    for topic, _, _ in groups:
        writer.add_topic(topic, "trajectory_msgs/msg/JointTrajectory")
    writer.add_topic("/action_chunk", "vla_ros/msg/ActionChunk")
    for camera in ROBOT.cameras:
        writer.add_topic(f"/{camera.topic}/compressed", "sensor_msgs/msg/CompressedImage")
    rng = np.random.default_rng(0)
    for k in range(400):
        stamp = START + k * NS // 50
        for topic, command, columns in groups:
            message = command.fill(wish([k / 50])[0, columns], stamp)
            writer.write(topic, stamp, serialize_message(message))
        if k % 5 == 0:
            times = k / 50 + 0.1 * np.arange(16)
            data = wish(times) + np.cumsum(rng.normal(0, 0.01, (16, 6)), axis=0)
            step = step_at(steps, stamp)
            targets = Targets((Part(ROBOT.joint_names, data),))
            chunk = Chunk(stamp, 0.1, targets, instruction_id(step.instruction), k // 5, 1)
            writer.write("/action_chunk", stamp, serialize_message(chunk_message(ActionChunk, ActionPart, chunk)))
            for camera in ROBOT.cameras:
                message = set_stamp(CompressedImage(), stamp)
                picture = np.full((120, 160, 3), 60 + k // 4, np.uint8)
                message.format, message.data = "jpeg", cv2.imencode(".jpg", picture)[1].tobytes()
                writer.write(f"/{camera.topic}/compressed", stamp, serialize_message(message))
    writer.close()
    return path


def test_motion_is_read_back(bag):
    motion = read_motion(bag, ROBOT)
    assert motion.commands.shape == (400, 6) and len(motion.chunks) == 80
    np.testing.assert_allclose(motion.commands, wish((motion.command_ns - START) / NS), atol=1e-6)


def test_the_video_plays_anywhere_and_keeps_the_times(bag, steps, tmp_path):
    path = tmp_path / "demo.mp4"
    assert write_video(bag, ROBOT, steps, path) == 80
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        frames = list(container.decode(stream))
    assert len(frames) == 80
    assert [round(frame.time, 3) for frame in frames[:3]] == [0.0, 0.1, 0.2]
    first = frames[0].to_ndarray(format="rgb24")
    assert first.shape == (120 + BANNER, 320, 3)
    assert first[:BANNER].max() > 200  # something is written
    assert abs(float(first[BANNER:].mean()) - 60) < 5


def test_the_video_of_a_busy_machine_plays_at_real_speed(steps, tmp_path, monkeypatch):
    """Its frames come when they come."""
    times, picture = [0.0, 2.0, 2.05, 5.5], np.zeros((48, 64, 3), np.uint8)
    frames = [(START + round(at * NS), {camera.name: picture for camera in ROBOT.cameras}) for at in times]
    monkeypatch.setattr(demo_pictures, "read_frames", lambda bag, robot: frames)
    assert write_video(tmp_path, ROBOT, steps, tmp_path / "demo.mp4") == 4
    with av.open(str(tmp_path / "demo.mp4")) as container:
        assert [round(frame.time, 3) for frame in container.decode(video=0)] == times


def test_the_plot_is_drawn(bag, steps, tmp_path):
    path = tmp_path / "commands.png"
    write_plot(read_motion(bag, ROBOT), ROBOT, steps, path)
    picture = cv2.imread(str(path))
    assert picture.shape[0] > 800 and picture.shape[1] > 1200 and picture.std() > 10
