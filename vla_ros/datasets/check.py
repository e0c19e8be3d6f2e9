"""Find what is wrong or suspicious in a dataset before a policy is trained on it."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from vla_ros.core.errors import InputError, shown
from vla_ros.core.robot import WIDEST
from vla_ros.core.statistics import QUANTILES
from vla_ros.datasets.instructions import texts_of_rows
from vla_ros.datasets.lerobot import VECTORS, Dataset
from vla_ros.datasets.rows import place, read_columns

ERROR, WARNING = "error", "warning"
JUMP = 0.25  # share of a joint's range that it does not pass between two rows...
UNUSUAL = 3  # ...unless that is less than so many times the fastest of its other motions...
RARE = 100  # ...of which one of so many rows, and at least three, are left out
LEAST_JUMP = 0.005  # rad or m: a joint at rest settles
FEW_VALUES = 10  # a gripper that is open or closed jumps
SHORT, LONG = 0.25, 4.0  # times the median length of the episodes
SIDE, ALIKE, BLANK = 32, 2.0, 1.0  # pictures are compared at 32x32 pixels; levels of 255
AVERAGED = " (those of several episodes were averaged, which makes no quantiles)"
MOVING = 0.1  # share of a joint's range in which pictures ought to change


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (level "error": no policy should be trained on it) or suspicious ("warning")."""

    level: str
    kind: str
    text: str
    episode: int | None = None
    row: int | None = None  # in the episode

    def __str__(self) -> str:
        named = (("episode", self.episode), ("row", self.row))
        where = ", ".join(f"{what} {number}" for what, number in named if number is not None)
        return f"{where}: {self.text}" if where else self.text


def check(dataset: Dataset, pictures: bool = True, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """All findings, errors first.

    Args:
        pictures: whether every frame is decoded too: cameras that stand still, blank pictures, rows without a frame.
        progress: called with (frames done, frames in all) of the pictures.
    """
    checks = (_counts, _timestamps, _tasks, _statistics, _units, _constant, _jumps, _lengths, _repeated, _targets)
    found = [finding for one in checks for finding in one(dataset)]
    found += _streams(dataset)
    if pictures:
        found += _pictures(dataset, progress)
    return sorted(found, key=lambda finding: finding.level != ERROR)


def briefly(findings: list[Finding]) -> list[str]:
    """The first of each kind, and how many more there are, a line each."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    return [f"{kind}: {rows[0]}{f' ({len(rows) - 1} more)' if rows[1:] else ''}" for kind, rows in kinds.items()]


def other_joints(dataset: Dataset) -> str:
    """What is wrong if the dataset's actions are not of joints of its states; else ""."""
    if dataset.has_targets:
        return ""
    state, action = list(dataset.joint_names), list(dataset.action_names)
    for key, names in zip(VECTORS, (state, action), strict=True):
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            return f"{key}: the names {twice} are there more than once in {names}; give each number its own in " \
                   "meta/info.json"
    return f"state of {len(state)} dimensions {state}, action of {len(action)} {action}: expected targets of these " \
           "joints, or of some; where they are, give both the same names in meta/info.json"


def _counts(dataset: Dataset) -> Iterator[Finding]:
    counts = {"total_episodes": len(dataset.episodes), "total_frames": len(dataset)}
    for name, count in counts.items():
        if (said := dataset.info.get(name)) != count:
            yield Finding(ERROR, "counts", f"info.json: {name} {shown(said)}, there are {count}")
    try:
        index = read_columns(dataset.path, dataset.episodes, {"index": ((1,), "int64")})["index"][:, 0]
    except InputError as error:
        yield Finding(WARNING, "counts", f"the column index, by which LeRobot finds rows: {error}")
        return
    wrong = np.flatnonzero(index != np.arange(len(dataset)))
    if len(wrong):
        text = f"index {index[wrong[0]]}, expected {wrong[0]}: LeRobot would use other rows as its neighbours"
        yield Finding(WARNING, "counts", text, *place(dataset.episodes, int(wrong[0])))


def _timestamps(dataset: Dataset) -> Iterator[Finding]:
    step = 1 / dataset.fps
    for episode in dataset.episodes:
        times = dataset.timestamps[episode.start : episode.stop]
        if abs(times[0]) > step / 2:
            yield Finding(WARNING, "timestamps", f"begins at {times[0]:.4f} s, expected 0", episode.index, 0)
        steps = np.diff(times)
        off = np.abs(steps - step)
        for level, wrong in ((ERROR, off > step / 2), (WARNING, (off > step / 10) & (off <= step / 2))):
            if wrong.any():
                row = int(np.argmax(wrong))
                text = f"{steps[row]:.4f} s to the next row, expected {step:.4f} at {dataset.fps:g} Hz{_more(wrong)}"
                yield Finding(level, "timestamps", text, episode.index, row)


def _tasks(dataset: Dataset) -> Iterator[Finding]:
    for episode in dataset.episodes:
        if dataset.instruction == "task" and set(episode.listed) != set(episode.instructions):
            said = shown(list(episode.listed))
            text = f"its rows say {shown(list(episode.instructions))}, the table of episodes {said}"
            yield Finding(WARNING, "instructions", text, episode.index)
        if not all(text.strip() for text in episode.instructions):
            yield Finding(WARNING, "instructions", "an instruction without words", episode.index)
        if (outcome := dataset.outcome(episode)) in ("failure", "aborted"):
            text = f"{outcome}: a policy would imitate it all the same"
            yield Finding(WARNING, "outcome", text, episode.index)
    if dataset.has_subtasks and dataset.instruction == "task":
        try:
            texts_of_rows(dataset.path, dataset.info, dataset.episodes, "subtask")
        except InputError as error:
            yield Finding(WARNING, "subtasks", str(error))
    alike: dict[str, list[str]] = {}
    for text in dataset.tasks:
        alike.setdefault(" ".join(text.lower().strip(" .!").split()), []).append(text)
    for texts in alike.values():
        if len(texts) > 1:
            yield Finding(WARNING, "instructions", f"written in several ways: {shown(texts)}")


def _statistics(dataset: Dataset) -> Iterator[Finding]:
    """Of the file against the rows: training computes its own, other programs may not."""
    for key in VECTORS:
        said, right = dataset.said_statistics.get(key), dataset.statistics[key]
        if said is None:
            continue
        counts = [dataset.said_statistics.get(feature, {}).get("count") for feature in VECTORS]
        if key == "action" and None not in counts and not np.array_equal(*counts):
            text = "action: of other rows than those of the states, as LeRobot's statistics of relative actions are"
            yield Finding(WARNING, "statistics", text)
            continue
        if key == "action":  # the file's are in the file's order
            said = {name: dataset.sorted_actions(values) for name, values in said.items()}
        spread = np.maximum(right["max"] - right["min"], 1e-6)
        exact = [name for name in right if name in said and name not in ("count", *QUANTILES)]
        for names, most, why in (
            (exact, 0.01, ""), ([name for name in QUANTILES if name in said], 0.05, AVERAGED),
        ):
            wrong = {name: _off(said[name], right[name], spread) for name in names}
            wrong = {name: off for name, off in wrong.items() if off.max() > most}
            if wrong:
                name = max(wrong, key=lambda name: wrong[name].max())
                j, value, expected = int(np.argmax(wrong[name])), said[name], right[name]
                example = f"{_names(dataset, key)[j]} is {value.flat[j]:.4g}, expected {expected[j]:.4g}" \
                    if value.shape == expected.shape else f"shape {value.shape}, expected {expected.shape}"
                text = f"{key}: {', '.join(wrong)} of the file are not those of the rows{why}: {name} of {example}"
                yield Finding(WARNING, "statistics", text)


def _off(said: np.ndarray, right: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(D,) differences in shares of the joints' ranges; infinite where there is nothing to compare."""
    if said.shape != right.shape:
        return np.full(right.shape, np.inf)
    off = np.abs(said - right) / spread
    return np.where(np.isfinite(off), off, np.inf)


def _units(dataset: Dataset) -> Iterator[Finding]:
    said = set()
    for key, name, values in _columns(dataset):
        frame = int(np.argmax(np.abs(values)))
        if abs(values[frame]) > WIDEST and name not in said:
            said.add(name)
            text = f"{key} of {name} reaches {values[frame]:.4g}, which cannot be in rad or m; training needs its unit"
            yield Finding(WARNING, "units", text, *place(dataset.episodes, frame))
    if small := sorted(dataset.not_in_rad - said):
        text = f"{', '.join(small)}: values that could be rad, under names of LeRobot's robots, which record degrees "\
               "or percent; training needs their units"
        yield Finding(WARNING, "units", text)


def _constant(dataset: Dataset) -> Iterator[Finding]:
    still = [(key, name) for key, name, values in _columns(dataset) if np.ptp(values) == 0]
    for name in dict.fromkeys(name for _, name in still):
        keys = " and ".join(key for key in VECTORS if (key, name) in still)
        yield Finding(WARNING, "constant", f"{keys} of {name} never changes")


def _jumps(dataset: Dataset) -> Iterator[Finding]:
    within = np.ones(len(dataset) - 1, bool)
    within[[episode.start - 1 for episode in dataset.episodes[1:]]] = False
    for key, name, values in _columns(dataset):
        if len(np.unique(values)) <= FEW_VALUES:
            continue
        steps = np.abs(np.diff(values)) * within
        usual = np.sort(steps)[-1 - max(3, len(steps) // RARE)]
        wrong = steps > max(JUMP * np.ptp(values), UNUSUAL * usual, LEAST_JUMP)
        for episode in dataset.episodes:
            part = wrong[episode.start : episode.stop - 1]
            if part.any():
                row = int(np.argmax(part))
                one, other = values[episode.start + row : episode.start + row + 2]
                text = f"{key} of {name} jumps from {one:.4g} to {other:.4g} in the next row{_more(part)}"
                yield Finding(WARNING, "jump", text, episode.index, row)


def _lengths(dataset: Dataset) -> Iterator[Finding]:
    median = float(np.median([episode.length for episode in dataset.episodes]))
    for episode in dataset.episodes:
        if not SHORT * median <= episode.length <= LONG * median:
            text = f"{episode.length} rows, the median is {median:g}"
            yield Finding(WARNING, "length", text, episode.index)


def _repeated(dataset: Dataset) -> Iterator[Finding]:
    seen: dict[bytes, int] = {}
    for episode in dataset.episodes:
        rows = slice(episode.start, episode.stop)
        digest = hashlib.blake2b(dataset.states[rows].tobytes() + dataset.actions[rows].tobytes()).digest()
        first = seen.setdefault(digest, episode.index)
        if first != episode.index:
            text = f"the same states and actions as episode {first}: one may be trained on, the other held out"
            yield Finding(WARNING, "repeated", text, episode.index)


def _targets(dataset: Dataset) -> Iterator[Finding]:
    """Actions that are no targets of the joints."""
    if why := other_joints(dataset):
        yield Finding(ERROR, "actions", why)
        return
    if dataset.hold and not dataset.tool:
        yield Finding(WARNING, "actions", f"none of {list(dataset.hold)}, which a policy sees and leaves alone")
    targets = dataset.targets
    if np.array_equal(dataset.states, targets):
        yield Finding(WARNING, "actions", "every action equals the state of its row: a policy would learn to stand "
                                          "still")
    far = np.median(np.abs(targets.astype(np.float64) - dataset.states), axis=0)
    for j, name in enumerate(dataset.joint_names):
        if far[j] > (spread := float(np.ptp(dataset.states[:, j]))) > 0:
            text = f"action of {name} is {far[j]:.4g} from the state, which moves by {spread:.4g} in all"
            yield Finding(WARNING, "actions", f"{text}: differences, or other units?")


def _streams(dataset: Dataset) -> Iterator[Finding]:
    for name, why in dataset.unreadable.items():
        yield Finding(WARNING, "stream", f"{name} is not read: {why}")
    for name in set(dataset.streams).difference(dataset.depth_names):
        try:
            dataset.values(name)
        except InputError as error:
            yield Finding(WARNING, "stream", f"{name} cannot be read: {error}")


def _pictures(dataset: Dataset, progress: Callable[[int, int], None] | None) -> Iterator[Finding]:
    cameras = [name for name in (*dataset.camera_names, *dataset.depth_names) if name not in dataset.unreadable]
    spread = np.maximum(np.ptp(dataset.states, axis=0), 1e-6)
    for k, camera in enumerate(cameras):
        for episode in dataset.episodes:
            try:
                frames = dataset.episode_frames(episode, camera)
            except InputError as error:
                row, text = getattr(error, "row", None), getattr(error, "why", str(error))
                yield Finding(ERROR, "pictures", f"{camera}: {text}", episode.index, row)
                continue
            if camera in dataset.camera_names:
                states = dataset.states[episode.start : episode.stop] / spread
                yield from _of_one_camera(camera, episode.index, frames, states, round(dataset.fps))
            if progress is not None:
                progress(k * len(dataset) + episode.stop, len(cameras) * len(dataset))


def _of_one_camera(camera: str, episode: int, frames: np.ndarray, states: np.ndarray, second: int) -> Iterator[Finding]:
    """Of (T, h, w, 3) frames, and (T, J) states in shares of the joints' ranges; `second`: rows."""
    small = np.stack([cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in frames])
    small = small.astype(np.float32)
    blank = small.reshape(len(small), -1).std(1) < BLANK
    if blank.any():
        row = int(np.argmax(blank))
        text = f"{camera}: a blank image, level {small[row].mean():.0f} of 255{_more(blank)}"
        yield Finding(WARNING, "pictures", text, episode, row)
    start = 0
    for row in range(1, len(small) + 1):
        if row < len(small) and np.abs(small[row] - small[start]).max() < ALIKE:
            continue
        moved = float(np.ptp(states[start:row], axis=0).max())
        if row - start >= max(second, 5) and moved > MOVING and not blank[start]:
            text = f"{camera}: the same image for {row - start} rows, while joints move"
            yield Finding(WARNING, "pictures", text, episode, start)
        start = row


def _columns(dataset: Dataset) -> Iterator[tuple[str, str, np.ndarray]]:
    """(feature, joint, its (N,) values)."""
    for key, rows in zip(VECTORS, (dataset.states, dataset.actions), strict=True):
        yield from ((key, name, rows[:, j]) for j, name in enumerate(_names(dataset, key)))


def _names(dataset: Dataset, key: str) -> tuple[str, ...]:
    return dataset.joint_names if key == VECTORS[0] else dataset.action_names


def _more(wrong: np.ndarray) -> str:
    count = int(wrong.sum()) - 1
    return f" ({count} more of the episode)" if count else ""
