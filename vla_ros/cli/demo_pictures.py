"""The pictures of a demo: a video with the instruction above the cameras, and each joint's command over its chunks."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.collections import LineCollection

from vla_ros.core.robot import RobotSpec
from vla_ros.graph.demo_bag import Motion, Step, read_frames, side_by_side, step_at
from vla_ros.messages.stamps import NS

pyplot.rcParams["text.parse_math"] = False  # names and instructions are shown literally

BANNER = 56  # pixels, even
FPS = 30
_WHITE, _GREY, _GREEN = (240, 240, 240), (150, 150, 150), (110, 220, 120)
# Colour-blind safe; one for each instruction, again from the start when there are more.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
ZOOM = 2.4  # s


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


def write_plot(motion: Motion, robot: RobotSpec, steps: list[Step], path: Path) -> None:
    """A row for each joint: the whole run on the left, on the right the moment of a change of instruction."""
    steps = [step for step in steps if step.begin_ns is not None]
    start = min([step.begin_ns for step in steps] + [int(motion.command_ns[0])] if len(motion.command_ns) else [0])
    end = max([step.end_ns or step.begin_ns for step in steps] + [int(t) for t in motion.command_ns[-1:]] or [1])
    colours = {step.instruction: _COLOURS[i % len(_COLOURS)] for i, step in enumerate(steps)}
    change = steps[1].begin_ns if len(steps) > 1 else start + NS
    middle = (change - start) / NS + 0.25 * ZOOM
    rows = len(robot.joints)
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(
            rows, 2, figsize=(16, 1.9 * rows + 1.2), sharex="col", squeeze=False,
            gridspec_kw={"width_ratios": [2.2, 1.0], "hspace": 0.16, "wspace": 0.1, "top": 0.915},
        )
        for row, joint in enumerate(robot.joints):
            for column, axis in enumerate(axes[row]):
                _draw(axis, motion, row, steps, colours, start, fine=column == 1)
                axis.grid(alpha=0.2)
            axes[row, 0].set_ylabel(f"{joint.name}\n[{joint.unit}]")
            axes[row, 0].set_xlim(0, (end - start) / NS)
            axes[row, 1].set_xlim(middle - ZOOM / 2, middle + ZOOM / 2)
            _fit(axes[row, 1], motion, row, start)
        for axis in axes[-1]:
            axis.set_xlabel("time [s]")
        axes[0, 0].set_title("the whole run", loc="left")
        axes[0, 1].set_title("where the instruction changes", loc="left")
        handles = [
            pyplot.Line2D([], [], color="black", linewidth=1.6, label="command"),
            *(pyplot.Line2D([], [], color=colour, linewidth=1.2, alpha=0.7, label=f"chunks: {text}")
              for text, colour in colours.items()),
            pyplot.Line2D([], [], color="grey", linestyle="--", label="instruction published"),
            pyplot.Line2D([], [], color="green", linestyle=":", label="task done"),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="upper center", ncols=min(len(handles), 6), frameon=False,
                      bbox_to_anchor=(0.5, 0.975))
        figure.suptitle(f"{robot.name}: commands over the chunks that they were blended from", y=0.995, fontsize=12)
        figure.savefig(path, dpi=110, bbox_inches="tight")
        pyplot.close(figure)


def _draw(axis, motion: Motion, joint: int, steps: list[Step], colours: dict[str, str], start: int, fine: bool) -> None:
    by_step: dict[str, list[np.ndarray]] = {}
    for chunk, rows in motion.chunks:
        step = next((s for s in reversed(steps) if s.instruction_id == chunk.instruction_id
                     and s.begin_ns <= chunk.stamp_ns + NS), None)  # fmt: skip
        if step is None:
            continue
        times = (chunk.stamp_ns - start) / NS + chunk.step_dt * np.arange(chunk.horizon)
        by_step.setdefault(step.instruction, []).append(np.stack([times, rows[:, joint]], axis=1))
    for text, lines in by_step.items():
        width, alpha = (0.9, 0.55) if fine else (0.5, 0.3)
        axis.add_collection(LineCollection(lines, colors=colours[text], linewidths=width, alpha=alpha))
        if fine:  # where each chunk begins
            begins = np.array([line[0] for line in lines])
            axis.plot(begins[:, 0], begins[:, 1], ".", color=colours[text], markersize=3.5)
    times = (motion.command_ns - start) / NS
    axis.plot(times, motion.commands[:, joint], color="black", linewidth=1.6 if fine else 1.1)
    for step in steps:
        axis.axvline((step.begin_ns - start) / NS, color="grey", linestyle="--", linewidth=0.9)
        if step.success_ns is not None:
            axis.axvline((step.success_ns - start) / NS, color="green", linestyle=":", linewidth=1.2)
    axis.autoscale_view()


def _fit(axis, motion: Motion, joint: int, start: int) -> None:
    """Fit the vertical range to the part between the horizontal limits."""
    low, high = axis.get_xlim()
    times = (motion.command_ns - start) / NS
    seen = [motion.commands[(times >= low) & (times <= high), joint]]
    for chunk, rows in motion.chunks:
        at = (chunk.stamp_ns - start) / NS + chunk.step_dt * np.arange(chunk.horizon)
        seen.append(rows[(at >= low) & (at <= high), joint])
    values = np.concatenate(seen)
    values = values[np.isfinite(values)]
    if len(values):
        room = 0.08 * max(float(np.ptp(values)), 1e-3)
        axis.set_ylim(values.min() - room, values.max() + room)
