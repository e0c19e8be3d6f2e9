"""The frames of episodes: observations as serving builds them, and the commands that were executed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.bags.episodes import Episode
from vla_ros.bags.index import BagIndex, Progress, counted
from vla_ros.bags.reader import Bag, Record
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import JOINT_STATES
from vla_ros.messages.observation import NotReady, ObservationBuilder


@dataclass(frozen=True)
class Frame:
    """One instant of an episode. The first with an error is the last of its episode."""

    episode: Episode
    index: int  # its place in the episode, from 0
    observation: Observation | None  # what a policy would have seen
    action: np.ndarray | None  # (J,) the command in force, in the order of the robot file, rad or m
    error: str | None = None  # why the frame cannot be made: there is no observation and no action then


def read_frames(
    bag: Bag, robot: RobotSpec, index: BagIndex, episodes: Sequence[Episode], progress: Progress | None = None
) -> Iterator[Frame]:
    """Frames of the episodes (of this bag, in order of time, not overlapping), in one pass over the bag.

    Only the messages that a frame uses are decoded, and only those of frames that are not complete yet are held.
    """
    frames = [(episode, k) for episode in episodes for k in range(len(episode.times))]
    of_topic: dict[str, list[str]] = {}
    for name, stream in index.streams.items():
        of_topic.setdefault(stream.topic, []).append(name)
    rows = {name: [row for e in episodes for row in e.rows[name].tolist()] for name in index.streams}  # of each frame
    needed = {name: {row for chosen in of_frames for row in chosen} for name, of_frames in rows.items()}
    seen = dict.fromkeys(index.streams, 0)
    held: dict[str, dict[int, Record]] = {name: {} for name in index.streams}
    at = 0
    for record in counted(bag.records(set(of_topic)), progress):
        if at == len(frames):
            return
        is_needed = False  # no other record completes a frame
        for name in of_topic[record.topic]:
            if seen[name] in needed[name]:
                held[name][seen[name]] = record
                is_needed = True
            seen[name] += 1
        while is_needed and at < len(frames) and all(seen[name] > used[at][-1] for name, used in rows.items()):
            episode, k = frames[at]
            chosen = {name: used[at] for name, used in rows.items()}
            if k == 0:
                names = (*index.streams, JOINT_STATES)
                builder = ObservationBuilder(robot, max_age=None, history=0.0, names=names)
                before = dict.fromkeys(rows, ())
            frame = _assemble(bag, builder, index, episode, k, chosen, before, held)
            before = chosen
            at += 1 if frame.error is None else len(episode.times) - k  # the rest of the episode is left out
            yield frame


def _assemble(
    bag: Bag, builder: ObservationBuilder, index: BagIndex, episode: Episode, k: int,
    chosen: Mapping[str, Sequence[int]], before: Mapping[str, Sequence[int]], held: dict[str, dict[int, Record]],
) -> Frame:  # fmt: skip
    """Frame k; what later frames do not need is let go. An action is the commands in force.

    Args:
        chosen: stream name -> rows of the messages that the frame uses; `before`: those of the frame before it.
    """
    record = None
    robot = builder.robot
    try:
        for name, records in held.items():
            for old in [row for row in records if row < chosen[name][0]]:
                del records[old]
            for row in chosen[name]:
                if row not in before[name]:
                    record = records[row]
                    builder.add(name, bag.decode(record), int(index.streams[name].stamps[row]))
        record = None
        for joint, at, value in zip(robot.joint_names, episode.measured_ns[k], episode.positions[k], strict=True):
            builder.joints.add(int(at), (joint,), (value,))
        observation = builder.build(int(episode.times[k]), episode.cut.instruction)
        action = np.full(len(robot.joints), np.nan)
        for name, columns in observation.columns.items():
            action[columns] = observation.values[name]
        return Frame(episode, k, observation, action)
    except InputError as error:
        said = str(error)
        if isinstance(error, NotReady) and error.streams[0] in held:
            record = held[error.streams[0]][chosen[error.streams[0]][-1]]
        if not said.startswith("bag "):
            place = bag.where(record) if record else f"bag {bag.path}: {bag.when(int(episode.times[k]))}"
            said = f"{place}: {said}"
        return Frame(episode, k, None, None, said)
