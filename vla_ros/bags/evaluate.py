"""Open-loop evaluation: a policy gets recorded observations, and its chunks are compared with what was executed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np

from vla_ros.bags.build import plan_bag
from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.frames import Frame, read_frames
from vla_ros.bags.measures import JointMeasure
from vla_ros.bags.reader import Bag
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.core.robot import RobotSpec

HOLD_STILL = "hold still"  # the baseline: every joint stays where it is, a base stands


class Predictor(Protocol):
    """Interface of a policy for the evaluation."""

    name: str  # for tables
    step_dt: float  # s between the rows of a chunk
    n_obs_steps: int  # frames it looks back at, this one included
    paced: bool  # it has a memory, so it must get every frame of an episode, even those that are not scored

    def begin(self) -> None:
        """Begin a new episode; earlier ones are forgotten."""

    def predict(self, steps: Sequence[Observation], seed: int) -> np.ndarray:
        """(H, width) rows of the measure, by default joint targets in the order of the robot file, from the last
        frames, oldest first; fewer at the start.

        The same arguments give the same result (with a memory, after the same observations).
        """


@dataclass
class Evaluation:
    """Errors of one policy."""

    name: str
    joint_names: tuple[str, ...]  # or what else the measure names, here and below
    step_dt: float
    ranges: np.ndarray  # (J,) position ranges of the joints, to compare joints with each other
    # (C, H, J) float32 |predicted - executed| in rad or m; NaN beyond the end of an episode and of a shorter chunk
    errors: np.ndarray
    episodes: np.ndarray  # (C,) number of the episode of each chunk, over all bags
    instructions: np.ndarray  # (C,) texts
    every: int = 1  # frames from one chunk to the next
    units: tuple[str, ...] = ()  # of the joints
    # First rows of a chunk that the figures are of, but for those by step: as many as the shortest of the chunks that
    # are evaluated together have, since errors grow with the time ahead; None: all.
    rows: int | None = None

    @property
    def scores(self) -> np.ndarray:
        """(C,) mean error of each chunk as a fraction of the joints' ranges."""
        return np.nanmean(self.errors[:, : self.rows] / self.ranges, axis=(1, 2), dtype=np.float64)

    @property
    def score(self) -> float:
        return float(self.scores.mean())

    @property
    def per_joint(self) -> np.ndarray:
        """(J,) rad or m."""
        return np.nanmean(self.errors[:, : self.rows], axis=(0, 1), dtype=np.float64)

    @property
    def per_step(self) -> np.ndarray:
        """(H, J) rad or m; NaN for steps that no episode reaches."""
        reached = np.isfinite(self.errors).any(axis=(0, 2))
        result = np.full(self.errors.shape[1:], np.nan)
        result[reached] = np.nanmean(self.errors[:, reached], axis=0, dtype=np.float64)
        return result

    def per_instruction(self) -> dict[str, tuple[int, float]]:
        """Text -> (chunks, score), in the order of first appearance."""
        of_text = {text: self.scores[self.instructions == text] for text in dict.fromkeys(self.instructions.tolist())}
        return {text: (len(scores), float(scores.mean())) for text, scores in of_text.items()}


def evaluate(
    bags: Sequence[str | Path],
    robot: RobotSpec,
    predictors: Sequence[Predictor],
    options: CutOptions,
    namespace: str = "/",
    every: int = 1,
    seed: int = 0,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
    measure: JointMeasure | None = None,
    watch: Callable[[Frame, list[np.ndarray]], object] | None = None,
) -> tuple[list[Evaluation], list[str]]:
    """(one Evaluation for each policy and one for HOLD_STILL, problems of episodes left out).

    All policies see the same observations at the same instants.

    Args:
        options: how episodes are cut; its fps is replaced by the policies' own clock.
        every: ask for a chunk at every n-th frame.
        seed: of the noise of policies that sample; each chunk has its own, whatever came before it.
        progress: called with chunks done and chunks in all.
        measure: what is compared; the joints by default.
        watch: called with each frame and the chunks of all policies there, and of HOLD_STILL; none where not scored.

    Raises InputError: clocks of the policies differ, a bag has no episodes or bad ones.
    """
    step_dt, measure = predictors[0].step_dt, measure or JointMeasure(robot)
    for other in predictors[1:]:
        if abs(other.step_dt - step_dt) > 1e-9:
            raise InputError(
                f"{other.name}: step_dt {other.step_dt:g} s, expected {step_dt:g} s as {predictors[0].name}: "
                "chunks of different clocks cannot be compared"
            )
    if every < 1:
        raise InputError(f"every {every}, expected at least 1")
    options = replace(options, fps=1.0 / step_dt)
    plans, problems = [], []
    for path in map(Path, bags):
        index, episodes, bad = plan_bag(path, robot, options, namespace)
        plans.append((path, index, episodes))
        problems += bad
    if problems and not skip_bad:
        raise InputError("\n  ".join([f"{len(problems)} bad episode(s) (leave them out with --skip-bad):", *problems]))
    total = sum(-(-len(episode.times) // every) for _, _, episodes in plans for episode in episodes)
    labels: list[tuple[int, str]] = []
    errors: list[list[np.ndarray]] = [[] for _ in range(len(predictors) + 1)]
    number = -1
    for path, index, episodes in plans:
        with Bag(path) as bag:
            frames = read_frames(bag, robot, index, episodes)
            for _, of_episode in groupby(frames, lambda frame: frame.episode.number):
                number += 1
                actions, chunks = [], []
                for frame, predicted in _predict(of_episode, predictors, every, [seed, number], measure):
                    actions.append(frame.action)
                    if watch:
                        watch(frame, predicted)
                    if predicted:
                        chunks.append((frame.index, predicted))
                        if progress:
                            progress(len(labels) + len(chunks), total)
                if frame.error is not None:
                    if not skip_bad:
                        raise InputError(f"{frame.episode.name}: {frame.error} (leave it out with --skip-bad)")
                    problems.append(f"{frame.episode.name}: {frame.error}")
                    continue
                executed = measure.rows(np.stack(actions))
                for start, predicted in chunks:
                    for of_policy, chunk in zip(errors, predicted, strict=True):
                        of_policy.append(_error(chunk, executed[start : start + len(chunk)], measure))
                labels += [(number, frame.episode.cut.instruction)] * len(chunks)
    if not labels:
        raise InputError("no episode can be used:\n  " + "\n  ".join(problems))
    numbers, texts = (np.array(column) for column in zip(*labels, strict=True))
    stacked = [_stacked(of_policy) for of_policy in errors]
    rows = min(one.shape[1] for one in stacked)
    evaluations = [
        Evaluation(name, measure.names, step_dt, measure.ranges, one, numbers, texts, every, measure.units, rows)
        for name, one in zip([*(predictor.name for predictor in predictors), HOLD_STILL], stacked, strict=True)
    ]
    return evaluations, problems


def _predict(
    frames: Iterable[Frame], predictors: Sequence[Predictor], every: int, entropy: list[int], measure: JointMeasure
) -> Iterator[tuple[Frame, list[np.ndarray]]]:
    """Each frame of an episode with the (H, width) chunks of all policies and of HOLD_STILL; none where not scored.

    A frame that is not scored is shown to the policies that must see every one.
    """
    history: deque[Observation] = deque(maxlen=max(predictor.n_obs_steps for predictor in predictors))
    for predictor in predictors:
        predictor.begin()
    for frame in frames:
        chunks: list[np.ndarray] = []
        if frame.error is None:
            history.append(frame.observation)
            scored = frame.index % every == 0
            seed = int(np.random.SeedSequence([*entropy, frame.index]).generate_state(1)[0])
            for predictor in predictors:
                if scored or predictor.paced:
                    chunk = np.asarray(predictor.predict(list(history)[-predictor.n_obs_steps :], seed))
                    width = measure.width
                    if chunk.ndim != 2 or chunk.shape[1] != width or not np.isfinite(chunk).all():
                        raise InputError(f"{predictor.name}: predicted {chunk.shape}, expected finite (H, {width})")
                    chunks.append(chunk)
            if scored:
                longest = max(map(len, chunks), default=0)
                chunks.append(measure.rows(np.tile(measure.held(frame.observation.state), (longest, 1))))
            else:
                chunks = []
        yield frame, chunks


def _error(chunk: np.ndarray, executed: np.ndarray, measure: JointMeasure) -> np.ndarray:
    """(H, C) float32 of a chunk (H, width) and the commands (h, width) of its time; NaN after the end of the episode.
    """
    error = np.full((len(chunk), len(measure.names)), np.nan, np.float32)
    error[: len(executed)] = measure.errors(chunk[: len(executed)], executed)
    return error


def _stacked(errors: Sequence[np.ndarray]) -> np.ndarray:
    """(h, J) each to (C, H, J), H the longest h; NaN fills up."""
    rows = max(len(one) for one in errors)
    return np.stack([np.pad(one, ((0, rows - len(one)), (0, 0)), constant_values=np.nan) for one in errors])
