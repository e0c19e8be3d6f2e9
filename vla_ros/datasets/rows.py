"""The rows of a dataset's parquet files, in the order of its episodes and frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.datasets.index import Episode
from vla_ros.datasets.parquet import read_parquet
from vla_ros.datasets.values import array


def read_columns(
    path: Path, episodes: Sequence[Episode], wanted: Mapping[str, tuple[tuple[int, ...], str]]
) -> dict[str, np.ndarray]:
    """Feature key -> (N, *shape), row n is frame n of the dataset.

    Args:
        path: the dataset, for errors.
        wanted: feature key -> (shape, dtype).

    Raises InputError for a missing or second row, a value that is not finite or of another shape or type.
    """
    total = episodes[-1].stop
    parts: dict[str, list[np.ndarray]] = {key: [] for key in wanted}
    places: list[np.ndarray] = []
    starts = {episode.index: episode.start for episode in episodes}
    for file in dict.fromkeys(episode.data for episode in episodes):
        names = {*wanted, "episode_index", "frame_index"}
        table = read_parquet(file, names.__contains__)
        if missing := names - set(table.column_names):
            raise InputError(f"{file}: no column {sorted(missing)}, it has {sorted(table.column_names)}")
        columns = {}
        kinds = dict.fromkeys(("episode_index", "frame_index"), ((1,), "int64")) | wanted
        for key, (shape, dtype) in kinds.items():
            try:
                columns[key] = array(table[key], shape, dtype)
            except InputError as error:
                raise InputError(f"{file}: {key}: {error}") from None
        numbers, frames = (columns[name][:, 0] for name in ("episode_index", "frame_index"))
        present, which = np.unique(numbers, return_inverse=True)
        if unknown := [number for number in present.tolist() if number not in starts]:
            raise InputError(f"{file}: rows of episodes {shown(unknown)}, which the table of episodes lacks")
        rows = np.array([starts[number] for number in present.tolist()], np.int64)[which.reshape(-1)] + frames
        if len(rows) and not 0 <= rows.min() <= rows.max() < total:
            raise InputError(f"{file}: more rows than the table of episodes says")
        for key in wanted:
            parts[key].append(columns[key])
        places.append(rows)
    found = sum(map(len, places))  # looked at before memory for as many as the table of episodes says
    if found < total:
        raise InputError(f"dataset {path}: {found} rows, {total - found} of {total} are missing")
    order = np.full(total, -1)
    order[np.concatenate(places)] = np.arange(found)
    if (order < 0).any():
        episode, row = place(episodes, int(np.argmax(order < 0)))
        raise InputError(f"dataset {path}: episode {episode} has no row {row}, {(order < 0).sum()} of {total} are "
                         "missing")
    if found > total:
        episode, row = place(episodes, int(np.argmax(np.bincount(np.concatenate(places)) > 1)))
        raise InputError(f"dataset {path}: episode {episode} has more than one row {row}, {found} in all, expected "
                         f"{total}")
    return {key: np.concatenate(rows)[order] for key, rows in parts.items()}


def place(episodes: Sequence[Episode], frame: int) -> tuple[int, int]:
    """(number of the episode, row in it) of a frame of the dataset."""
    episode = next(episode for episode in episodes if frame < episode.stop)
    return episode.index, frame - episode.start
