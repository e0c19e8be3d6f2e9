"""Which messages of a bag to publish, and when."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import count

from vla_ros.bags.reader import Bag, Record
from vla_ros.bags.roles import command_topics, objection
from vla_ros.bags.streams import CLOCK
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec


@dataclass(frozen=True)
class PlayOptions:
    """What to play, and how. A real robot may be connected during a replay, so by default nothing is published that
    could move it."""

    rate: float = 1.0  # times real time
    start: float = 0.0  # s after the beginning of the bag
    duration: float | None = None  # s of the bag, None = to its end
    loop: bool = False  # begin again at the end; the clock jumps back then
    topics: Collection[str] | None = None  # full names; None: all without an objection (see `roles`)
    commands: bool = False  # the robot's commands too
    clock: bool = False  # /clock, the recorded one where the bag has one
    robot: RobotSpec | None = None  # says which topics are commands, and which are sensors
    namespace: str = "/"  # of the robot's topics

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise InputError(f"rate {self.rate}, expected a positive number")
        if self.start < 0:
            raise InputError(f"start {self.start} s, expected zero or more")
        if self.duration is not None and not self.duration > 0:
            raise InputError(f"duration {self.duration} s, expected a positive number")


def selected_topics(bag: Bag, options: PlayOptions) -> tuple[set[str], dict[str, str]]:
    """Topics to play, and topic -> why it is left out. Raises InputError for one that the bag does not have."""
    robot, space = options.robot, options.namespace
    objections = {name: objection(name, info.type, robot, space) for name, info in bag.topics.items()}
    if options.topics is None:
        chosen = {name for name, words in objections.items() if not words}
    else:
        chosen = set(options.topics)
        if missing := sorted(chosen - set(bag.topics)):
            raise InputError(f"bag {bag.path}: no topic {', '.join(missing)}. It has {', '.join(sorted(bag.topics))}")
    if options.commands:
        if robot is None:
            raise InputError("--commands: the robot file defines these topics, expected --robot as well")
        commands = command_topics(robot, space)
        if not commands & set(bag.topics):
            raise InputError(f"bag {bag.path}: none of the commands of robot {robot.name}, {', '.join(commands)}")
        chosen |= commands & set(bag.topics)
    if options.clock:
        chosen |= {CLOCK} & set(bag.topics)
    left = set() if options.topics is not None else set(bag.topics) - chosen
    return chosen, {name: objections[name] for name in sorted(left)}


def schedule(bag: Bag, options: PlayOptions) -> Iterator[tuple[float, Record]]:
    """(s after the start of playing, message) in order; endless with `loop`.

    Raises InputError when there is nothing in the part to be played.
    """
    topics, _ = selected_topics(bag, options)
    start = bag.start_ns + round(options.start * 1e9)
    stop = bag.end_ns + 1 if options.duration is None else start + round(options.duration * 1e9)
    length = (min(stop, bag.end_ns + 1) - start) / 1e9 / options.rate
    for turn in count() if options.loop else (0,):
        record = None
        for record in bag.records(topics, start, stop):
            yield turn * length + (record.log_ns - start) / 1e9 / options.rate, record
        if record is None:
            raise InputError(
                f"bag {bag.path}: nothing to play of {', '.join(sorted(topics)) or 'no topics'} "
                f"between {bag.when(start)} and {bag.when(stop)}"
            )
