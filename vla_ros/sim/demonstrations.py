"""Demonstrations of the expert, from many starts and with disturbances, on the policy's clock."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from vla_ros.sim.expert import Expert
from vla_ros.sim.kinematics import forward, inverse
from vla_ros.sim.layout import Layout
from vla_ros.sim.robot import GRIPPER_CLOSED, GRIPPER_OPEN, PAN_ORIGIN
from vla_ros.sim.tasks import SuccessTracker, Task, TaskKind
from vla_ros.sim.world import World

FPS = 10.0  # Hz, the policy's clock
LAYOUTS_FROM = 1_000_000  # layouts of demonstrations have seeds from here on, so that those below stay unseen
_TIME_LIMIT = 12.0  # s
ATTEMPTS = 20  # layouts that an episode may try
_BATCH = 100  # episodes
_EPISODES = 100_000  # between two seeds
Picture = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Demonstration:
    """One episode of T frames, 1 / FPS apart.

    Attributes:
        images: camera -> (T, h, w, 3) uint8 RGB.
        states: (T, 6) measured joint positions, rad.
        actions: (T, 6) the expert's joint targets at the same instants, rad; those executed may have been disturbed.
        instruction: the sentence it follows.
        task: what the sentence means.
        start: how the episode began: "home", "anywhere", "other task" or "disturbed".
        seed: of its layout.
    """

    images: dict[str, np.ndarray]
    states: np.ndarray
    actions: np.ndarray
    instruction: str
    task: Task
    start: str
    seed: int


def demonstrate(world: World, task: Task, kinds: Sequence[TaskKind], seed: int, picture: Picture) -> Demonstration:
    """One successful episode. The same arguments give the same episode.

    The arm starts at home, anywhere, in the middle or at the end of another task (possibly holding a cube), or away
    from its path. In two of three episodes smooth noise is added to the executed commands, while the recorded actions
    are the expert's own (DART, Laskey et al. 2017), so that a policy sees recoveries.

    Args:
        kinds: tasks that the arm may have been doing before.
        picture: resizes (480, 640, 3) uint8 to what is stored.

    Raises:
        RuntimeError: the expert failed in 20 layouts in a row.
    """
    for attempt in range(ATTEMPTS):
        layout = layout_seed(0, seed, attempt)
        rng = np.random.default_rng([layout, 7])
        start, position, velocity = _begin(world, task, kinds, layout, rng)
        demonstration = _record(world, task, start, position, velocity, layout, rng, picture)
        if demonstration is not None:
            return demonstration
    raise RuntimeError(f"the expert did not {task.instruction()} in {ATTEMPTS} layouts from seed {layout}")


def layout_seed(seed: int, episode: int, attempt: int) -> int:
    """The layout that an episode of `demonstrations` with this seed tries."""
    return LAYOUTS_FROM + (seed * _EPISODES + episode) * ATTEMPTS + attempt


def demonstrations(
    kinds: Sequence[TaskKind], episodes: int, seed: int, picture: Picture, jobs: int = 1
) -> Iterator[Demonstration]:
    """Episodes in a fixed order, whatever the number of processes.

    Args:
        kinds: used in turn; one that is named twice is used twice as often. Colours take turns too.
        seed: episodes of different seeds below 10 000 have different layouts.
        picture: must be importable by name when `jobs` is more than 1, or the pool reports itself broken.
    """
    plan = [(kinds, index, seed * _EPISODES + index, picture) for index in range(episodes)]
    if jobs == 1:
        yield from map(_one, plan)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for start in range(0, episodes, _BATCH):  # in batches, so that images do not accumulate for a slow reader
            yield from pool.map(_one, plan[start : start + _BATCH])


_world: World | None = None  # one a process: building it and its graphics context takes longer than an episode


def _one(job: tuple[Sequence[TaskKind], int, int, Picture]) -> Demonstration:
    global _world
    kinds, index, seed, picture = job
    if _world is None:
        _world = World()
    task = Task(kinds[index % len(kinds)], World.colours[index // len(kinds) % len(World.colours)])
    return demonstrate(_world, task, kinds, seed, picture)


def _begin(
    world: World, task: Task, kinds: Sequence[TaskKind], seed: int, rng: np.random.Generator
) -> tuple[str, np.ndarray, np.ndarray]:
    """Bring the world to a start: its name, and position and velocity (6,) of the last command."""
    start = str(rng.choice(["home", "anywhere", "other task", "disturbed"], p=[0.30, 0.20, 0.35, 0.15]))
    layout = Layout.random(seed)
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
        others = [Task(kind, colour) for kind in dict.fromkeys(kinds) for colour in world.colours]
        others.remove(task)
        expert = Expert(world, others[int(rng.integers(len(others)))])
        ticks = 450 if rng.random() < 0.4 else int(rng.uniform(20, 350))  # 4.5 s is the end of every task
        for _ in range(ticks):
            world.step(expert.command())
        return start, expert.position, expert.velocity
    expert = Expert(world, task)
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


def _record(world, task, start, position, velocity, seed, rng, picture) -> Demonstration | None:
    """The expert from here to a while after success, or None if it did not succeed."""
    expert = Expert(world, task, position, velocity)
    tracker = SuccessTracker(task, world)
    noise = SmoothNoise(rng, 0.02 if rng.random() < 0.67 else 0.0, world.control_period)
    ticks_per_frame = round(1 / (FPS * world.control_period))
    images: dict[str, list[np.ndarray]] = {camera: [] for camera in world.cameras}
    states, actions = [], []
    hold_ticks = int(rng.uniform(60, 120))
    held = 0
    for tick in range(int(_TIME_LIMIT / world.control_period)):
        command = expert.command()
        if tick % ticks_per_frame == 0:
            for camera, frames in images.items():
                frames.append(picture(world.render(camera)))
            states.append(world.joint_positions())
            actions.append(command)
        world.step(command + noise.next())
        tracker.update()
        held = held + 1 if tracker.holds and expert.settled else 0
        if held >= hold_ticks:
            return Demonstration(
                {camera: np.stack(frames) for camera, frames in images.items()},
                np.array(states), np.array(actions), task.instruction(rng), task, start, seed,
            )
    return None


class SmoothNoise:
    """An Ornstein-Uhlenbeck process over the arm's joints, smoothed once; the gripper stays as commanded."""

    def __init__(self, rng: np.random.Generator, deviation: float, period: float, time_constant: float = 0.25):
        self._rng, self._deviation, self._share = rng, deviation, period / time_constant
        self._drive, self._value = np.zeros(6), np.zeros(6)

    def next(self) -> np.ndarray:
        """(6,) rad, to be added to the command of this tick."""
        kick = self._rng.normal(size=6) * self._deviation * np.sqrt(2 * self._share)
        self._drive += -self._share * self._drive + kick
        self._value += 2 * self._share * (self._drive - self._value)
        self._value[5] = 0.0
        return self._value
