"""Demonstrations: an expert at work, from many starts and with disturbances, on the policy's clock."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import Any

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.sim.driving import clearance, goal_of
from vla_ros.sim.kinematics import forward, inverse
from vla_ros.sim.robot import GRIPPER_CLOSED, GRIPPER_OPEN, PAN_ORIGIN
from vla_ros.sim.room import BASE_RADIUS, HALF_ROOM
from vla_ros.sim.room_world import RoomWorld
from vla_ros.sim.scene import COLOURS
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import Task, task_of
from vla_ros.sim.variation import Variation
from vla_ros.sim.world import World
from vla_ros.sim.worlds import expert_of, tracker_of

FPS = 10.0  # Hz, the policy's clock
LAYOUTS_FROM = 1_000_000  # layouts of demonstrations have seeds from here on, so that those below stay unseen
ATTEMPTS = 20  # layouts that an episode may try
_BATCH = 100  # episodes
_EPISODES = 100_000  # between two seeds
_LED_FOR = (1.0, 9.0)  # s that a leader goes on
_DISTURBANCE = 0.02  # rad of the arm's motors, or what `shaken` makes of it


@dataclass(frozen=True)
class Recording:
    """What is stored of a frame. All of it must be importable by name where several processes are used.

    Attributes:
        picture: resizes (h, w, 3) uint8 to what is stored.
        cameras: camera -> width and height of its pictures; None: all of the robot's, in 640x480.
        sense: gives the further sensors' values by their names; None: there are none.
    """

    picture: Callable[[np.ndarray], np.ndarray]
    cameras: Mapping[str, tuple[int, int]] | None = None
    sense: Callable[[Simulated], Mapping[str, np.ndarray]] | None = None

    def sizes(self, world: Simulated) -> Mapping[str, tuple[int, int]]:
        return dict.fromkeys(world.cameras, (640, 480)) if self.cameras is None else self.cameras


@dataclass(frozen=True)
class Demonstration:
    """One episode of T frames, 1 / FPS apart.

    Attributes:
        images: camera -> (T, h, w, 3) uint8 RGB.
        states: (T, J) measured joint positions, rad, of a base velocities, m/s and rad/s.
        actions: (T, J) the expert's targets at the same instants; those executed may have been disturbed.
        instruction: the sentence it follows.
        task: what the sentence means.
        start: how the episode began: "home", "anywhere", "other task" or "disturbed", with ", led" after a leader.
        seed: of its layout.
        values: sensor -> (T, ...), what `Recording.sense` gave.
        variation: of what it looks like, as `Variation.apply` gave it.
    """

    images: dict[str, np.ndarray]
    states: np.ndarray
    actions: np.ndarray
    instruction: str
    task: Task
    start: str
    seed: int
    values: dict[str, np.ndarray]
    variation: dict[str, Any] = field(default_factory=dict)


Leader = Callable[[Simulated, str, int], Iterator[tuple[np.ndarray, np.ndarray]]]
"""Moves a world as it takes a sentence, with a seed, and gives each command afterwards: (J,) position and velocity."""


def demonstrate(
    world: Simulated, task: Task, kinds: Sequence[str], seed: int, recording: Recording,
    variation: Variation | None = None, leader: Leader | None = None,
) -> Demonstration:
    """One successful episode. The same arguments give the same episode.

    The arm starts at home, anywhere, in the middle or at the end of another task (with a cube in hand perhaps), or
    knocked off its own way; a base where the layout says, or anywhere, looking towards its goal. In two of three
    episodes the executed commands carry smooth noise, the recorded actions are the expert's own (DART, Laskey et al.
    2017), so that a policy sees how to come back.

    Args:
        task: in a scene with other colours in every layout, of the colour that takes its place there.
        kinds: tasks that the arm may have been at before, as `task_of` takes them.
        leader: goes on from the start for a few seconds, which are not recorded. The expert takes over from where that
            has led, so that a policy sees how to come back from its own mistakes (as in DAgger, Ross et al. 2011).

    Raises:
        InputError: the expert failed in 20 layouts in a row.
    """
    for attempt in range(ATTEMPTS):
        layout = layout_seed(0, seed, attempt)
        wanted = world.suited(task, layout)
        drawn = variation.apply(layout) if variation else {}
        rng = np.random.default_rng([layout, 7])
        begin = _begin_drive if isinstance(world, RoomWorld) else _begin
        start, position, velocity = begin(world, wanted, kinds, layout, rng)
        if leader is not None:
            start += ", led"
            position, velocity = _lead(world, wanted, layout, rng, leader)
        demonstration = _record(world, wanted, start, position, velocity, layout, rng, recording)
        if demonstration is not None:
            return replace(demonstration, variation=drawn)
    raise InputError(given_up("+".join(task.kinds)))


def given_up(task: str) -> str:
    """What is said when the expert has failed in all layouts that an episode may try."""
    return f"task {task}: the scripted expert failed in {ATTEMPTS} layouts in a row, expected another task or --seed"


def layout_seed(seed: int, episode: int, attempt: int) -> int:
    """The layout that an episode of `demonstrations` with this seed tries."""
    return LAYOUTS_FROM + (seed * _EPISODES + episode) * ATTEMPTS + attempt


def demonstrations(
    kinds: Sequence[str], episodes: int, seed: int, recording: Recording, jobs: int = 1,
    world: type[Simulated] = World, vary: Sequence[str] = (), leader: Leader | None = None,
) -> Iterator[Demonstration]:
    """Episodes in a fixed order, whatever the number of processes.

    Args:
        kinds: used in turn; one that is named twice is used twice as often. Colours take turns too.
        seed: episodes of different seeds below 10 000 have different layouts.
        vary: what looks different in every layout, see `Variation`.
        recording, leader: must be picklable when `jobs` is more than 1, or the pool reports itself broken.
    """
    plan = [(world, kinds, index, seed * _EPISODES + index, recording, vary) for index in range(episodes)]
    if jobs == 1:
        yield from map(partial(_one, leader=leader), plan)
        return
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _prepare, (leader,))
    try:
        for start in range(0, episodes, _BATCH):  # in batches, so that images do not accumulate for a slow reader
            yield from pool.map(_one, plan[start : start + _BATCH])
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, too: the episodes that have begun end


def _prepare(leader: Leader | None) -> None:
    """A process of the pool. Ctrl-C is for the command: a pool that loses its processes in the middle prints
    tracebacks."""
    global _leader
    _leader = leader
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# One a process: building it and its graphics context takes longer than an episode.
_leader: Leader | None = None
_world: Simulated | None = None
_variation: Variation | None = None
_varied: Sequence[str] = ()


def _one(
    job: tuple[type[Simulated], Sequence[str], int, int, Recording, Sequence[str]], leader: Leader | None = None
) -> Demonstration:
    global _world, _variation, _varied
    world, kinds, index, seed, recording, vary = job
    if type(_world) is not world or _varied != vary:
        _world, _varied = world(), vary
        _variation = Variation(_world, vary) if vary else None
    task = task_of(kinds[index % len(kinds)], COLOURS[index // len(kinds) % len(COLOURS)])
    return demonstrate(_world, task, kinds, seed, recording, _variation, leader or _leader)


def _begin(
    world: World, task: Task, kinds: Sequence[str], seed: int, rng: np.random.Generator
) -> tuple[str, np.ndarray, np.ndarray]:
    """Bring the world to a start: its name, and position and velocity (6,) of the last command."""
    start = str(rng.choice(["home", "anywhere", "other task", "disturbed"], p=[0.30, 0.20, 0.35, 0.15]))
    layout = world.random_layout(seed)
    if start == "anywhere":
        bearing, radius = rng.uniform(-0.95, 0.95), rng.uniform(0.13, 0.26)
        tip = np.array([PAN_ORIGIN[0] + radius * np.cos(bearing), radius * np.sin(bearing), rng.uniform(0.06, 0.17)])
        gripper = rng.choice([GRIPPER_CLOSED, GRIPPER_OPEN, rng.uniform(GRIPPER_CLOSED, GRIPPER_OPEN)])
        pose = np.append(inverse(tip, bearing + rng.uniform(-0.5, 0.5)), gripper)
        world.reset(layout=layout, joints=pose)
        return start, pose, np.zeros(6)
    world.reset(layout=layout)
    if start == "home":
        return start, world.joint_positions(), np.zeros(6)
    if start == "other task":
        others = [world.suited(task_of(kind, colour), seed) for kind in dict.fromkeys(kinds) for colour in COLOURS]
        others = [other for other in others if other != task] or [task]
        expert = expert_of(world, others[int(rng.integers(len(others)))])
        ticks = 450 if rng.random() < 0.4 else int(rng.uniform(20, 350))  # 4.5 s is the end of every task
        for _ in range(ticks):
            world.step(expert.command())
        return start, expert.position, expert.velocity
    expert = expert_of(world, task)
    for _ in range(int(rng.uniform(20, 300))):
        world.step(expert.command())
    pose = forward(expert.position)
    tip = pose.position + rng.uniform(-0.035, 0.035, 3)
    tip[2] = max(tip[2], 0.03)
    gripper = expert.position[5] if rng.random() < 0.6 else rng.uniform(GRIPPER_CLOSED, GRIPPER_OPEN)
    knocked = np.append(inverse(tip, pose.heading + rng.uniform(-0.4, 0.4)), gripper)
    for share in np.linspace(0.0, 1.0, 40):
        world.step(expert.position + share * (knocked - expert.position))
    return start, knocked, np.zeros(6)


def _begin_drive(
    world: RoomWorld, task: Task, kinds: Sequence[str], seed: int, rng: np.random.Generator
) -> tuple[str, np.ndarray, np.ndarray]:
    """As `_begin`, for a base."""
    world.reset(seed)
    start = str(rng.choice(["home", "anywhere"]))
    goal = goal_of(world, task)
    while start == "anywhere":
        place = rng.uniform(-HALF_ROOM, HALF_ROOM, 2)
        if clearance(world, place) > BASE_RADIUS + 0.03 and np.hypot(*(goal - place)) > 0.6:
            yaw = np.arctan2(*(goal - place)[::-1]) + rng.uniform(-0.6, 0.6)
            world.reset(seed, layout=replace(world.layout, start=np.append(place, yaw)))
            break
    position = world.joint_positions()
    return start, position, np.zeros_like(position)


def _lead(
    world: Simulated, task: Task, seed: int, rng: np.random.Generator, leader: Leader
) -> tuple[np.ndarray, np.ndarray]:
    """The leader goes on for a while, not beyond success: position and velocity (J,) of its last command."""
    tracker, sentence = tracker_of(world, task), task.instruction(rng, world.words)
    ticks = round(rng.uniform(*_LED_FOR) / world.control_period)
    for position, velocity in islice(leader(world, sentence, seed), ticks):  # noqa: B007
        if tracker.update() or tracker.failed:
            break
    return position, velocity


def _record(world, task, start, position, velocity, seed, rng, recording) -> Demonstration | None:
    """The expert from here to a while after success, or None where it did not succeed."""
    expert = expert_of(world, task, position, velocity)
    tracker = tracker_of(world, task)
    deviation = _DISTURBANCE if rng.random() < 0.67 else 0.0
    noise = SmoothNoise(rng, deviation * world.shaken, world.control_period)
    ticks_per_frame = round(1 / (FPS * world.control_period))
    sizes = recording.sizes(world)
    images: dict[str, list[np.ndarray]] = {camera: [] for camera in sizes}
    states, actions, values = [], [], []
    hold_ticks = int(rng.uniform(60, 120))
    held = 0
    for tick in range(int(world.limit(task) / world.control_period)):
        command = expert.command()
        if tick % ticks_per_frame == 0:
            for camera, frames in images.items():
                frames.append(recording.picture(world.render(camera, *sizes[camera])))
            values.append(recording.sense(world) if recording.sense else {})
            states.append(world.joint_positions())
            actions.append(command)
        world.step(world.shaken_command(command, noise.next()))
        tracker.update()
        if tracker.touched:
            return None
        held = held + 1 if tracker.holds and expert.settled else 0
        if held >= hold_ticks:
            return Demonstration(
                {camera: np.stack(frames) for camera, frames in images.items()},
                np.array(states), np.array(actions), task.instruction(rng, world.words), task, start, seed,
                {name: np.stack([row[name] for row in values]) for name in values[0]},
            )
    return None


class SmoothNoise:
    """An Ornstein-Uhlenbeck process over the joints, smoothed once."""

    def __init__(self, rng: np.random.Generator, deviations: np.ndarray, period: float, time_constant: float = 0.25):
        """`deviations`: (J,) standard deviation of each joint."""
        self._rng, self._deviations, self._share = rng, deviations, period / time_constant
        self._drive, self._value = np.zeros(len(deviations)), np.zeros(len(deviations))

    def next(self) -> np.ndarray:
        """(J,) to be added to the command of this tick, in its units."""
        kick = self._rng.normal(size=len(self._drive)) * self._deviations * np.sqrt(2 * self._share)
        self._drive += -self._share * self._drive + kick
        self._value += 2 * self._share * (self._drive - self._value)
        return self._value
