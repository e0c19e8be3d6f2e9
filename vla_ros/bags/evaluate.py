"""Open-loop evaluation: a policy sees recorded observations, its chunks are compared with what was executed."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from vla_ros.bags.build import plan_bag
from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.frames import Frame, read_frames
from vla_ros.bags.reader import Bag
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.core.robot import RobotSpec

HOLD_STILL = "hold still"  # the yardstick: every joint stays where it is


class Predictor(Protocol):
    """A policy as the evaluation needs it.

    Attributes:
        name: for tables.
        step_dt: s between the rows of a chunk.
        n_obs_steps: frames it looks back at, this one included.
        paced: it remembers, so it must see every frame of an episode, whatever is scored.
    """

    name: str
    step_dt: float
    n_obs_steps: int
    paced: bool

    def begin(self) -> None:
        """A new episode: nothing of those before it counts."""

    def predict(self, steps: Sequence[Observation], seed: int) -> np.ndarray:
        """(H, J) joint targets in the order of the robot file from the last frames, oldest first; fewer at the start.

        The same arguments give the same result, of one that remembers after the same observations.
        """


@dataclass
class Evaluation:
    """Errors of one policy.

    Attributes:
        errors: (C, H, J) float32 |predicted - executed| in rad or m; NaN beyond the end of an episode, and of
            a chunk that is shorter than others.
        episodes: (C,) number of the episode of each chunk, over all bags.
        instructions: (C,) texts.
        ranges: (J,) position ranges of the joints, to compare joints with each other.
        every: frames from one chunk to the next.
    """

    name: str
    joint_names: tuple[str, ...]
    step_dt: float
    ranges: np.ndarray
    errors: np.ndarray
    episodes: np.ndarray
    instructions: np.ndarray
    every: int = 1

    @property
    def scores(self) -> np.ndarray:
        """(C,) mean error of each chunk as a fraction of the joints' ranges."""
        return np.nanmean(self.errors / self.ranges, axis=(1, 2), dtype=np.float64)

    @property
    def score(self) -> float:
        return float(self.scores.mean())

    @property
    def per_joint(self) -> np.ndarray:
        """(J,) rad or m."""
        return np.nanmean(self.errors, axis=(0, 1), dtype=np.float64)

    @property
    def per_step(self) -> np.ndarray:
        """(H, J) rad or m; NaN for steps that no episode reaches."""
        reached = np.isfinite(self.errors).any(axis=(0, 2))
        result = np.full(self.errors.shape[1:], np.nan)
        result[reached] = np.nanmean(self.errors[:, reached], axis=0, dtype=np.float64)
        return result

    def per_instruction(self) -> dict[str, tuple[int, float]]:
        """Text -> (chunks, score), in the order of first appearance."""
        scores = self.scores
        texts = list(dict.fromkeys(self.instructions.tolist()))
        return {text: (int((self.instructions == text).sum()), float(scores[self.instructions == text].mean()))
                for text in texts}  # fmt: skip


@dataclass
class _Collector:
    """Predictions of one policy, until the executed commands of the episode are known."""

    predictions: list[np.ndarray] = field(default_factory=list)
    errors: list[np.ndarray] = field(default_factory=list)

    def finish_episode(self, starts: Sequence[int], actions: np.ndarray) -> None:
        for start, chunk in zip(starts, self.predictions, strict=True):
            error = np.full(chunk.shape, np.nan, np.float32)
            executed = actions[start : start + len(chunk)]
            error[: len(executed)] = np.abs(chunk[: len(executed)] - executed)
            self.errors.append(error)
        self.predictions.clear()


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
) -> tuple[list[Evaluation], list[str]]:
    """(one Evaluation for each policy and one for HOLD_STILL, problems of episodes left out).

    All policies see the same observations at the same instants.

    Args:
        options: how episodes are cut; its fps is replaced by the policies' own clock.
        every: ask for a chunk at every n-th frame.
        seed: of the noise of policies that sample; each chunk has its own, whatever came before it.
        progress: called with chunks done and chunks in all.

    Raises InputError: clocks of the policies differ, a bag has no episodes or bad ones.
    """
    step_dt = predictors[0].step_dt
    for other in predictors[1:]:
        if abs(other.step_dt - step_dt) > 1e-9:
            raise InputError(
                f"{other.name}: step_dt {other.step_dt:g} s, expected {step_dt:g} s as {predictors[0].name}: "
                "chunks of different clocks cannot be compared"
            )
    if every < 1:
        raise InputError(f"every {every}, expected at least 1")
    options = CutOptions(**{**options.__dict__, "fps": 1.0 / step_dt})
    collectors = [_Collector() for _ in range(len(predictors) + 1)]
    plans, problems = [], []
    for path in map(Path, bags):
        index, episodes, bad = plan_bag(path, robot, options, namespace)
        plans.append((path, index, episodes))
        problems += bad
    if problems and not skip_bad:
        raise InputError("\n  ".join([f"{len(problems)} bad episode(s) (leave them out with --skip-bad):", *problems]))
    total = sum(-(-len(episode.times) // every) for _, _, episodes in plans for episode in episodes)
    labels: list[tuple[int, str]] = []
    history: deque[Observation] = deque(maxlen=max(predictor.n_obs_steps for predictor in predictors))
    number, starts, actions = -1, [], []
    for path, index, episodes in plans:
        with Bag(path) as bag:
            for frame in read_frames(bag, robot, index, episodes):
                if frame.index == 0:
                    number += 1
                    history.clear()
                    starts, actions = [], []
                    for predictor in predictors:
                        predictor.begin()
                if frame.error is not None:
                    if not skip_bad:
                        raise InputError(f"{frame.episode.name}: {frame.error} (leave it out with --skip-bad)")
                    problems.append(f"{frame.episode.name}: {frame.error}")
                    for collector in collectors:
                        collector.predictions.clear()
                    continue
                history.append(frame.observation)
                actions.append(frame.action)
                scored = frame.index % every == 0
                _ask(collectors, predictors, history, frame, [seed, number, frame.index], scored)
                if scored:
                    starts.append(frame.index)
                    if progress:
                        progress(len(labels) + len(starts), total)
                if frame.is_last:
                    executed = np.stack(actions)
                    for collector in collectors:
                        collector.finish_episode(starts, executed)
                    labels += [(number, frame.episode.cut.instruction)] * len(starts)
    if not labels:
        raise InputError("no episode can be used:\n  " + "\n  ".join(problems))
    ranges = np.array([joint.upper - joint.lower for joint in robot.joints])
    names = [*(predictor.name for predictor in predictors), HOLD_STILL]
    evaluations = [
        Evaluation(name, robot.joint_names, step_dt, ranges, _stacked(collector.errors),
                   np.array([row[0] for row in labels]), np.array([row[1] for row in labels]), every)
        for name, collector in zip(names, collectors, strict=True)
    ]  # fmt: skip
    return evaluations, problems


def _ask(collectors: Sequence[_Collector], predictors: Sequence[Predictor], history: Sequence[Observation],
         frame: Frame, entropy: list[int], scored: bool) -> None:  # fmt: skip
    """Chunks of one frame; where it is not scored, only of the policies that must see it."""
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    longest = 0
    for collector, predictor in zip(collectors, predictors, strict=False):
        if not (scored or predictor.paced):
            continue
        steps = list(history)[-predictor.n_obs_steps :]
        chunk = np.asarray(predictor.predict(steps, seed))
        if chunk.ndim != 2 or chunk.shape[1] != len(frame.action) or not np.isfinite(chunk).all():
            raise InputError(f"{predictor.name}: predicted {chunk.shape}, expected finite (H, {len(frame.action)})")
        if scored:
            collector.predictions.append(chunk)
            longest = max(longest, len(chunk))
    if scored:
        collectors[-1].predictions.append(np.tile(frame.observation.state, (longest, 1)))


def _stacked(errors: Sequence[np.ndarray]) -> np.ndarray:
    """(h, J) each to (C, H, J), H the longest h; NaN fills up."""
    rows = max(len(one) for one in errors)
    return np.stack([np.pad(one, ((0, rows - len(one)), (0, 0)), constant_values=np.nan) for one in errors])
