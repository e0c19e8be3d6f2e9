"""Read parquet files of others: a few bytes can encode any number of equal values, so sizes are checked first."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vla_ros.core.errors import InputError
from vla_ros.core.files import regular
from vla_ros.core.records import value_of

MOST_VALUES = 1 << 28  # of the columns that are read of a file
MOST_TEXT = 1 << 29  # bytes of such a column, each text as long as the longest


def read_parquet(path: Path, columns: Callable[[str], bool]) -> pa.Table:
    """The columns whose names `columns` takes, texts as dictionaries. Raises InputError that names the file.

    A few bytes can encode any number of equal values, so their size is checked before they are expanded.
    """
    with _opened(path, columns) as (file, names):
        return _table(path, file, names)


def read_records(path: Path, columns: Callable[[str], bool]) -> list[dict[str, Any]]:
    """As `read_parquet`, the rows as mappings."""
    with _opened(path, columns) as (file, names):
        return _table(path, file, names).to_pylist()


def _table(path: Path, file: pq.ParquetFile, names: list[str]) -> pa.Table:
    table = file.read(names)
    table.validate(full=True)  # texts in UTF-8, lists within their values
    for name in names:
        texts = list(_texts(table[name]))
        longest = max((pc.max(pc.binary_length(part.dictionary)).as_py() or 0 for part in texts), default=0)
        if (size := longest * sum(map(len, texts))) > MOST_TEXT:
            raise InputError(f"{path}: {name}: {size} bytes of text, expected at most {MOST_TEXT}")
    return table


def read_rows(path: Path, column: str, episode: int) -> Iterator[tuple[int, Any]]:
    """(frame_index, value of a column) of the rows of an episode, one at a time. Raises InputError, with the file."""
    numbers = ("episode_index", "frame_index")
    with _opened(path, {column, *numbers}.__contains__) as (file, names):
        leaves = [file.schema.column(k).path for k in range(len(file.schema))]
        if column not in names or not set(numbers) <= set(leaves):
            raise InputError(f"{path}: expected the columns {column!r}, and {numbers} which hold numbers")
        at = leaves.index("episode_index")
        spans = (file.metadata.row_group(k).column(at).statistics for k in range(file.num_row_groups))
        groups = [
            k for k, span in enumerate(spans)
            if span is None or not isinstance(span.min, int) or span.min <= episode <= span.max
        ]  # fmt: skip
        for batch in file.iter_batches(64, groups, names):
            batch.validate(full=True)
            for value, index, frame in zip(*(batch[name] for name in (column, *numbers)), strict=True):
                if index.as_py() == episode:
                    yield value_of(int, frame.as_py(), f"{path}: frame_index"), value.as_py()


@contextmanager
def _opened(path: Path, columns: Callable[[str], bool]) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
    """The file, and those of its columns that `columns` takes. A text that many rows repeat is in memory once."""
    try:
        meta = pq.read_metadata(regular(path, "dataset file"))
        leaves = [meta.schema.column(k) for k in range(len(meta.schema))]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        with pq.ParquetFile(path, metadata=meta, read_dictionary=texts) as file:
            names = [name for name in file.schema_arrow.names if columns(name)]
            if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
                raise InputError(f"{path}: more than one column {twice}, expected one of each name")
            starts = tuple(f"{name}." for name in names)
            values = sum(
                meta.row_group(row).column(k).num_values * max(1, leaf.length // 8)
                for k, leaf in enumerate(leaves) if f"{leaf.path}.".startswith(starts)
                for row in range(meta.num_row_groups)
            )  # fmt: skip
            if max(values, meta.num_rows) > MOST_VALUES:
                raise InputError(f"{path}: {meta.num_rows} rows, {values} values, expected at most {MOST_VALUES}")
            yield file, names
    except (OSError, pa.ArrowException, UnicodeDecodeError, OverflowError) as error:  # OverflowError: of a date
        raise InputError(f"{path}: cannot be read as parquet: {' '.join(str(error).split())}") from error


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
