"""Frames to H.264 and back (PyAV)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
TOLERANCE = 1e-4  # s between the time of a row and that of its frame; LeRobot's own


class NoFrame(InputError):
    """There is no frame for a row.

    Attributes:
        row: of the episode.
        why: the message without what it is about.
    """

    def __init__(self, row: int, why: str, where: str = "") -> None:
        super().__init__(f"{where}row {row}: {why}")
        self.row, self.why = int(row), why


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
        self._rate = rate = Fraction(fps).limit_denominator(1001)
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream(
            "libx264", rate=rate, options={"crf": str(CRF), "preset": "fast", "bf": "0"}
        )
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = PIXEL_FORMAT
        self._stream.codec_context.time_base = 1 / rate
        self._stream.codec_context.gop_size = KEYFRAME_INTERVAL
        self._stream.codec_context.thread_count = 1  # the same bytes on every machine

    @property
    def seconds(self) -> float:
        """The time of the next frame; by the file's clock, which may differ from that of the rows by 1e-6 Hz."""
        return float(self.frames / self._rate)

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


def frames_at(
    path: Path, times: np.ndarray, pixels: Callable[[av.VideoFrame], np.ndarray] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(k, the frame at `times[k]`) for every k, in the order of the times.

    Args:
        times: (T,) s in the video. A frame must be there within TOLERANCE, plus the rounding of float32 seconds and of
            the video's clock: frames are never interpolated, and two times may give the same frame.
        pixels: makes an array of a frame; (h, w, 3) uint8 RGB by default.

    Raises InputError that names the file when it is missing or cannot be decoded, NoFrame for a k that has none.
    """
    order = np.argsort(times, kind="stable").tolist()
    last: float | None = None
    with _opened(path) as (container, stream):
        single = min(float(np.abs(times).max()) * 2.0**-23, 10 * TOLERANCE)  # the spacing of float32 seconds
        span = TOLERANCE + single + 0.5 * float(stream.time_base)
        for frame in _frames(container, stream, float(times[order[0]]), span):
            if frame.time is None:
                raise InputError(f"video {path}: a frame without a time")
            image = None
            while order and times[order[0]] <= frame.time + span:
                if times[order[0]] < frame.time - span:
                    raise _no_frame(path, order[0], times, last, frame.time)
                image = (pixels or _rgb)(frame) if image is None else image
                yield order.pop(0), image
            if not order:
                return
            last = frame.time
    raise _no_frame(path, order[0], times, last, None)


def _no_frame(path: Path, k: int, times: np.ndarray, before: float | None, after: float | None) -> InputError:
    beside = [f"{time:.4f}" for time in (before, after) if time is not None]
    found = f"the nearest are at {' and '.join(beside)} s" if beside else "it has none"
    found += "" if after is not None else ", and there the video ends"
    return NoFrame(k, f"video {path} has no frame at {times[k]:.4f} s, {found}")


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24")


def _frames(container: Any, stream: Any, start: float, span: float) -> Iterator[av.VideoFrame]:
    """Frames in the order of their times, from one not after `start` s on, where there is one."""
    frames = container.decode(stream)
    if start > span:
        container.seek(int(start / stream.time_base), stream=stream, backward=True)
        first = next(frames, None)
        if first is not None and first.time is not None and first.time <= start + span:
            yield first
        else:  # the index of the file is wrong
            container.seek(0, stream=stream, backward=True)
            frames = container.decode(stream)
    yield from frames


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    try:
        with av.open(str(regular(path, "video"))) as container:
            stream = container.streams.video[0]
            if stream.codec_context is None or not stream.time_base:
                raise InputError(f"video {path}: unknown codec, or no clock")
            stream.codec_context.thread_count = 1
            yield container, stream
    except InputError:
        raise
    except (OSError, ValueError, IndexError, ArithmeticError, TypeError, av.FFmpegError) as error:
        raise InputError(f"video {path}: {' '.join(str(error).split())}") from error
