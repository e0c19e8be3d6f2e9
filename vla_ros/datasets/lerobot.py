"""LeRobot datasets: written in version 3, read in versions 2.1 and 3."""

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import new_file
from vla_ros.core.records import value_of
from vla_ros.datasets.index import Episode, read_episodes, read_info, read_parquet, read_rows, read_statistics
from vla_ros.datasets.statistics import Statistics, of_rows
from vla_ros.datasets.values import IMAGE_NAMES, IMAGE_PREFIX, ONCE_FILE, array, is_depth, pixels, read_once
from vla_ros.datasets.video import decode

VECTORS = ("observation.state", "action")  # of the joints
STATISTICS = ("mean", "std", "min", "max", "q01", "q99")
Progress = Callable[[int, int], None]  # called with (frames done, frames in all) after each episode


class Dataset:
    """A dataset folder. States and actions are held in memory, frames are read from a memory-mapped cache.

    Attributes:
        fps: Hz.
        robot_type: name of the robot as written.
        joint_names: J names, the order of states and actions.
        camera_names: colour cameras whose frames it holds.
        streams: readings of further sensors, depth and "observation.NAME" -> shape of a value.
        unreadable: name -> why a depth stream cannot be read.
        episodes: in order; episode i covers frames `episodes[i].start` to `.stop`.
        states: (N, J) float32 joint positions, rad or m.
        actions: (N, J) float32 joint targets, rad or m.
        statistics: feature key ("observation.state", "action", "observation.images.CAMERA") -> mean, std, min, max,
            q01, q99, count.

    Raises:
        InputError: for a folder that is no dataset, an unfinished one, damaged files, NaN values.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info = info = read_info(self.path)
        self.fps = info["fps"]
        self.robot_type = str(info.get("robot_type") or "")
        features = info["features"]
        for key in VECTORS:
            if key not in features:
                raise InputError(f"dataset {self.path}: feature {key!r} is missing, it has {sorted(features)}")
            if len(features[key]["shape"]) != 1:
                raise InputError(f"dataset {self.path}: {key}: shape {features[key]['shape']}, expected one size")
        self.joint_names = _names(features["observation.state"])
        self._keys = {
            key.removeprefix(IMAGE_PREFIX).removeprefix("observation."): key for key, feature in features.items()
            if key.startswith("observation.") and key != "observation.state" or feature["dtype"] in ("video", "image")
        }
        kinds = {name: features[key]["dtype"] for name, key in self._keys.items()}
        pictures = [name for name, kind in kinds.items() if kind in ("video", "image")]
        self.depth_names = tuple(name for name in pictures if is_depth(features[self._keys[name]]))
        self.camera_names = tuple(name for name in pictures if name not in self.depth_names)
        self.unreadable = {
            name: "depth as video, whose scale the file does not give; expected 16-bit images in mm"
            for name in self.depth_names if kinds[name] == "video"
        }  # fmt: skip
        once = self.path / "meta" / ONCE_FILE
        self._once = read_once(once) if once.exists() else {}
        self.streams = {
            name: tuple(features[key]["shape"]) for name, key in self._keys.items()
            if name not in self.camera_names and name not in self.unreadable
        } | {name: value.shape for name, value in self._once.items()}  # fmt: skip
        videos = [self._keys[name] for name in self.camera_names if kinds[name] == "video"]
        self.episodes: list[Episode] = read_episodes(self.path, info, videos)
        rows = self._columns({key: ((len(self.joint_names),), "float32") for key in VECTORS})
        self.states, self.actions = rows["observation.state"], rows["action"]
        self.statistics = self._statistics()

    def __len__(self) -> int:
        """Number of frames."""
        return self.episodes[-1].stop

    def image_size(self, camera: str) -> tuple[int, int]:
        """(height, width) of a camera's frames. Raises InputError for a camera it does not have."""
        feature = self.info["features"][self._key(camera)]
        names = feature.get("names") or IMAGE_NAMES
        if not isinstance(names, list) or len(names) != len(feature["shape"]) or not {"height", "width"} <= set(names):
            raise InputError(
                f"dataset {self.path}: {camera}: names {shown(names)} of shape {feature['shape']}, "
                "expected height, width and channels"
            )
        shape = dict(zip(names, feature["shape"], strict=True))
        return shape["height"], shape["width"]

    def episode_frames(self, episode: Episode, camera: str) -> np.ndarray:
        """(T, h, w, 3) uint8 RGB frames of one episode, decoded, or (T, h, w, 1) uint16 depth in mm.

        Raises InputError for too few.
        """
        where = f"dataset {self.path}: episode {episode.index}, camera {camera}"
        shape, dtype = self._picture(camera)
        try:
            frames = np.empty((episode.length, *shape), dtype)
        except MemoryError as error:
            raise InputError(f"{where}: {episode.length} frames of {shape} do not fit into memory") from error
        count = 0
        try:
            for count, image in enumerate(islice(self._decoded(episode, camera), episode.length), start=1):
                if image.shape != shape:
                    raise InputError(f"frame of {image.shape}, expected {shape}")
                frames[count - 1] = image
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if count < episode.length:
            raise InputError(f"{where}: {count} frames, expected {episode.length}")
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

    def command_columns(self, group: str) -> list[int]:
        """The columns of `actions` that a command group of the robot holds. Raises InputError for an unknown one."""
        said = (self.info["features"]["action"].get("info") or {}).get("groups", {})
        groups = value_of(dict[str, list[str]], said, f"dataset {self.path}: groups of the action")
        if group not in groups:
            raise InputError(f"dataset {self.path}: no command group {group!r}, it has {sorted(groups)}")
        if unknown := set(groups[group]) - set(self.joint_names):
            raise InputError(f"dataset {self.path}: command group {group!r} has no joints {sorted(unknown)}")
        return [self.joint_names.index(name) for name in groups[group]]

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
        files = dict.fromkeys(e.videos[key][0] if key in e.videos else e.data for e in self.episodes)
        states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
        rows = [(e.start, e.length) for e in self.episodes]
        said = repr((str(self.path.resolve()), self.info, rows, states))
        return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()

    def _decoded(self, episode: Episode, camera: str) -> Iterator[np.ndarray]:
        """(h, w, 3) uint8 RGB frames, or (h, w, 1) uint16 depth in mm."""
        key = self._key(camera)
        if key in episode.videos:
            yield from decode(*episode.videos[key])
            return
        for row in read_rows(episode.data, key, episode.index):  # images as PNG or JPEG bytes in the rows themselves
            data = row.get("bytes") if isinstance(row, dict) else row
            yield pixels(data, self.image_size(camera), camera in self.depth_names)

    def _key(self, camera: str) -> str:
        if camera in self.unreadable:
            raise InputError(f"dataset {self.path}: {camera}: {self.unreadable[camera]}")
        if camera not in self._keys:
            has = [*self.camera_names, *self.streams]
            raise InputError(f"dataset {self.path}: no camera or stream {camera!r}, expected one of {has}")
        return self._keys[camera]

    def _columns(self, wanted: dict[str, tuple[tuple[int, ...], str]]) -> dict[str, np.ndarray]:
        """Feature key -> (N, *shape) of its rows; `wanted`: key -> (shape, dtype). Raises InputError."""
        total = len(self)
        parts: dict[str, list[np.ndarray]] = {key: [] for key in wanted}
        places: list[np.ndarray] = []
        by_index = {episode.index: episode for episode in self.episodes}
        for file in dict.fromkeys(episode.data for episode in self.episodes):
            names = {*wanted, "episode_index", "frame_index"}
            table = read_parquet(file, names.__contains__)
            if missing := names - set(table.column_names):
                raise InputError(f"{file}: no column {sorted(missing)}, it has {sorted(table.column_names)}")
            numbers, frames = (array(table[name], (1,), "int64")[:, 0] for name in ("episode_index", "frame_index"))
            starts = np.array([by_index[n].start if n in by_index else -1 for n in numbers.tolist()])
            rows = (starts + frames)[starts >= 0]
            if len(rows) and not 0 <= rows.min() <= rows.max() < total:
                raise InputError(f"{file}: more rows than the table of episodes says")
            for key, (shape, dtype) in wanted.items():
                try:
                    parts[key].append(array(table[key], shape, dtype)[starts >= 0])
                except InputError as error:
                    raise InputError(f"{file}: {key}: {error}") from None
            places.append(rows)
        if (found := sum(map(len, places))) < total:  # before memory for as many as the table of episodes says
            raise InputError(f"dataset {self.path}: {found} rows, {total - found} of {total} are missing")
        order = np.full(total, -1)
        order[np.concatenate(places)] = np.arange(sum(map(len, places)))
        if (order < 0).any():
            missing = np.flatnonzero(order < 0)
            raise InputError(
                f"dataset {self.path}: frame {missing[0]} has no row, {len(missing)} of {total} are missing"
            )
        found = {key: np.concatenate(rows)[order] for key, rows in parts.items()}
        for key, values in found.items():
            bad = np.argwhere(~np.isfinite(values)) if values.dtype.kind == "f" else ()
            if len(bad):
                frame, *place = bad[0].tolist()
                episode = next(episode for episode in self.episodes if frame < episode.stop)
                what = f"joint {self.joint_names[place[0]]}" if key in VECTORS else f"value {place}"
                raise InputError(
                    f"dataset {self.path}: episode {episode.index}, frame {frame - episode.start}: {key} of {what} is "
                    f"{values[tuple(bad[0])]}, expected a finite number"
                )
        return found

    def _statistics(self) -> dict[str, Statistics]:
        """As written; features whose statistics are missing or lack quantiles are computed from the rows."""
        statistics = read_statistics(self.path)
        width = len(self.joint_names)
        for key, rows in zip(VECTORS, (self.states, self.actions), strict=True):
            if not set(STATISTICS) <= set(statistics.get(key, ())):
                statistics[key] = of_rows(rows)
            for name in STATISTICS:
                values = statistics[key][name]
                if values.shape != (width,):
                    what = f"statistics of {key} have {values.size} dimensions, expected {width}"
                    raise InputError(f"dataset {self.path}: {what}")
                if not np.isfinite(values).all():
                    raise InputError(f"dataset {self.path}: statistics of {key}: {name} is not finite")
        return statistics


def _names(feature: dict) -> tuple[str, ...]:
    """Names of a vector feature: a list, a list in a mapping, or none."""
    names, count = feature.get("names"), feature["shape"][0]
    while isinstance(names, dict):
        names = next(iter(names.values()), None)
    return (
        tuple(map(str, names))
        if isinstance(names, list) and len(names) == count
        else tuple(f"joint_{k}" for k in range(count))
    )
