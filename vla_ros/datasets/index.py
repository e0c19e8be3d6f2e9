"""What a LeRobot dataset folder says about itself: `meta/`, versions 2.1 and 3."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vla_ros.core.errors import InputError, shown
from vla_ros.core.files import inside, read_bytes, regular
from vla_ros.core.records import Range, parsed, read_mapping, value_of
from vla_ros.datasets.statistics import Statistics, aggregate

MOST_JSONL = 512 << 20  # bytes
MOST_VALUES = 1 << 28  # of the columns that are read of a file
MOST_TEXT = 1 << 29  # bytes of such a column, each text as long as the longest
Number = Annotated[int, Range(0, 10**9)]
Length = Annotated[int, Range(1, 10**9)]
Size = Annotated[int, Range(1, 10**7)]


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
    outcome: str = ""  # success, failure, aborted; empty where the dataset does not say

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
    version = info.get("codebase_version", "none")
    if not str(version).startswith(("v3.", "v2.1")):
        raise InputError(f"{file}: codebase_version {shown(version)}, expected v2.1 or v3.x")
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
        rows += [(file, row) for row in read_parquet(file, _about_episodes).to_pylist()]
    episodes = []
    for file, row in rows:
        data = _file(path, info, "data_path", _place(file, row, "data"))
        videos = {}
        for key in video_keys:
            place = _place(file, row, f"videos/{key}") | {"video_key": key}
            start = _said(float, row, f"videos/{key}/from_timestamp", file)
            videos[key] = (_file(path, info, "video_path", place), start)
        length, text = _said(Length, row, "length", file), _instruction(row, file)
        index, start = (_said(Number, row, name, file) for name in ("episode_index", "dataset_from_index"))
        outcome = row.get("outcome")
        outcome = outcome if isinstance(outcome, str) else ""
        episodes.append(Episode(index, start, length, text, data, videos, outcome))
    episodes.sort(key=lambda episode: episode.index)
    start = 0
    for episode in episodes:
        if episode.start != start:
            raise InputError(
                f"dataset {path}: episode {episode.index} begins at frame {episode.start}, expected "
                f"{start}: the episodes follow one another"
            )
        start = episode.stop
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


def _instruction(row: dict[str, Any], file: Path) -> str:
    return (value_of(list[str], row.get("tasks") or [], f"{file}: tasks") or [""])[0]


def _episodes_v2(path: Path, info: dict[str, Any], video_keys: list[str]) -> list[Episode]:
    episodes, start = [], 0
    file = path / "meta" / "episodes.jsonl"
    size = value_of(Length, info.get("chunks_size", 1000), f"{path / 'meta' / 'info.json'}: chunks_size")
    rows = [(_said(Number, row, "episode_index", file), row) for row in read_jsonl(file)]
    for index, row in sorted(rows, key=itemgetter(0)):
        names = {"episode_chunk": index // size, "episode_index": index}
        videos = {key: (_file(path, info, "video_path", names | {"video_key": key}), 0.0) for key in video_keys}
        length, data = _said(Length, row, "length", file), _file(path, info, "data_path", names)
        episodes.append(Episode(index, start, length, _instruction(row, file), data, videos))
        start += length
    return episodes


def read_statistics(path: Path) -> dict[str, Statistics]:
    """feature key -> statistics as the dataset has them; empty when it has none."""
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


def read_parquet(path: Path, columns: Callable[[str], bool]) -> pa.Table:
    """The columns whose names `columns` takes, texts as dictionaries. Raises InputError that names the file.

    A few bytes can stand for any number of equal values, so what they come to is looked at before they are written out.
    """
    with _opened(path, columns) as (file, names):
        table = file.read(names)
        for name in names:
            texts = list(_texts(table[name]))
            longest = max((pc.max(pc.binary_length(part.dictionary)).as_py() or 0 for part in texts), default=0)
            if (size := longest * sum(map(len, texts))) > MOST_TEXT:
                raise InputError(f"{path}: {name}: {size} bytes of text, expected at most {MOST_TEXT}")
    return table


def read_rows(path: Path, column: str, episode: int) -> Iterator[Any]:
    """The values of a column, one at a time, in the rows of an episode. Raises InputError that names the file."""
    with _opened(path, {column, "episode_index"}.__contains__) as (file, names):
        leaves = [file.schema.column(k).path for k in range(len(file.schema))]
        if column not in names or "episode_index" not in leaves:
            raise InputError(f"{path}: expected the columns {column!r} and 'episode_index', which holds numbers")
        at = leaves.index("episode_index")
        spans = (file.metadata.row_group(k).column(at).statistics for k in range(file.num_row_groups))
        groups = [
            k for k, span in enumerate(spans)
            if span is None or not isinstance(span.min, int) or span.min <= episode <= span.max
        ]  # fmt: skip
        for batch in file.iter_batches(64, groups, names):
            for value, index in zip(batch[column], batch["episode_index"], strict=True):
                if index.as_py() == episode:
                    yield value.as_py()


@contextmanager
def _opened(path: Path, columns: Callable[[str], bool]) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
    """The file, and those of its columns that `columns` takes. A text that many rows repeat is in memory once."""
    try:
        meta = pq.read_metadata(regular(path, "dataset file"))
        leaves = [meta.schema.column(k) for k in range(len(meta.schema))]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        with pq.ParquetFile(path, metadata=meta, read_dictionary=texts) as file:
            names = [name for name in file.schema_arrow.names if columns(name)]
            starts = tuple(f"{name}." for name in names)
            values = sum(
                meta.row_group(row).column(k).num_values * max(1, leaf.length // 8)
                for k, leaf in enumerate(leaves) if f"{leaf.path}.".startswith(starts)
                for row in range(meta.num_row_groups)
            )  # fmt: skip
            if max(values, meta.num_rows) > MOST_VALUES:
                raise InputError(f"{path}: {meta.num_rows} rows, {values} values, expected at most {MOST_VALUES}")
            yield file, names
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a parquet file: {error}") from error


def _texts(values: pa.ChunkedArray | pa.Array) -> Iterator[pa.DictionaryArray]:
    """The arrays of text inside."""
    inner = []
    if isinstance(values, pa.ChunkedArray):
        inner = values.chunks
    elif pa.types.is_dictionary(values.type):
        yield values
    elif pa.types.is_map(values.type):
        inner = [values.keys, values.items]
    elif pa.types.is_nested(values.type):
        inner = values.flatten() if pa.types.is_struct(values.type) else [values.flatten()]
    for part in inner:
        yield from _texts(part)
