"""Frames to H.264 and back (PyAV)."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.files import regular

# Full chroma resolution and a fine quantiser: colours of small objects are what a policy looks for. On rendered
# 96x96 frames the mean absolute error of decoded frames stays below 1.5 of 255 levels (test_lerobot.py pins it).
PIXEL_FORMAT = "yuv444p"
CRF = 14
KEYFRAME_INTERVAL = 10  # frames; random access decodes at most this many


def video_info(height: int, width: int, fps: float) -> dict[str, Any]:
    """Of a feature that is stored as video, as info.json describes it."""
    stream = {"height": height, "width": width, "codec": "h264", "pix_fmt": PIXEL_FORMAT, "crf": CRF, "fps": fps}
    stream |= {"channels": 3, "is_depth_map": False}
    return {f"video.{name}": value for name, value in stream.items()} | {"has_audio": False}


class VideoWriter:
    """One mp4 file; frames of several episodes follow one another, each episode starts with a keyframe."""

    def __init__(self, path: Path, fps: float, height: int, width: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.frames = 0
        self.bytes = 0  # encoded so far
        rate = Fraction(fps).limit_denominator(1001)
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream(
            "libx264", rate=rate, options={"crf": str(CRF), "preset": "fast", "bf": "0"}
        )
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = PIXEL_FORMAT
        self._stream.codec_context.time_base = 1 / rate
        self._stream.codec_context.gop_size = KEYFRAME_INTERVAL
        self._stream.codec_context.thread_count = 1  # the same bytes on every machine

    def add(self, frames: np.ndarray) -> None:
        """Append (T, h, w, 3) uint8 RGB frames of one episode."""
        for k, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = self.frames
            frame.time_base = self._stream.codec_context.time_base
            if k == 0:
                frame.pict_type = av.video.frame.PictureType.I
            self._mux(self._stream.encode(frame))
            self.frames += 1

    def close(self) -> None:
        self._mux(self._stream.encode())
        self._container.close()

    def _mux(self, packets: list[av.Packet]) -> None:
        self.bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)


def decode(path: Path, start: float = 0.0) -> Iterator[np.ndarray]:
    """(h, w, 3) uint8 RGB frames from `start` s on, in order.

    Raises InputError that names the file when it is missing or cannot be decoded.
    """
    try:
        with av.open(str(regular(path, "video"))) as container:
            stream = container.streams.video[0]
            if stream.codec_context is None or not stream.average_rate:
                raise InputError(f"video {path}: of no known codec, or without a frame rate")
            stream.codec_context.thread_count = 1
            half = 0.5 / float(stream.average_rate)
            if start > half:
                container.seek(int(start / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.time is None or frame.time > start - half:
                    yield frame.to_ndarray(format="rgb24")
    except InputError:
        raise
    except (OSError, ValueError, IndexError, ArithmeticError, TypeError, av.FFmpegError) as error:
        raise InputError(f"video {path}: {error}") from error
