"""What a LeRobot dataset folder says about itself: `meta/`, versions 2.1 and 3."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vla_ros.core.errors import InputError
from vla_ros.core.records import read_mapping
from vla_ros.datasets.statistics import Statistics, aggregate


@dataclass(frozen=True)
class Episode:
    """Frames `start` to `start + length` of a dataset."""

    index: int
    start: int
    length: int
    instruction: str
    data: Path  # the parquet file that holds its rows
    # feature key -> (mp4 file, time of its first frame in it, s)
    videos: dict[str, tuple[Path, float]] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        return self.start + self.length


def read_info(path: Path) -> dict[str, Any]:
    """`meta/info.json`. Raises InputError for a folder that is no dataset, an unfinished or an unknown one."""
    if not path.is_dir():
        raise InputError(f"dataset {path}: no such folder")
    file = path / "meta" / "info.json"
    if not file.is_file():
        if (path / "meta").is_dir():
            raise InputError(f"dataset {path}: incomplete: meta/info.json is missing, its writer did not finish")
        raise InputError(f"dataset {path}: not a LeRobot dataset, expected meta/info.json")
    info = read_mapping(file, "dataset file")
    version = str(info.get("codebase_version", "none"))
    if not version.startswith(("v3.", "v2.1")):
        raise InputError(f"{file}: codebase_version {version!r}, expected v2.1 or v3.x")
    for key in ("fps", "features", "data_path"):
        if key not in info:
            raise InputError(f"{file}: {key!r} is missing")
    return info


def read_episodes(path: Path, info: dict[str, Any], video_keys: list[str]) -> list[Episode]:
    """The episodes in order. Raises InputError for missing or damaged files, and for a dataset without any."""
    read = _episodes_v2 if str(info["codebase_version"]).startswith("v2") else _episodes_v3
    try:
        episodes = read(path, info, video_keys)
    except KeyError as error:
        raise InputError(f"dataset {path}: the table of episodes lacks {error}") from error
    if not episodes:
        raise InputError(f"dataset {path}: no episodes")
    return episodes


def _episodes_v3(path: Path, info: dict[str, Any], video_keys: list[str]) -> list[Episode]:
    rows = []
    for file in sorted((path / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
        wanted = [name for name in pq.read_schema(file).names if not name.startswith("stats/")]
        rows += read_parquet(file, wanted).to_pylist()
    rows.sort(key=lambda row: row["episode_index"])
    episodes = []
    for row in rows:
        data = path / info["data_path"].format(**_place(row, "data"))
        videos = {}
        for key in video_keys:
            file = info["video_path"].format(video_key=key, **_place(row, f"videos/{key}"))
            videos[key] = (path / file, float(row[f"videos/{key}/from_timestamp"]))
        start = row["dataset_from_index"]
        episodes.append(Episode(row["episode_index"], start, row["length"], _instruction(row), data, videos))
    return episodes


def _place(row: dict[str, Any], what: str) -> dict[str, int]:
    return {name: row[f"{what}/{name}"] for name in ("chunk_index", "file_index")}


def _instruction(row: dict[str, Any]) -> str:
    return (row.get("tasks") or [""])[0]


def _episodes_v2(path: Path, info: dict[str, Any], video_keys: list[str]) -> list[Episode]:
    episodes, start = [], 0
    for row in sorted(read_jsonl(path / "meta" / "episodes.jsonl"), key=lambda row: row["episode_index"]):
        index = row["episode_index"]
        names = {"episode_chunk": index // info.get("chunks_size", 1000), "episode_index": index}
        videos = {key: (path / info["video_path"].format(video_key=key, **names), 0.0) for key in video_keys}
        data = path / info["data_path"].format(**names)
        episodes.append(Episode(index, start, row["length"], _instruction(row), data, videos))
        start += row["length"]
    return episodes


def read_statistics(path: Path) -> dict[str, Statistics]:
    """feature key -> statistics as the dataset has them; empty when it has none."""
    file = path / "meta" / "stats.json"
    if file.is_file():
        return {key: _arrays(part) for key, part in read_mapping(file, "dataset file").items()}
    file = path / "meta" / "episodes_stats.jsonl"
    if not file.is_file():
        return {}
    rows = [row["stats"] for row in read_jsonl(file)]
    return {key: aggregate([_arrays(row[key]) for row in rows if key in row]) for key in rows[0]} if rows else {}


def _arrays(part: dict[str, Any]) -> Statistics:
    return {name: np.asarray(value) for name, value in part.items()}


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON lines: {error}") from error


def read_parquet(path: Path, columns: list[str] | None = None, filters: Any = None):
    """A pyarrow table. Raises InputError that names the file."""
    try:
        return pq.read_table(path, columns=columns, partitioning=None, filters=filters)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # pyarrow.ArrowInvalid is one
        raise InputError(f"{path}: not a parquet file: {error}") from error
