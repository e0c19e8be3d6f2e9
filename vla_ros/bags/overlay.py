"""The chunks of policies over what was recorded, with pictures: files that the console's page plays.

`overlay.json` holds the episodes; pictures are JPEG files named EPISODE_FRAME_CAMERA.jpg.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.bags.evaluate import Evaluation
from vla_ros.bags.frames import Frame
from vla_ros.core.errors import InputError
from vla_ros.core.files import new_file, read_bytes
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.images import jpeg, narrowed

FILE = "overlay.json"
WIDEST = 320  # pixels of a picture
MOST_BYTES = 64 << 20
_PICTURE_PERIOD = 0.2  # s from one picture to the next
_QUALITY = 70  # of a JPEG
_DIGITS = 4


class Overlay:
    """Takes the frames of an evaluation as they come; see `evaluate`."""

    def __init__(self, folder: str | Path, robot: RobotSpec, names: Sequence[str], step_dt: float) -> None:
        """`folder`: is made, and holds pictures from the first frame on. `names`: of the policies.

        Raises InputError where it cannot be written.
        """
        self._folder, self._robot, self._names, self._step_dt = Path(folder), robot, list(names), step_dt
        self._every = max(round(_PICTURE_PERIOD / step_dt), 1)
        self._episodes: list[dict[str, Any]] = []
        self._cameras: list[str] = []
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for old in (self._folder / FILE, *self._folder.glob("*_*_*.jpg")):
                old.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"overlay {self._folder}: {error.strerror}") from error

    def take(self, frame: Frame, chunks: Sequence[np.ndarray]) -> None:
        """A frame, and the (H, J) chunks of the policies that were observed there, none where they were not asked."""
        if frame.index == 0:
            self._episodes.append({"instruction": frame.episode.cut.instruction, "t": [], "measured": [],
                                   "command": [], "chunks": [], "pictures": []})  # fmt: skip
        if frame.error is not None:
            return
        episode, t = self._episodes[-1], round(frame.index * self._step_dt, _DIGITS)
        episode["t"].append(t)
        episode["measured"].append(_values(frame.observation.state))
        episode["command"].append(_values(frame.action))
        for policy, chunk in enumerate(chunks[: len(self._names)]):
            episode["chunks"].append({"t": t, "policy": policy, "rows": [_values(row) for row in chunk]})
        if frame.index % self._every == 0:
            for camera, name in enumerate(frame.observation.images):
                file = f"{len(self._episodes) - 1}_{frame.index}_{name}.jpg"
                self._write(file, jpeg(narrowed(frame.observation.images[name], WIDEST), _QUALITY))
                episode["pictures"].append({"t": t, "camera": camera, "file": file})
            self._cameras = list(frame.observation.images)

    def finish(self, evaluations: Sequence[Evaluation], verdict: str = "") -> Path:
        """Write the file, with the policies' scores, and return it. Raises InputError."""
        robot = self._robot
        data = {
            "joints": [{"name": j.name, "unit": j.unit, "lower": j.lower, "upper": j.upper} for j in robot.joints],
            "policies": [{"name": e.name, "score": round(e.score, 6)} for e in evaluations], "verdict": verdict,
            "step_dt": self._step_dt, "cameras": self._cameras,
            "episodes": [episode for episode in self._episodes if episode["t"]],
        }  # fmt: skip
        with new_file(self._folder / FILE, "overlay") as file:
            file.write_text(json.dumps(data, allow_nan=False), encoding="utf-8")
        return self._folder / FILE

    def _write(self, name: str, data: bytes) -> None:
        try:
            (self._folder / name).write_bytes(data)
        except OSError as error:
            raise InputError(f"overlay {self._folder / name}: {error.strerror}") from error


def read_overlay(folder: Path) -> dict[str, Any]:
    """What `finish` wrote, and its pictures as bytes under "jpeg". Raises InputError."""
    try:
        data = json.loads(read_bytes(folder / FILE, "overlay", MOST_BYTES))
        for episode in data["episodes"]:
            for picture in episode["pictures"]:
                picture["jpeg"] = read_bytes(folder / Path(picture["file"]).name, "picture", MOST_BYTES)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / FILE}: {type(error).__name__}: {error}, expected what `vla-ros replay --overlay` "
                         "writes") from None
    return data


def _values(row: np.ndarray) -> list[float | None]:
    return [round(float(value), _DIGITS) if np.isfinite(value) else None for value in row]
