"""LeRobot datasets: written in version 3, read in versions 2.1 and 3."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import new_file
from vla_ros.core.hub import snapshot
from vla_ros.core.records import value_of
from vla_ros.core.statistics import of_rows
from vla_ros.datasets.depth import DepthCode, is_depth
from vla_ros.datasets.index import Episode, joint_names, named_by_lerobot, read_episodes, read_info, read_statistics
from vla_ros.datasets.instructions import has_subtasks, texts_of_rows
from vla_ros.datasets.parquet import read_rows
from vla_ros.datasets.rows import place, read_columns
from vla_ros.datasets.statistics import Computed, Statistics
from vla_ros.datasets.tool import read_tool
from vla_ros.datasets.values import (
    IMAGE_PREFIX,
    INTERVENTION,
    ONCE_FILE,
    SUCCESS,
    filled,
    image_size,
    pixels,
    read_once,
    statistics,
)  # fmt: skip
from vla_ros.datasets.video import NoFrame, frames_at

VECTORS = ("observation.state", "action")  # of the joints
PICTURES = ("video", "image")
Progress = Callable[[int, int], None]  # called with (frames done, frames in all) after each episode


class Dataset:
    """A dataset folder. States and actions are held in memory, frames are read from a memory-mapped cache.

    Attributes:
        fps: Hz.
        robot_type: name of the robot as written.
        joint_names, action_names: S and A names, the order of states and of actions. Actions of joints of the states
            come in the states' order, whatever the file's is, behind the pose of a tool where there is one.
        tool: which actions are poses of a tool; None if all are of joints.
        not_in_rad: joints whose names in the file are those of LeRobot's own robots, which record degrees or percent.
        hold: joints of the states that have no actions, where all actions are of joints of the states or of the tool.
        camera_names: colour cameras whose frames it holds.
        streams: readings of further sensors, depth and "observation.NAME" -> shape of a value.
        unreadable: name -> why a depth stream cannot be read.
        episodes: in order; episode i covers frames `episodes[i].start` to `.stop`.
        states: (N, S) float32 joint positions, rad or m.
        actions: (N, A) float32 joint targets, rad or m, and poses of the tool in front.
        timestamps: (N,) float64 s since the begin of the episode, by which videos are read.
        tasks: the distinct instructions, in the order in which they come up.
        task_of: (N,) int64, of each frame the place of its instruction in `tasks`.
        said_statistics: feature key -> statistics as the files have them.

    Args:
        instruction: which text of the rows to use: their "task", or the "subtask" of it.

    Raises:
        InputError: for a folder that is not a dataset, an unfinished one, damaged files, NaN values, no subtasks.
    """

    def __init__(self, path: str | Path, instruction: str = "task") -> None:
        self.path, self.instruction = snapshot(Path(path).expanduser(), "dataset"), instruction
        self.info = info = read_info(self.path)
        self.fps = info["fps"]
        self.robot_type = str(info.get("robot_type") or "")
        features = info["features"]
        for key in VECTORS:
            if key not in features:
                raise InputError(f"dataset {self.path}: feature {key!r} is missing, it has {sorted(features)}")
            if len(features[key]["shape"]) != 1:
                raise InputError(f"dataset {self.path}: {key}: shape {features[key]['shape']}, expected one size")
        keys = [
            key for key, feature in features.items()
            if key.startswith("observation.") and key != "observation.state" or feature["dtype"] in PICTURES
        ]  # fmt: skip
        names = [key.removeprefix(IMAGE_PREFIX).removeprefix("observation.") for key in keys]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"dataset {self.path}: more than one feature {name!r}, expected one of that name")
        self._keys = dict(zip(names, keys, strict=True))
        self._dtypes = {name: features[key]["dtype"] for name, key in self._keys.items()}
        pictures = [name for name, kind in self._dtypes.items() if kind in PICTURES]
        self.depth_names = tuple(name for name in pictures if is_depth(features[self._keys[name]]))
        self.camera_names = tuple(name for name in pictures if name not in self.depth_names)
        self._codes: dict[str, DepthCode] = {}  # of depth that is stored as video
        self.unreadable = {name: why for name in self.depth_names if (why := self._why_unreadable(name))}
        once = self.path / "meta" / ONCE_FILE
        self._once = read_once(once) if once.exists() else {}
        self.streams = {
            name: tuple(features[key]["shape"]) for name, key in self._keys.items()
            if name not in self.camera_names and name not in self.unreadable
        } | {name: value.shape for name, value in self._once.items()}  # fmt: skip
        videos = [self._keys[n] for n in pictures if self._dtypes[n] == "video" and n not in self.unreadable]
        self.said_statistics = read_statistics(self.path)
        self.episodes: list[Episode] = read_episodes(self.path, info, videos)
        names = joint_names(*(features[key] for key in VECTORS), f"dataset {self.path}")
        self.not_in_rad = set().union(*(named_by_lerobot(features[key], f"dataset {self.path}") for key in VECTORS))
        self._written = dict(zip(VECTORS, names, strict=True))
        self.joint_names, self.action_names = self._written.values()
        self.tool = read_tool(features["action"], self.action_names, f"dataset {self.path}")
        self._pose = self.tool.pose if self.tool else ()
        self._order = list(range(len(self.action_names)))  # the columns of the file's actions, in ours
        self.hold: tuple[str, ...] = ()
        if self.has_targets:
            ours = (*self._pose, *(name for name in self.joint_names if name in self.action_names))
            self._order = [self.action_names.index(name) for name in ours]
            self.action_names = tuple(self.action_names[k] for k in self._order)
            self.hold = tuple(name for name in self.joint_names if name not in self.action_names)
        kinds = {key: (tuple(features[key]["shape"]), "float32") for key in VECTORS}
        rows = self._columns(kinds | {"timestamp": ((1,), "float64")})
        self.states, self.actions = rows["observation.state"], self.sorted_actions(rows["action"])
        self.timestamps = rows["timestamp"][:, 0]
        self.tasks, self.task_of = texts_of_rows(self.path, info, self.episodes, instruction)
        for k, episode in enumerate(self.episodes):
            used = dict.fromkeys(self.task_of[episode.start : episode.stop].tolist())
            self.episodes[k] = replace(episode, instructions=tuple(self.tasks[task] for task in used))

    def _why_unreadable(self, name: str) -> str:
        """Of a depth stream; empty if it can be read."""
        feature = self.info["features"][self._keys[name]]
        unit = (feature.get("info") or {}).get("depth_unit")
        if self._dtypes[name] == "image":
            return "" if unit in (None, "mm") else f"depth as images in {shown(unit)}, expected mm"
        try:
            self._codes[name] = DepthCode.of(feature, name)
        except InputError as error:
            return str(error).removeprefix(f"{name}: ")
        return ""

    def __len__(self) -> int:
        """Number of frames."""
        return self.episodes[-1].stop

    def outcome(self, episode: Episode) -> str:
        """How an episode ended, by what the dataset says of it, else by its rows' `next.success`; empty if neither."""
        if episode.outcome or SUCCESS not in self.info["features"]:
            return episode.outcome
        return "success" if self._succeeded[episode.start : episode.stop].any() else "failure"

    @cached_property
    def _succeeded(self) -> np.ndarray:
        """(N,) bool."""
        return self._columns({SUCCESS: ((1,), "bool")})[SUCCESS][:, 0]

    @property
    def knows_persons(self) -> bool:
        """Whether it says which rows a person commanded, and which a policy."""
        return INTERVENTION in self.info["features"]

    @cached_property
    def by_person(self) -> np.ndarray:
        """(N,) bool, rows that a person commanded, not a policy; all False if it does not say."""
        if not self.knows_persons:
            return np.zeros(len(self), bool)
        return self._columns({INTERVENTION: ((1,), "bool")})[INTERVENTION][:, 0]

    @property
    def has_subtasks(self) -> bool:
        """Whether its rows name subtasks too."""
        return has_subtasks(self.path, self.info)

    @property
    def has_targets(self) -> bool:
        """Whether every action is of a joint of the states or of the tool, without duplicate names."""
        states, actions = set(self.joint_names), set(self.action_names) - set(self._pose)
        return (actions <= states and len(states) == len(self.joint_names)
                and len(actions) + len(self._pose) == len(self.action_names))

    @property
    def targets(self) -> np.ndarray:
        """(N, S) actions in the order of the states; where a joint has none, its state."""
        if not self.hold:
            return self.actions[:, len(self._pose) :]
        targets, joints = self.states.copy(), self.action_names[len(self._pose) :]
        targets[:, [self.joint_names.index(name) for name in joints]] = self.actions[:, len(self._pose) :]
        return targets

    @property
    def poses(self) -> np.ndarray:
        """(N, 3 + n) of the actions, poses of the tool; no columns where there is none."""
        return self.actions[:, : len(self._pose)]

    def image_size(self, camera: str) -> tuple[int, int]:
        """(height, width) of a camera's frames. Raises InputError for a camera it does not have."""
        return image_size(self.info["features"][self._key(camera)], f"dataset {self.path}: {camera}")

    def episode_frames(self, episode: Episode, camera: str) -> np.ndarray:
        """(T, h, w, 3) uint8 RGB frames of one episode, decoded, or (T, h, w, 1) uint16 depth in mm.

        Frame t of a video is the one whose time is that of row t. Raises InputError that names a row without one.
        """
        where = f"dataset {self.path}: episode {episode.index}, camera {camera}"
        shape, dtype = self._picture(camera)
        try:
            frames = np.empty((episode.length, *shape), dtype)
        except MemoryError as error:
            raise InputError(f"{where}: {episode.length} frames of {shape} do not fit into memory") from error
        there = np.zeros(episode.length, bool)
        try:
            for row, image in self._decoded(episode, camera):
                if image.shape != shape:
                    raise NoFrame(row, f"frame of {image.shape}, expected {shape}")
                frames[row], there[row] = image, True
            if not there.all():
                raise NoFrame(np.argmin(there), f"no frame, {there.sum()} of {episode.length} have one")
        except NoFrame as error:
            raise NoFrame(error.row, error.why, f"{where}, ") from None
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        return frames

    def _picture(self, camera: str) -> tuple[tuple[int, ...], type]:
        """(shape, dtype) of one frame."""
        depth = camera in self.depth_names
        return (*self.image_size(camera), 1 if depth else 3), np.uint16 if depth else np.uint8

    def frames(self, camera: str, cache: str | Path | None = None, progress: Progress | None = None) -> np.ndarray:
        """Every frame of a camera as a read-only memory map (N, h, w, 3) uint8 RGB; of depth (N, h, w, 1) uint16 mm.

        The first call decodes the videos once into a file of the cache; later ones map it.

        Args:
            cache: folder for the file; `.cache` beside the dataset's `meta` by default.

        Raises:
            InputError: when frames are missing or the cache cannot be written.
        """
        folder = Path(cache) if cache else self.path / ".cache"
        file = folder / f"{camera}_{self._identity(camera)}.npy"
        if not file.is_file():
            shape, dtype = self._picture(camera)
            with new_file(file, "image cache (--cache names another folder)") as part:
                store = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=(len(self), *shape))
                for episode in self.episodes:
                    store[episode.start : episode.stop] = self.episode_frames(episode, camera)
                    if progress is not None:
                        progress(episode.stop, len(self))
                store.flush()
        return np.load(file, mmap_mode="r")

    def sorted_actions(self, values: np.ndarray) -> np.ndarray:
        """(..., A) in the order of the file's actions to that of `action_names`; another last size stays as it is."""
        return values[..., self._order] if values.ndim and values.shape[-1] == len(self._order) else values

    def command_columns(self, group: str) -> list[int]:
        """The columns of `actions` that a command group of the robot holds. Raises InputError for an unknown one."""
        said = (self.info["features"]["action"].get("info") or {}).get("groups", {})
        groups = value_of(dict[str, list[str]], said, f"dataset {self.path}: groups of the action")
        if group not in groups:
            raise InputError(f"dataset {self.path}: no command group {group!r}, it has {sorted(groups)}")
        if unknown := set(groups[group]) - set(self.joint_names):
            raise InputError(f"dataset {self.path}: command group {group!r} has no joints {sorted(unknown)}")
        return [self.joint_names.index(name) for name in groups[group]]

    @property
    def base(self) -> dict[str, str] | None:
        """As `RobotSpec.path_axes`, {} where no base follows paths; None if it does not say. Raises InputError."""
        said = (self.info["features"]["action"].get("info") or {}).get("base")
        return value_of(dict[str, str] | None, said, f"dataset {self.path}: base of the action")

    def values(self, name: str, cache: str | Path | None = None, progress: Progress | None = None) -> np.ndarray:
        """(N, *shape) readings of a further sensor, float32, int64, bool or text; of depth what `frames` gives.

        Raises InputError for one that the dataset does not have or cannot read.
        """
        if name in self._once:
            return np.broadcast_to(self._once[name], (len(self), *self._once[name].shape))
        if name in self.depth_names:
            return self.frames(name, cache=cache, progress=progress)
        key = self._key(name)
        return self._columns({key: (self.streams[name], self.info["features"][key]["dtype"])})[key]

    def _identity(self, camera: str) -> str:
        """Of what the frames are made from: where the dataset is, what it says, and the state of its files."""
        key = self._key(camera)
        files = [file for e in self.episodes for file in (e.data, e.videos[key].file if key in e.videos else e.data)]
        states = [
            (str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in dict.fromkeys(files) if file.is_file()
        ]
        rows = [(e.start, e.length, e.videos.get(key)) for e in self.episodes]
        said = repr(("by time", str(self.path.resolve()), self.info, rows, states))
        return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()

    def _decoded(self, episode: Episode, camera: str) -> Iterator[tuple[int, np.ndarray]]:
        """(row, its frame): (h, w, 3) uint8 RGB, or (h, w, 1) uint16 depth in mm."""
        key = self._key(camera)
        if clip := episode.videos.get(key):
            times = clip.start + self.timestamps[episode.start : episode.stop]
            outside = np.flatnonzero((times < clip.start - 0.1 / self.fps) | (times > clip.stop - 0.1 / self.fps))
            if len(outside):
                where = f"{times[outside[0]]:.4f} s of {clip.file.name}"
                raise NoFrame(outside[0], f"at {where}, expected {clip.start:.4f} to {clip.stop:.4f} s")
            yield from frames_at(clip.file, times, self._codes.get(camera))
            return
        for row, data in read_rows(episode.data, key, episode.index):  # PNG or JPEG bytes in the rows themselves
            if not 0 <= row < episode.length:
                raise InputError(f"row {row}, expected 0 to {episode.length - 1}")
            data = data.get("bytes") if isinstance(data, dict) else data
            try:
                yield row, pixels(data, self.image_size(camera), camera in self.depth_names)
            except InputError as error:
                raise NoFrame(row, str(error)) from None

    def _key(self, camera: str) -> str:
        if camera in self.unreadable:
            raise InputError(f"dataset {self.path}: {camera}: {self.unreadable[camera]}")
        if camera not in self._keys:
            has = [*self.camera_names, *self.streams]
            raise InputError(f"dataset {self.path}: no camera or stream {camera!r}, expected one of {has}")
        return self._keys[camera]

    def _columns(self, wanted: dict[str, tuple[tuple[int, ...], str]]) -> dict[str, np.ndarray]:
        """Feature key -> (N, *shape) of its rows; `wanted`: key -> (shape, dtype). Raises InputError."""
        found = read_columns(self.path, self.episodes, wanted)
        for key, values in found.items():
            bad = np.argwhere(~np.isfinite(values)) if values.dtype.kind == "f" else ()
            if len(bad):
                frame, *where = bad[0].tolist()
                episode, row = place(self.episodes, frame)
                what = f" of joint {self._written[key][where[0]]}" if key in VECTORS else f" of value {where}"
                raise InputError(f"dataset {self.path}: episode {episode}, frame {row}: {key}{what} is "
                                 f"{values[tuple(bad[0])]}, expected a finite number")
        return found

    @cached_property
    def statistics(self) -> Computed:
        """Of all episodes, see `statistics_of`."""
        return self.statistics_of(self.episodes)

    def statistics_of(self, episodes: Sequence[Episode]) -> Computed:
        """Feature key ("observation.state", "action", "observation.imu") -> mean, std, min, max, quantiles, count.

        They are computed from the rows, because files of merged episodes contain averages of the episodes' quantiles,
        which are not quantiles. Those of images are as written.
        """
        found, frames = Computed(self.said_statistics), frames_of(episodes)
        for key, rows in zip(VECTORS, (self.states, self.actions), strict=True):
            found[key] = partial(lambda rows: of_rows(rows[frames]), rows)
        for name, dtype in self._dtypes.items():
            if dtype not in (*PICTURES, "string"):
                found[self._keys[name]] = partial(self._of_stream, name, frames)
        return found

    def _of_stream(self, name: str, frames: np.ndarray) -> Statistics:
        rows = self.values(name)[frames]
        if f"{name}_count" in self.streams:
            rows = filled(rows, self.values(f"{name}_count")[frames])
        return statistics([rows], len(frames))


def frames_of(episodes: Sequence[Episode]) -> np.ndarray:
    """(n,) numbers of the frames of episodes, in their order."""
    return np.concatenate([np.arange(episode.start, episode.stop) for episode in episodes])
