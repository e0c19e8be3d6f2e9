"""The video of a demo: cameras side by side, the instruction and its outcome written above."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from vla_ros.core.robot import RobotSpec
from vla_ros.graph.demo_bag import NS, Step, read_frames, side_by_side, step_at

BANNER = 56  # pixels, even
FPS = 30
_WHITE, _GREY, _GREEN = (240, 240, 240), (150, 150, 150), (110, 220, 120)


def banner(width: int, step: Step | None, stamp_ns: int, start_ns: int) -> np.ndarray:
    """(BANNER, width, 3) uint8: the instruction, whether it is done, and the time of the run."""
    image = np.full((BANNER, width, 3), 24, np.uint8)
    font, line = cv2.FONT_HERSHEY_DUPLEX, cv2.LINE_AA
    if step is not None:
        cv2.putText(image, step.instruction, (16, 37), font, 0.9, _WHITE, 1, line)
        if step.success_ns is not None and stamp_ns >= step.success_ns:
            (used, _), _ = cv2.getTextSize(step.instruction, font, 0.9, 1)
            words = f"done after {step.duration:.1f} s"
            cv2.putText(image, words, (16 + used + 24, 37), font, 0.75, _GREEN, 1, line)
    words = f"{(stamp_ns - start_ns) / NS:5.1f} s"
    (used, _), _ = cv2.getTextSize(words, font, 0.75, 1)
    cv2.putText(image, words, (width - used - 16, 37), font, 0.75, _GREY, 1, line)
    return image


def write_video(bag: Path, robot: RobotSpec, steps: list[Step], path: Path) -> int:
    """H.264 in yuv420p, which every player takes, with the times of the images. Returns the number of frames."""
    count, start, last_pts = 0, None, -1
    time_base = Fraction(1, 1000)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = None
        for stamp, images in read_frames(bag, robot):
            picture = side_by_side([images[camera.name] for camera in robot.cameras])
            start = stamp if start is None else start
            picture = np.concatenate([banner(picture.shape[1], step_at(steps, stamp), stamp, start), picture])
            picture = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2])
            if stream is None:
                stream = container.add_stream("libx264", rate=FPS, options={"crf": "21", "preset": "medium"})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = time_base
            pts = round((stamp - start) / 1e6)
            if pts <= last_pts:
                continue
            last_pts = pts
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = pts, time_base
            container.mux(stream.encode(frame))
            count += 1
        if stream is not None:
            container.mux(stream.encode())
    return count
