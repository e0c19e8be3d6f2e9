"""When to publish what of a bag."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import count

from vla_ros.bags.reader import Bag, Record
from vla_ros.bags.streams import CHUNK_TYPE, CLOCK
from vla_ros.core.errors import InputError

# What makes a robot move. Left out unless it is asked for: a bag is often replayed beside a real robot.
MOVING_TYPES = ("trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray", CHUNK_TYPE)


@dataclass(frozen=True)
class PlayOptions:
    """What to play, and how."""

    rate: float = 1.0  # times real time
    start: float = 0.0  # s after the beginning of the bag
    duration: float | None = None  # s of the bag, None = to its end
    loop: bool = False  # begin again at the end; the clock jumps back then
    topics: Collection[str] | None = None  # full names; None: all that do not make a robot move
    moving: bool = False  # with `topics` None, what makes a robot move too

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise InputError(f"rate {self.rate}, expected a positive number")
        if self.start < 0:
            raise InputError(f"start {self.start} s, expected zero or more")
        if self.duration is not None and not self.duration > 0:
            raise InputError(f"duration {self.duration} s, expected a positive number")


def selected_topics(bag: Bag, options: PlayOptions) -> set[str]:
    """Topics to play. Raises InputError for one that the bag does not have."""
    if options.topics is None:
        return {name for name, info in bag.topics.items() if options.moving or info.type not in MOVING_TYPES}
    missing = sorted(set(options.topics) - set(bag.topics))
    if missing:
        raise InputError(f"bag {bag.path}: no topic {', '.join(missing)}. It has {', '.join(sorted(bag.topics))}")
    # Without the recorded clock the others would disagree with it.
    return set(options.topics) | ({CLOCK} & set(bag.topics))


def schedule(bag: Bag, options: PlayOptions) -> Iterator[tuple[float, Record]]:
    """(s after the start of playing, message) in order; endless with `loop`.

    Raises InputError when there is nothing in the part to be played.
    """
    topics = selected_topics(bag, options)
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
