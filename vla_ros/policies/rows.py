"""Statistics of actions that are differences: computed from the rows of a dataset, since they do not follow from the
statistics of its joint targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.statistics import of_rows
from vla_ros.policies.dimension import UNUSED, Dimension
from vla_ros.policies.normalisation import LEAST_DEVIATION, NAMES, widened
from vla_ros.policies.path_actions import PathActions

LEAST_DIFFERENCE = 1e-3  # rad or m, about one step of a servo's encoder; smaller differences are noise


@dataclass(frozen=True)
class Rows:
    """States and actions of a dataset.

    Attributes:
        joints: J names.
        states, actions: (N, J) joint positions and targets, rad or m, of N rows; episodes follow one another.
        lengths: rows of each episode.
        step_dt: s between rows.
    """

    joints: tuple[str, ...]
    states: np.ndarray
    actions: np.ndarray
    lengths: tuple[int, ...]
    step_dt: float

    def chunks(self, steps: Sequence[int], step_dt: float) -> tuple[np.ndarray, np.ndarray]:
        """(M,) rows at which a chunk begins and (M, H) its rows: for every chunk that lies within one episode, as
        LeRobot counts them (`compute_relative_action_stats`).

        Args:
            steps: H offsets of a chunk's rows, in `step_dt`.
            step_dt: s, the policy's.

        Raises InputError if no episode is as long as a chunk.
        """
        offsets = np.array(steps) * max(1, round(step_dt / self.step_dt))
        ends = np.cumsum(self.lengths)
        last = np.repeat(ends - 1, self.lengths)
        first = np.repeat(ends - self.lengths, self.lengths)
        starts = np.arange(len(last))
        starts = starts[(starts + offsets[0] >= first) & (starts + offsets[-1] <= last)]
        if not len(starts):
            raise InputError(f"statistics of differences: a chunk takes {offsets[-1] - offsets[0] + 1} rows, the "
                             f"longest episode has {max(self.lengths)}; expected one that is as long as a chunk, or a "
                             "shorter chunk")
        return starts, starts[:, None] + offsets


def chunk_statistics(
    dimensions: Sequence[Dimension], rows: Rows, steps: Sequence[int], step_dt: float, each_row: bool = False
) -> dict[str, np.ndarray]:
    """Statistics of actions in the policy's units over all chunks: (D,) each, or (H, D) of `each_row` of a chunk.

    Args:
        dimensions: D of the policy's actions, differences or not; of a state where `rows.actions` are states.
        steps, step_dt: see `Rows.chunks`.

    Raises InputError.
    """
    starts, frames = rows.chunks(steps, step_dt)
    found = [_statistics(d, rows, starts, frames, each_row) for d in dimensions]
    return {name: np.stack([one[name] for one in found], axis=-1) for name in NAMES}


def with_path(
    statistics: Mapping[str, np.ndarray], path: PathActions, actions: Sequence[Dimension], rows: Rows | None,
    steps: Sequence[int], step_dt: float,
) -> dict[str, np.ndarray]:
    """Statistics of actions, (A,) each, in which those of a base's path are of all chunks; the arguments as above.

    Raises InputError.
    """
    if rows is None or any(values.shape != (len(actions),) for values in statistics.values()):
        raise InputError("path: its statistics follow from the rows of a dataset, for a policy that has one for each "
                         "number of an action, not of each row of a chunk")
    frames = rows.chunks(steps, step_dt)[1]
    values = path.to_policy(np.asarray(rows.actions, np.float64)[frames], rows.joints, actions, step_dt)
    least = LEAST_DIFFERENCE * np.abs([actions[i].scale for i in path.columns])
    found = widened(of_rows(values.reshape(-1, values.shape[-1])), least)
    result = {name: values.copy() for name, values in statistics.items()}
    for name, values in result.items():
        values[path.columns.start : path.columns.stop] = found[name]
    return result


def _statistics(
    dimension: Dimension, rows: Rows, starts: np.ndarray, frames: np.ndarray, each_row: bool
) -> Mapping[str, np.ndarray]:
    """Of one dimension: one number per statistic, or (H,)."""
    if dimension.joint is None:
        return {name: np.full(frames.shape[1:] if each_row else (), UNUSED[name]) for name in NAMES}
    joint = rows.joints.index(dimension.joint)
    targets, start = (dimension.to_policy(np.asarray(v[:, joint], np.float64)) for v in (rows.actions, rows.states))
    values = dimension.of_mode(targets[frames], start[starts])
    least = LEAST_DEVIATION if dimension.mode == "absolute" else LEAST_DIFFERENCE
    told = widened(of_rows(values if each_row else values.reshape(-1, 1)), least * abs(dimension.scale))
    return told if each_row else {name: value[0] for name, value in told.items()}
