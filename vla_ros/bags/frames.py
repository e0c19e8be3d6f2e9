"""The frames of episodes: observations as serving builds them, and the commands that were executed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.bags.episodes import Episode
from vla_ros.bags.index import BagIndex, Progress
from vla_ros.bags.reader import Bag
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.commands import read_command
from vla_ros.messages.observation import ObservationBuilder


@dataclass(frozen=True)
class Frame:
    """One instant of an episode.

    Attributes:
        episode: the episode it belongs to.
        index: its place in the episode, from 0.
        observation: what a policy would have seen.
        action: (J,) the command in force, in the order of the robot file, rad or m.
        error: why the frame cannot be made (observation and action are None then); no further frames of its
            episode follow.
    """

    episode: Episode
    index: int
    observation: Observation | None
    action: np.ndarray | None
    error: str | None = None

    @property
    def is_last(self) -> bool:
        return self.error is not None or self.index == len(self.episode.times) - 1


class _Assembler:
    """Turns messages of one episode into frames."""

    def __init__(self, robot: RobotSpec, episode: Episode) -> None:
        self._robot, self._episode = robot, episode
        self._builder = ObservationBuilder(robot, max_age=None, history=0.0)
        self._columns = {
            group.name: [robot.joint_names.index(name) for name in group.joints] for group in robot.groups
        }
        self._action = np.full(len(robot.joints), np.nan)

    def take(self, stream: str, message: object) -> None:
        """Raises InputError for a command that is none."""
        if not stream.startswith("command/"):
            self._builder.add(stream, message)
            return
        name = stream.removeprefix("command/")
        group = next(group for group in self._robot.groups if group.name == name)
        self._action[self._columns[name]] = read_command(group, message)

    def frame(self, index: int) -> Frame:
        """Raises InputError when a part cannot be decoded."""
        observation = self._builder.build(int(self._episode.times[index]), self._episode.cut.instruction)
        return Frame(self._episode, index, observation, self._action.copy())


def read_frames(
    bag: Bag, robot: RobotSpec, index: BagIndex, episodes: Sequence[Episode], progress: Progress | None = None
) -> Iterator[Frame]:
    """Frames of the episodes (of this bag, in order of time, not overlapping), in one pass over the bag.

    Only the messages that a frame uses are decoded, and only those of frames that are not complete yet are held.
    """
    frames = [(episode, k) for episode in episodes for k in range(len(episode.times))]
    streams = {stream.topic: name for name, stream in index.streams.items()}
    needed = {
        name: set(np.concatenate([episode.rows[name] for episode in episodes]).tolist()) if episodes else set()
        for name in index.streams
    }
    seen = dict.fromkeys(index.streams, 0)
    parts: dict[str, dict[int, object]] = {name: {} for name in index.streams}
    assembler: _Assembler | None = None
    refused: Episode | None = None
    at = 0
    for count, record in enumerate(bag.records(set(streams))):
        if progress and count % 256 == 255:
            progress(256)
        if at == len(frames):
            return
        name = streams[record.topic]
        number = seen[name]
        seen[name] += 1
        if number not in needed[name]:
            continue
        parts[name][number] = record
        while at < len(frames) and all(seen[n] > frames[at][0].rows[n][frames[at][1]] for n in parts):
            episode, k = frames[at]
            at += 1
            if episode is refused:
                continue
            if k == 0:
                assembler = _Assembler(robot, episode)
            frame = _assemble(bag, assembler, episode, k, parts)
            if frame.error is not None:
                refused = episode
            yield frame


def _assemble(bag: Bag, assembler: _Assembler, episode: Episode, k: int, parts: dict[str, dict[int, object]]) -> Frame:
    record = None
    try:
        for name, held in parts.items():
            row = int(episode.rows[name][k])
            for old in [number for number in held if number < row]:
                del held[old]
            if k == 0 or row != episode.rows[name][k - 1]:
                record = held[row]
                assembler.take(name, bag.decode(record))
        record = None
        return assembler.frame(k)
    except InputError as error:
        said = str(error)
        if not said.startswith("bag "):
            place = bag.where(record) if record else f"bag {bag.path}: {bag.when(int(episode.times[k]))}"
            said = f"{place}: {said}"
        return Frame(episode, k, None, None, said)
