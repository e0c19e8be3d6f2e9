"""Instructions of a dataset's rows: the texts of its tasks, or of the subtasks that LeRobot 0.5 writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.records import value_of
from vla_ros.datasets.index import Episode, Number, read_jsonl
from vla_ros.datasets.parquet import read_records
from vla_ros.datasets.rows import place, read_columns

KINDS = ("task", "subtask")  # of instructions
UNNAMED = "__index_level_0__"  # what pandas calls the column of an index without a name


def texts_of_rows(
    path: Path, info: dict[str, Any], episodes: Sequence[Episode], kind: str = "task"
) -> tuple[tuple[str, ...], np.ndarray]:
    """The distinct texts, in the order in which they come up, and (N,) int64, of each row the place of its own.

    Args:
        kind: one of KINDS.

    Raises InputError, also for a dataset without subtasks.
    """
    if kind not in KINDS:
        raise InputError(f"instruction {shown(kind)}, expected one of {list(KINDS)}")
    if kind == "subtask" and not has_subtasks(path, info):
        raise InputError(f"dataset {path}: no subtasks, expected a column subtask_index and meta/subtasks.parquet")
    texts, column = _table(path, info, kind), f"{kind}_index"
    indices = read_columns(path, episodes, {column: ((1,), "int64")})[column][:, 0]
    numbers, first, places = np.unique(indices, return_index=True, return_inverse=True)
    for number, frame in zip(numbers.tolist(), first.tolist(), strict=True):
        if number not in texts:
            episode, row = place(episodes, frame)
            raise InputError(f"dataset {path}: episode {episode}, row {row}: {column} {number}, expected one of the "
                             f"table of {kind}s: {shown(sorted(texts))}")
    found = [texts[number] for number in numbers.tolist()]  # two numbers may have one text
    distinct = tuple(dict.fromkeys(found[k] for k in np.argsort(first)))
    return distinct, np.array([distinct.index(text) for text in found], np.int64)[places.reshape(-1)]


def has_subtasks(path: Path, info: dict[str, Any]) -> bool:
    """Whether its rows name subtasks, as LeRobot 0.5 writes them."""
    return "subtask_index" in info["features"] and (path / "meta" / "subtasks.parquet").exists()


def _table(path: Path, info: dict[str, Any], kind: str) -> dict[int, str]:
    """Number -> text. Raises InputError for a missing or damaged table."""
    column = f"{kind}_index"
    if kind == "task" and str(info["codebase_version"]).startswith("v2"):
        file = path / "meta" / "tasks.jsonl"
        found = read_jsonl(file)
    else:
        file = path / "meta" / f"{kind}s.parquet"
        found = read_records(file, {column, kind, UNNAMED}.__contains__)
    texts: dict[int, str] = {}
    for row in found:
        index = value_of(Number, row.get(column), f"{file}: {column}")
        text = value_of(str, row.get(kind, row.get(UNNAMED)), f"{file}: {kind} {index}")
        if texts.setdefault(index, text) != text:
            raise InputError(f"{file}: {column} {index} is {shown(texts[index])} and {shown(text)}, expected one")
    return texts
