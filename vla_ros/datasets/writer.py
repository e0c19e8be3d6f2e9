"""Writing the LeRobot dataset format, version 3."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_ros.core.errors import InputError
from vla_ros.core.files import new_file
from vla_ros.core.robot import RobotSpec
from vla_ros.core.tool import ToolColumns
from vla_ros.datasets.statistics import PixelStatistics, Statistics
from vla_ros.datasets.tool import tool_info
from vla_ros.datasets.values import (
    IMAGE_NAMES,
    IMAGE_PREFIX,
    ONCE_FILE,
    column,
    feature,
    feature_key,
    filled,
    statistics,
)  # fmt: skip
from vla_ros.datasets.video import VideoWriter, video_info

CODEBASE_VERSION = "v3.0"
CHUNK_FILES = 1000  # files per chunk folder
DATA_FILE_MB = 100  # a file that has grown beyond its limit is followed by a new one at the next episode
VIDEO_FILE_MB = 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


class Outcome(NamedTuple):
    """How an episode ended: success, failure, aborted, or "" if not reported; who reported it, and why."""

    outcome: str = ""
    by: str = ""
    message: str = ""


NOBODY_SAID = Outcome()


class DatasetWriter:
    """Writes a dataset episode by episode; `finish` completes it.

    `meta/info.json` is written last, in one step: readers report a folder without it as incomplete. Images are
    stored as they come; to store smaller ones, scale them as policies do (`policies.images.resize_within`).

    Args:
        path: folder to make. An existing one that is not empty is an InputError.
        robot: names of joints and cameras, further streams, and the robot's type, come from here.
        fps: Hz, of the policy's clock.
        tool: actions are poses of it and targets of its `joints`; None: targets of all joints.
        marks: columns of booleans, such as `values.INTERVENTION`.
        simulator: how a simulator made it, for `simulator` of `meta/info.json`.
    """

    def __init__(
        self, path: str | Path, robot: RobotSpec, fps: float, tool: ToolColumns | None = None,
        marks: Collection[str] = (), simulator: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.robot, self.tool, self._marks = robot, tool, tuple(marks)
        self._simulator = dict(simulator or {})
        self._names = {"states": robot.joint_names, "actions": tool.names if tool else robot.joint_names}
        self.fps = float(fps)
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise InputError(f"dataset {self.path}: exists and is not empty, expected a new folder")
        if not 0 < self.fps < np.inf:
            raise InputError(f"dataset {self.path}: fps {fps}, expected a positive number")
        (self.path / "meta").mkdir(parents=True)
        self._cameras: dict[str, tuple[int, int]] | None = None
        self._videos: dict[str, VideoWriter] = {}
        self._video_index: dict[str, int] = {}
        self._data: pq.ParquetWriter | None = None
        self._data_index = -1
        self._pixels: dict[str, PixelStatistics] = {}
        self._readings = {
            name: (stream, shape, dtype)
            for stream in robot.streams for name, (shape, dtype) in stream.readings.items()
        }  # fmt: skip
        self._once: dict[str, np.ndarray] = {}
        self._rows: dict[str, list[np.ndarray]] = {}  # what statistics are made of
        self._episodes: list[dict] = []
        self._tasks: dict[str, int] = {}
        self._frames = 0

    def add_episode(
        self,
        images: Mapping[str, np.ndarray],
        states: np.ndarray,
        actions: np.ndarray,
        instruction: str,
        values: Mapping[str, np.ndarray] | None = None,
        outcome: Outcome = NOBODY_SAID,
        marks: Mapping[str, np.ndarray] | None = None,
        variation: Mapping[str, Any] | None = None,
    ) -> None:
        """Append an episode of T frames.

        Args:
            images: camera name -> (T, h, w, 3) uint8 RGB. Every episode has the same cameras and sizes.
            states: (T, J) joint positions in the order of the robot file, rad or m.
            actions: (T, J) joint targets, rad or m, or (T, A) in the order of `tool.names`; row t is the command at
                the time of frame t.
            instruction: what the episode shows.
            values: name -> (T, *shape) of every reading of the robot file's `streams`.
            marks: name -> (T,) bool, of each of the writer's `marks`; others are left out.
            variation: what looks different in this episode, kept as JSON in the episode table.

        Raises:
            InputError: for shapes, types or values that do not fit; nothing of the episode is written.
        """
        where = f"dataset {self.path}: episode {len(self._episodes)} ({instruction!r})"
        rows = {"observation.state": np.asarray(states, np.float32), "action": np.asarray(actions, np.float32)}
        self._check(images, *rows.values(), where)
        rows |= self._take_values(values or {}, len(states), where)
        rows |= {name: np.asarray(marks[name], bool).reshape(len(states), 1) for name in self._marks}
        task = self._tasks.setdefault(instruction, len(self._tasks))
        index, length = len(self._episodes), len(states)
        row = {"episode_index": index, "tasks": [instruction], "length": length}
        row |= {"outcome": outcome.outcome, "outcome_by": outcome.by, "outcome_message": outcome.message}
        row |= {"variation": json.dumps(variation)} if variation else {}
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + length}
        for camera, frames in images.items():
            row |= self._add_video(camera, frames)
        row |= self._add_rows(rows, length, index, task)
        for key, values in rows.items():
            if values.dtype == np.uint16:
                row |= self._add_pixels(key, values)
                continue
            if f"{key}_count" in rows:  # the rows after the points are padding
                values = filled(values, rows[f"{key}_count"])
            self._rows.setdefault(key, []).append(values)
            row |= _flat(key, statistics([values], length))
        self._episodes.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self._frames += length

    def finish(self) -> None:
        """Close the files, write statistics and, last, `meta/info.json`. Raises InputError without episodes."""
        if not self._episodes:
            raise InputError(f"dataset {self.path}: no episodes, nothing to finish")
        for video in self._videos.values():
            video.close()
        self._data.close()
        pq.write_table(_task_table(self._tasks), self.path / "meta" / "tasks.parquet")
        episodes = self.path / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), episodes)
        found = {key: statistics(parts, self._frames) for key, parts in self._rows.items()}
        found |= {key: pixels.result() for key, pixels in self._pixels.items()}
        if self._once:
            np.savez(self.path / "meta" / ONCE_FILE, **self._once)
        plain = {key: {name: value.tolist() for name, value in part.items()} for key, part in found.items()}
        _write_json(self.path / "meta" / "stats.json", plain)
        _write_json(self.path / "meta" / "info.json", self._info())

    def _check(self, images, states, actions, where: str) -> None:
        for name, rows in (("states", states), ("actions", actions)):
            names = self._names[name]
            if rows.ndim != 2 or rows.shape[1] != len(names) or not len(rows):
                raise InputError(f"{where}: {name} of shape {rows.shape}, expected (T, {len(names)})")
            for t, j in np.argwhere(~np.isfinite(rows)):
                raise InputError(f"{where}: {name} of joint {names[j]} at frame {t} is {rows[t, j]}")
        if len(actions) != len(states):
            raise InputError(f"{where}: {len(actions)} actions for {len(states)} states, expected as many")
        for camera, frames in images.items():
            if camera not in self.robot.camera_names:
                raise InputError(f"{where}: camera {camera!r}, expected some of {self.robot.camera_names}")
            if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or len(frames) != len(states):
                raise InputError(
                    f"{where}: camera {camera}: {frames.dtype} of shape {frames.shape}, "
                    f"expected uint8 ({len(states)}, h, w, 3)"
                )
        sizes = {camera: frames.shape[1:3] for camera, frames in images.items()}
        if self._cameras is not None and sizes != self._cameras:
            raise InputError(f"{where}: cameras {sizes}, expected those of the episodes before: {self._cameras}")
        self._cameras = sizes

    def _take_values(self, values: Mapping[str, np.ndarray], length: int, where: str) -> dict[str, np.ndarray]:
        """Feature key -> (T, *shape); what is published once goes to `_once`. Raises InputError for other shapes."""
        if set(values) != set(self._readings):
            raise InputError(f"{where}: values of {sorted(values)}, the robot file has {sorted(self._readings)}")
        for name, rows in values.items():
            stream, shape, dtype = self._readings[name]
            if rows.shape != (length, *shape) or (rows.dtype.kind != "U" if dtype == "string" else rows.dtype != dtype):
                raise InputError(f"{where}: {name}: {rows.dtype} {rows.shape}, expected {dtype} {(length, *shape)}")
            if stream.once and not (rows == self._once.get(name, rows[0])).all():
                raise InputError(f"{where}: {name} is published once, but has changed; build separate datasets")
        self._once |= {name: rows[0] for name, rows in values.items() if self._readings[name][0].once}
        return {feature_key(n, self._readings[n][2]): rows for n, rows in values.items() if n not in self._once}

    def _add_video(self, camera: str, frames: np.ndarray) -> dict:
        key = f"{IMAGE_PREFIX}{camera}"
        video = self._videos.get(camera)
        if video is None or video.bytes > VIDEO_FILE_MB * 2**20:
            if video is not None:
                video.close()
            self._video_index[camera] = self._video_index.get(camera, -1) + 1
            path = self.path / VIDEO_PATH.format(video_key=key, **_place(self._video_index[camera]))
            video = self._videos[camera] = VideoWriter(path, self.fps, *frames.shape[1:3])
        row = _place(self._video_index[camera]) | {"from_timestamp": video.seconds}
        video.add(frames)
        row["to_timestamp"] = video.seconds
        return {f"videos/{key}/{name}": value for name, value in row.items()} | self._add_pixels(key, frames)

    def _add_pixels(self, key: str, frames: np.ndarray) -> dict:
        pixels = PixelStatistics(frames)
        row = _flat(key, pixels.result())
        self._pixels[key] = pixels.merge(self._pixels[key]) if key in self._pixels else pixels
        return row

    def _add_rows(self, rows: Mapping[str, np.ndarray], length: int, episode: int, task: int) -> dict:
        table = pa.table({
            **{key: column(values) for key, values in rows.items()},
            "timestamp": np.arange(length, dtype=np.float32) / np.float32(self.fps),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, episode),
            "index": np.arange(self._frames, self._frames + length),
            "task_index": np.full(length, task),
        })  # fmt: skip
        if self._data is None or Path(self._data.where).stat().st_size > DATA_FILE_MB * 2**20:
            if self._data is not None:
                self._data.close()
            self._data_index += 1
            path = self.path / DATA_PATH.format(**_place(self._data_index))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = pq.ParquetWriter(str(path), table.schema, compression="snappy")
        self._data.write_table(table)
        return {f"data/{name}": value for name, value in _place(self._data_index).items()}

    def _info(self) -> dict:
        state, action = (
            {"dtype": "float32", "shape": [len(names)], "names": list(names)} for names in self._names.values()
        )
        info = {"groups": {group.name: list(group.joints) for group in self.robot.groups}}
        info |= {"base": self.robot.path_axes or {}}
        info |= {"tool": tool_info(self.tool)} if self.tool else {}
        features = {"observation.state": state, "action": action | {"info": info}}
        for camera, (height, width) in self._cameras.items():
            row = {"dtype": "video", "shape": [height, width, 3], "names": IMAGE_NAMES}
            features[f"{IMAGE_PREFIX}{camera}"] = row | {"info": video_info(height, width, self.fps)}
        for name, (stream, shape, dtype) in self._readings.items():
            if not stream.once:
                features[feature_key(name, dtype)] = feature(stream, shape, dtype)
        features |= {name: {"dtype": "bool", "shape": [1], "names": None} for name in self._marks}
        features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index"):
            features[name] = {"dtype": "int64", "shape": [1], "names": None}
        return {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": self.robot.name,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "fps": int(self.fps) if self.fps.is_integer() else self.fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": features,
        } | ({"simulator": self._simulator} if self._simulator else {})


def _place(file: int) -> dict[str, int]:
    """Of the file of that number."""
    return dict(zip(("chunk_index", "file_index"), divmod(file, CHUNK_FILES), strict=True))


def _flat(feature: str, statistics: Statistics) -> dict:
    """Columns `stats/FEATURE/NAME` of the episode table."""
    return {f"stats/{feature}/{name}": value.tolist() for name, value in statistics.items()}


def _task_table(tasks: Mapping[str, int]) -> pa.Table:
    """Text -> number as LeRobot reads it: through pandas, with the text as the index."""
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}
        for name, (kind, numpy_type) in kinds.items()
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array(list(tasks.values()), pa.int64()), "task": list(tasks)})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _write_json(path: Path, value: dict) -> None:
    with new_file(path, "dataset") as part:
        part.write_text(json.dumps(value, indent=4), encoding="utf-8")
