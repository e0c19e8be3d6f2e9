"""Metadata of a LeRobot dataset: `meta/`, versions 2.1 and 3."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import inside, read_bytes
from vla_ros.core.hub import no_folder
from vla_ros.core.records import Range, parsed, read_mapping, value_of
from vla_ros.datasets.parquet import MOST_VALUES, read_records
from vla_ros.datasets.statistics import Statistics, aggregate

MOST_JSONL = 512 << 20  # bytes
Number = Annotated[int, Range(0, 10**9)]
Length = Annotated[int, Range(1, 10**9)]
Size = Annotated[int, Range(1, 10**7)]


class Clip(NamedTuple):
    """The part of a video file for one episode: its frames from `start` s to before `stop` s."""

    file: Path
    start: float = 0.0
    stop: float = math.inf


@dataclass(frozen=True)
class Episode:
    """Frames `start` to `start + length` of a dataset."""

    index: int
    start: int
    length: int
    data: Path  # the parquet file that holds its rows
    videos: dict[str, Clip] = field(default_factory=dict)  # feature key -> where its frames are
    outcome: str = ""  # success, failure, aborted; "" if the dataset does not say
    listed: tuple[str, ...] = ()  # its instructions as the table of episodes has them
    instructions: tuple[str, ...] = ()  # as its rows have them, in the order in which they come up

    @property
    def stop(self) -> int:
        return self.start + self.length

    @property
    def instruction(self) -> str:
        """Its instruction, or all of them, for display."""
        return ", then ".join(self.instructions)


_CONVERTER = "; LeRobot 0.3.3 converts it: python -m lerobot.datasets."
_CONVERTED = {
    "v2.0": f"{_CONVERTER}v21.convert_dataset_v20_to_v21 --repo-id OWNER/NAME",
    **dict.fromkeys(("v1.5", "v1.6"), f"{_CONVERTER}v2.convert_dataset_v1_to_v2 --repo-id OWNER/NAME, then v21's"),
}  # fmt: skip


def read_info(path: Path) -> dict[str, Any]:
    """`meta/info.json`. Raises InputError for a folder that is not a dataset, and for an unfinished or unknown one."""
    if not path.is_dir():
        raise InputError(f"dataset {path}: {no_folder(path, kind='dataset')}")
    file = path / "meta" / "info.json"
    if not file.is_file():
        if (path / "meta").is_dir():
            raise InputError(f"dataset {path}: incomplete: meta/info.json is missing, its writer did not finish")
        raise InputError(f"dataset {path}: not a LeRobot dataset, expected meta/info.json")
    info = read_mapping(file, "dataset file")
    version = str(info.get("codebase_version", "none"))
    if not version.startswith(("v3.", "v2.1")):
        how = _CONVERTED.get(version, "")
        raise InputError(f"{file}: codebase_version {shown(version)}, expected v2.1 or v3.x{how}")
    for key in ("fps", "features", "data_path"):
        if key not in info:
            raise InputError(f"{file}: {key!r} is missing")
    info["fps"] = value_of(Annotated[float, Range(0.001, 10_000)], info["fps"], f"{file}: fps")
    features = value_of(dict[str, dict], info["features"], f"{file}: features")
    for key, row in features.items():
        where = f"{file}: features.{key}"
        inside(path, key, where)  # names of files are made of it
        row["shape"] = value_of(Annotated[list[Size], Range(0, 8)], row.get("shape"), f"{where}.shape")
        value_of(str, row.get("dtype"), f"{where}.dtype")
        if math.prod(row["shape"]) > MOST_VALUES:
            raise InputError(f"{where}.shape: {row['shape']}, expected at most {MOST_VALUES} values a frame")
        for name in ("info", "video_info"):
            value_of(dict | None, row.get(name), f"{where}.{name}")
    return info


_FIELD = re.compile(r"\{(\w*)(?::(0?\dd?))?\}")


def _file(path: Path, info: dict[str, Any], which: str, values: dict[str, Any]) -> Path:
    """The file that `data_path` or `video_path` of info.json names: fields `{name}` and `{name:03d}` of `values`.

    Raises InputError for any other field, which `str.format` would follow to wherever it leads.
    """
    where = f"{path / 'meta' / 'info.json'}: {which}"

    def filled(field: re.Match) -> str:
        value = values.get(field[1])
        if value is None or field[2] and not isinstance(value, int):
            raise InputError(f"{where}: {shown(field[0])}, expected fields of {sorted(values)}, as {{name:03d}}")
        return format(value, field[2] or "")

    template = value_of(str, info.get(which), where)
    if re.search("[{}]", _FIELD.sub("", template)):
        raise InputError(f"{where}: {shown(template)}, expected fields of {sorted(values)}, as {{name:03d}}")
    return inside(path, _FIELD.sub(filled, template), where)


def read_episodes(path: Path, info: dict[str, Any], video_keys: list[str]) -> list[Episode]:
    """The episodes in order. Raises InputError for missing or damaged files, and for a dataset without any."""
    read = _episodes_v2 if str(info["codebase_version"]).startswith("v2") else _episodes_v3
    episodes = read(path, info, video_keys)
    if not episodes:
        raise InputError(f"dataset {path}: no episodes")
    return episodes


def _episodes_v3(path: Path, info: dict[str, Any], video_keys: list[str]) -> list[Episode]:
    rows = []
    for file in sorted((path / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
        rows += [(file, row) for row in read_records(file, _about_episodes)]
    episodes = []
    for file, row in rows:
        data = _file(path, info, "data_path", _place(file, row, "data"))
        videos = {}
        for key in video_keys:
            place = _place(file, row, f"videos/{key}") | {"video_key": key}
            start, stop = (_said(float, row, f"videos/{key}/{name}_timestamp", file) for name in ("from", "to"))
            videos[key] = Clip(_file(path, info, "video_path", place), start, stop)
        length, texts = _said(Length, row, "length", file), _instructions(row, file)
        index, start = (_said(Number, row, name, file) for name in ("episode_index", "dataset_from_index"))
        outcome = row.get("outcome")
        outcome = outcome if isinstance(outcome, str) else ""
        episodes.append(Episode(index, start, length, data, videos, outcome, texts))
    episodes.sort(key=lambda episode: episode.index)
    start = 0
    for episode in episodes:
        if episode.start != start:
            raise InputError(
                f"dataset {path}: episode {episode.index} begins at frame {episode.start}, expected "
                f"{start}: the episodes follow one another"
            )
        start = episode.stop
    for key in video_keys:
        clips = sorted((episode.videos[key], episode.index) for episode in episodes)
        for (one, first), (other, second) in pairwise(clips):
            if one.file == other.file and other.start < one.stop - 0.1 / info["fps"]:
                raise InputError(
                    f"dataset {path}: {key}: episode {first} is {one.start:g} to {one.stop:g} s of {one.file.name}, "
                    f"episode {second} begins at {other.start:g} s: no frame may belong to two episodes"
                )
    return episodes


def _about_episodes(column: str) -> bool:
    names = ("episode_index", "dataset_from_index", "length", "tasks", "outcome")
    return column in names or column.startswith(("data/", "videos/"))


def _said(kind: Any, row: dict[str, Any], name: str, file: Path) -> Any:
    if name not in row:
        raise InputError(f"{file}: the table of episodes lacks {name!r}")
    return value_of(kind, row[name], f"{file}: {name}")


def _place(file: Path, row: dict[str, Any], what: str) -> dict[str, Any]:
    return {name: _said(Number, row, f"{what}/{name}", file) for name in ("chunk_index", "file_index")}


def _instructions(row: dict[str, Any], file: Path) -> tuple[str, ...]:
    return value_of(tuple[str, ...], row.get("tasks") or (), f"{file}: tasks")


def _episodes_v2(path: Path, info: dict[str, Any], video_keys: list[str]) -> list[Episode]:
    episodes, start = [], 0
    file = path / "meta" / "episodes.jsonl"
    size = value_of(Length, info.get("chunks_size", 1000), f"{path / 'meta' / 'info.json'}: chunks_size")
    rows = [(_said(Number, row, "episode_index", file), row) for row in read_jsonl(file)]
    for index, row in sorted(rows, key=itemgetter(0)):
        names = {"episode_chunk": index // size, "episode_index": index}
        videos = {key: Clip(_file(path, info, "video_path", names | {"video_key": key})) for key in video_keys}
        length, data = _said(Length, row, "length", file), _file(path, info, "data_path", names)
        episodes.append(Episode(index, start, length, data, videos, listed=_instructions(row, file)))
        start += length
    return episodes


def _names_of(feature: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
    """Of the numbers of a vector feature: a list, a mapping to places, or groups of these, whose names follow one
    another in the order of the file. None without any, or with one name for the whole vector, as converters write it.

    `.pos` of LeRobot's own robots is left away where that makes no two names alike: `shoulder_pan.pos` is a joint's
    position, and robot files call the joint `shoulder_pan`. Raises InputError for names of another number.
    """
    said, count = feature.get("names"), feature["shape"][0]
    names = _flat(said)
    if names == [] or names is not None and len(names) == 1 < count:
        return None
    if names is None or len(names) != count:
        raise InputError(f"{where}: names {shown(said)} of shape [{count}], expected {count} names, or null; correct "
                         "meta/info.json")
    names = [name if isinstance(name, str) else shown(name) for name in names]
    short = [name.removesuffix(".pos") for name in names]
    return tuple(short if len(set(short)) == len(set(names)) else names)


def named_by_lerobot(feature: Mapping[str, Any], where: str) -> set[str]:
    """Those of a vector feature's names that LeRobot's own robots give: `shoulder_pan.pos`, until its version 0.3
    `main_shoulder_pan`; and `theta.vel` of a base beside them. They record degrees, degrees/s or percent, never rad.
    Raises InputError as `joint_names` does."""
    said = [str(raw) for raw in _flat(feature.get("names")) or ()]
    names = _names_of(feature, where) or ()
    theirs = {name for name, raw in zip(names, said, strict=False) if raw.endswith(".pos") or raw.startswith("main_")}
    return theirs | ({"theta.vel"} & set(names) if theirs else set())


def _flat(said: Any) -> list[Any] | None:
    """The names that `names` of a feature holds, in order; None if that cannot be told."""
    if isinstance(said, dict) and said and all(type(place) is int for place in said.values()):
        return sorted(said, key=said.__getitem__) if sorted(said.values()) == list(range(len(said))) else None
    if isinstance(said, dict):
        groups = [_flat(group) for group in said.values()]
        return None if None in groups else [*chain.from_iterable(groups)]
    return [] if said is None else said if isinstance(said, list) else None


def joint_names(
    state: Mapping[str, Any], action: Mapping[str, Any], where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the states and of the actions of a file; names that one of both lacks are the other's where sizes agree, and
    say nothing of which joint is which where they do not. Raises InputError that begins with `where`."""
    sizes = [feature["shape"][0] for feature in (state, action)]
    states, actions = _names_of(state, f"{where}: observation.state"), _names_of(action, f"{where}: action")
    if sizes[0] == sizes[1]:
        states, actions = states or actions, actions or states
    of_actions = "joint" if sizes[0] == sizes[1] else "action"
    numbered = [tuple(f"{name}_{k}" for k in range(n)) for name, n in zip(("joint", of_actions), sizes, strict=True)]
    return states or numbered[0], actions or numbered[1]


def read_statistics(path: Path) -> dict[str, Statistics]:
    """feature key -> statistics as the dataset has them; empty if it has none."""
    file = path / "meta" / "stats.json"
    if file.exists():
        return {key: _arrays(part, f"{file}: {key}") for key, part in read_mapping(file, "dataset file").items()}
    file = path / "meta" / "episodes_stats.jsonl"
    if not file.exists():
        return {}
    rows = [value_of(dict, row.get("stats"), f"{file}: stats") for row in read_jsonl(file)]
    found: dict[str, Statistics] = {}
    for key in rows[0] if rows else ():
        parts = [_arrays(row[key], f"{file}: {key}") for row in rows if key in row]
        try:
            found[key] = aggregate(parts)
        except (KeyError, ValueError, ArithmeticError) as error:
            raise InputError(f"{file}: {key}: its statistics do not fit together: {error!r}") from error
    return found


def _arrays(part: Any, where: str) -> Statistics:
    try:
        return {name: np.asarray(value, dtype=np.float64) for name, value in value_of(dict, part, where).items()}
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: expected numbers: {error}") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The mappings of a file, one a line. Raises InputError."""
    lines = read_bytes(path, "dataset file", MOST_JSONL).splitlines()
    rows = [(f"{path}: line {k}", line) for k, line in enumerate(lines, start=1) if line.strip()]
    return [value_of(dict, parsed(line, "JSON", where), where) for where, line in rows]
