"""LeRobot datasets: written in version 3, read in versions 2.1 and 3."""

import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.files import new_file
from vla_ros.datasets.index import Episode, read_episodes, read_info, read_parquet, read_statistics
from vla_ros.datasets.statistics import Statistics, of_rows
from vla_ros.datasets.video import decode
from vla_ros.datasets.writer import DatasetWriter

__all__ = ["Dataset", "DatasetWriter", "Episode", "Statistics"]

IMAGE_PREFIX = "observation.images."


class Dataset:
    """A dataset folder. States and actions are held in memory, frames are read from a memory-mapped cache.

    Attributes:
        fps: Hz.
        robot_type: name of the robot as written.
        joint_names: J names, the order of states and actions.
        camera_names: cameras whose frames it holds.
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
        info = read_info(self.path)
        self.info = info
        self.fps = float(info["fps"])
        self.robot_type = info.get("robot_type") or ""
        features = info["features"]
        for key in ("observation.state", "action"):
            if key not in features:
                raise InputError(f"dataset {self.path}: feature {key!r} is missing, it has {sorted(features)}")
        self.joint_names = _names(features["observation.state"])
        self._keys = {
            key.removeprefix(IMAGE_PREFIX).removeprefix("observation."): key
            for key, feature in features.items()
            if feature["dtype"] in ("video", "image")
        }
        self.camera_names = tuple(self._keys)
        videos = [key for key in self._keys.values() if features[key]["dtype"] == "video"]
        self.episodes: list[Episode] = read_episodes(self.path, info, videos)
        self.states, self.actions = self._rows()
        self.statistics = self._statistics()

    def __len__(self) -> int:
        """Number of frames."""
        return self.episodes[-1].stop

    def image_size(self, camera: str) -> tuple[int, int]:
        """(height, width) of a camera's frames. Raises InputError for a camera it does not have."""
        feature = self.info["features"][self._key(camera)]
        names = feature.get("names") or ["height", "width", "channels"]
        shape = dict(zip(names, feature["shape"], strict=True))
        return int(shape["height"]), int(shape["width"])

    def episode_frames(self, episode: Episode, camera: str) -> np.ndarray:
        """(T, h, w, 3) uint8 RGB frames of one episode, decoded. Raises InputError for too few."""
        key = self._key(camera)
        height, width = self.image_size(camera)
        frames = np.empty((episode.length, height, width, 3), np.uint8)
        count = 0
        for image in self._decoded(episode, key):
            if image.shape != frames.shape[1:]:
                raise InputError(
                    f"dataset {self.path}: camera {camera}: frame of {image.shape}, expected {frames.shape[1:]}"
                )
            frames[count] = image
            count += 1
            if count == episode.length:
                return frames
        raise InputError(
            f"dataset {self.path}: episode {episode.index}, camera {camera}: {count} frames, expected {episode.length}"
        )

    def frames(
        self,
        camera: str,
        resize: Callable[[np.ndarray], np.ndarray] | None = None,
        tag: str = "",
        cache: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Every frame of a camera as a read-only memory map (N, h, w, 3) uint8 RGB.

        The first call decodes the videos once into a file of the cache; later ones map it.

        Args:
            resize: (h, w, 3) -> (h', w', 3) uint8, applied before storing; `tag` names it in the file name.
            cache: folder for the file; `.cache` beside the dataset's `meta` by default.
            progress: called with (frames done, frames in all) after each episode.

        Raises:
            InputError: when frames are missing or the cache cannot be written.
        """
        folder = Path(cache) if cache else self.path / ".cache"
        identity = zlib.crc32(repr((self.info, [(e.start, e.length) for e in self.episodes])).encode())
        file = folder / f"{camera}_{tag or 'full'}_{identity:08x}.npy"
        if not file.is_file():
            with new_file(file, "image cache (--cache names another folder)") as part:
                self._fill(part, camera, resize, progress)
        return np.load(file, mmap_mode="r")

    def _fill(self, file: Path, camera: str, resize, progress) -> None:
        store = None
        for episode in self.episodes:
            frames = self.episode_frames(episode, camera)
            if resize is not None:
                frames = np.stack([resize(image) for image in frames])
            if store is None:
                shape = (len(self), *frames.shape[1:])
                store = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
            store[episode.start : episode.stop] = frames
            if progress is not None:
                progress(episode.stop, len(self))
        store.flush()

    def _decoded(self, episode: Episode, key: str):
        if key in episode.videos:
            yield from decode(*episode.videos[key])
            return
        table = read_parquet(episode.data, ["episode_index", key])
        for row in table.to_pylist():  # images as PNG or JPEG bytes in the rows themselves
            if row["episode_index"] == episode.index:
                yield cv2.cvtColor(cv2.imdecode(np.frombuffer(row[key]["bytes"], np.uint8), 1), cv2.COLOR_BGR2RGB)

    def _key(self, camera: str) -> str:
        if camera not in self._keys:
            raise InputError(f"dataset {self.path}: no camera {camera!r}, expected one of {self.camera_names}")
        return self._keys[camera]

    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        joints, total = len(self.joint_names), len(self)
        states, actions = np.full((2, total, joints), np.nan, np.float32)
        by_index = {episode.index: episode for episode in self.episodes}
        seen = np.zeros(total, bool)
        for file in dict.fromkeys(episode.data for episode in self.episodes):
            table = read_parquet(file, ["observation.state", "action", "episode_index", "frame_index"])
            numbers = np.asarray(table["episode_index"])
            starts = np.array([by_index[n].start if n in by_index else -1 for n in numbers.tolist()])
            rows = (starts + np.asarray(table["frame_index"]))[starts >= 0]
            if len(rows) and rows.max() >= total:
                raise InputError(f"{file}: more rows than the table of episodes says")
            for name, target in (("observation.state", states), ("action", actions)):
                column = table[name].combine_chunks()
                values = np.asarray(column.flatten(), np.float32)
                if values.size != len(numbers) * joints:
                    raise InputError(
                        f"{file}: {name}: {values.size} values in {len(numbers)} rows, expected {joints} each"
                    )
                target[rows] = values.reshape(-1, joints)[starts >= 0]
            seen[rows] = True
        if not seen.all():
            at = int(np.argmin(seen))
            raise InputError(f"dataset {self.path}: frame {at} has no row, {int((~seen).sum())} of {total} are missing")
        for name, values in (("observation.state", states), ("action", actions)):
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                frame, joint = (int(v) for v in bad[0])
                episode = next(e for e in self.episodes if e.start <= frame < e.stop)
                raise InputError(
                    f"dataset {self.path}: episode {episode.index}, frame {frame - episode.start}: {name} of joint "
                    f"{self.joint_names[joint]} is {values[frame, joint]}, expected a finite number"
                )
        return states, actions

    def _statistics(self) -> dict[str, Statistics]:
        """As written; features whose statistics are missing or lack quantiles are computed from the rows."""
        statistics = read_statistics(self.path)
        for key, rows in (("observation.state", self.states), ("action", self.actions)):
            if not {"mean", "std", "min", "max", "q01", "q99"} <= set(statistics.get(key, ())):
                statistics[key] = of_rows(rows)
            elif np.shape(statistics[key]["mean"]) != (len(self.joint_names),):
                raise InputError(
                    f"dataset {self.path}: statistics of {key} have {np.size(statistics[key]['mean'])} dimensions, "
                    f"expected {len(self.joint_names)}"
                )
        return statistics


def _names(feature: dict) -> tuple[str, ...]:
    """Names of a vector feature: a list, a list in a mapping, or none."""
    names = feature.get("names")
    while isinstance(names, dict):
        names = next(iter(names.values()))
    count = int(feature["shape"][0])
    return tuple(map(str, names)) if names and len(names) == count else tuple(f"joint_{k}" for k in range(count))
