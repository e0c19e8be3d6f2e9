"""The threads that own the simulated world; this file has the one in real time."""

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from vla_ros.core.errors import InputError
from vla_ros.messages.stamps import NS, set_stamp
from vla_ros.nodes.sim.sensors import DepthPublisher, ScanPublisher
from vla_ros.nodes.sim.streams import CameraPublisher, Commands, CubePublisher, StatePublisher
from vla_ros.nodes.sim.task import TaskWatch
from vla_ros.sim.demonstrations import SmoothNoise
from vla_ros.sim.simulated import Simulated

_CATCH_UP = 0.25  # s that real time may run ahead before the delay is dropped
_FOREIGN = 900_000  # from the seed of a layout to that of another
SCAN_RATE = 10.0  # Hz, of a LiDAR; in lockstep scans go with the images
TASK_PERIOD = 10  # control periods between two task messages


@dataclass
class Stage:
    """What both loops use; call `reset` before the first step.

    Attributes:
        world: the physics; only the loop's thread touches it.
        view: a second world for drawing; only the thread that draws touches it.
        period: control period, s.
    """

    node: Node
    world: Simulated
    view: Simulated
    commands: Commands
    states: StatePublisher
    scans: ScanPublisher
    cubes: CubePublisher
    cameras: list[CameraPublisher | DepthPublisher]
    task: TaskWatch
    period: float

    def reset(self, seed: int, foreign_images: bool = False, disturbance: float = 0.0) -> None:
        """All to the places of `seed`, the robot at rest.

        Args:
            foreign_images: draw the cubes of another layout, so that the images contain no information about this one.
            disturbance: rad; standard deviation of a smooth error of the arm's motors, drawn by `seed`.
        """
        self._foreign = foreign_images
        self.world.reset(seed)
        self.view.reset(seed, layout=self.world.random_layout(seed + _FOREIGN) if foreign_images else None)
        rng = np.random.default_rng([seed, 13])
        self._noise = SmoothNoise(rng, disturbance * self.world.shaken, self.world.control_period)
        self.commands.clear()
        self.targets = self.world.joint_positions()

    def step(self) -> bool:
        """One control period towards the newest commands; True when the task has just succeeded."""
        self.targets = self.commands.apply(self.targets)
        for _ in range(round(self.period / self.world.control_period)):
            self.world.step(self.world.shaken_command(self.targets, self._noise.next()))
        return self.task.update()

    def show(self, joints: np.ndarray, poses: Mapping[str, np.ndarray]) -> None:
        """Bring the view up to date, in the thread that draws: as `Simulated.place` takes them."""
        if self._foreign:
            poses = {name: pose for name, pose in poses.items() if name in self.view.own_poses}
        self.view.place(joints, poses)


class Loop:
    """A thread that owns the world. Requests are handled between two control periods."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.stopping = threading.Event()
        self.failure = ""  # why the last run, or the thread itself, ended
        self._asked: list[tuple[Callable[[], None], threading.Event]] = []
        self._under_way = self._asked
        self._broken = False  # a thread has ended by an error
        self._wake = stage.commands.arrived
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self.stopping.clear()
        self._broken = False
        self._threads = [
            threading.Thread(target=self._guarded, args=(body,), name=body.__name__, daemon=True)
            for body in self.bodies()
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        with self._wake:
            self.stopping.set()
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=30.0)
        self._threads = []

    def ask(self, what: Callable[[], None], patience: float = 30.0) -> bool:
        """Run `what` in the world's thread and wait for it, `patience` s at most; False if it was not run by then, or
        has ended that thread: `failure` says why."""
        done = threading.Event()
        with self._wake:
            if self._broken:
                return False
            self._asked.append((what, done))
            self._wake.notify_all()
        return done.wait(patience) and not self._broken

    def instruct(self, text: str) -> None:
        """Judge success by this instruction from now on. Called from the node's thread, returns at once."""
        self.ask(lambda: self.stage.task.follow(text, self.stage.world), patience=0.0)

    def bodies(self) -> list[Callable[[], None]]:
        """What the threads run."""
        raise NotImplementedError

    def publish_task(self) -> None:
        raise NotImplementedError

    def _answer(self) -> None:
        """Do what was asked."""
        with self._wake:
            asked, self._asked = self._asked, []
            self._under_way = asked
        for what, done in asked:
            what()
            done.set()

    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except Exception as error:  # if the thread ended unnoticed, it would look like a robot that does not answer
            ours = isinstance(error, InputError)  # which says all that there is to say
            self.failure = str(error) if ours else f"{type(error).__name__}: {error}"
            with self._wake:
                self._broken, asked, self._asked = True, [*self._under_way, *self._asked], []
            for _, done in asked:
                done.set()
            trace = "" if ours else f"\n{traceback.format_exc()}"
            self.stage.node.get_logger().fatal(f"the simulation stopped: {self.failure}{trace}")
            self.publish_task()


class RealTimeLoop(Loop):
    """Physics and joint states with absolute deadlines; images in a separate thread, so that drawing never delays the
    physics."""

    def __init__(self, stage: Stage, clock: bool = False) -> None:
        """`clock`: publish /clock, which advances by one period per step, and more slowly if physics is late."""
        super().__init__(stage)
        self._clock = stage.node.create_publisher(Clock, "/clock", 10) if clock else None
        self._now = 0
        self._frame: tuple[int, np.ndarray, dict[str, np.ndarray]] | None = None

    def bodies(self) -> list[Callable[[], None]]:
        return [self.simulate, self.draw]

    def publish_task(self) -> None:
        stage = self.stage
        stage.task.publish(stage.world, self._now, self.failure, state="running")

    def simulate(self) -> None:
        stage = self.stage
        self._now = stage.node.get_clock().now().nanoseconds
        due = time.monotonic()
        count, scans = 0, max(round(1.0 / (SCAN_RATE * stage.period)), 1)
        while not self.stopping.wait(max(0.0, due - time.monotonic())):
            self._answer()
            success = stage.step()
            if self._clock is None:
                self._now = stage.node.get_clock().now().nanoseconds
            else:
                self._now += round(stage.period * NS)
            stamp = self._now
            stage.states.publish(stage.world, stamp)
            stage.cubes.publish(stage.world, stamp)
            if count % scans == 0:
                stage.scans.publish(stage.world, stamp)
            if self._clock is not None:
                self._clock.publish(Clock(clock=set_stamp(Time(), stamp)))
            self._frame = (stamp, stage.world.joint_positions(), stage.world.poses())
            count += 1
            if success or count % TASK_PERIOD == 0:
                self.publish_task()
            due += stage.period
            behind = time.monotonic() - due
            if behind > _CATCH_UP:  # the process was paused: a robot does not move faster afterwards
                stage.node.get_logger().warning(
                    f"the simulation fell {behind:.2f} s behind, and will not catch up", throttle_duration_sec=10.0
                )
                due += behind

    def draw(self) -> None:
        """Draw at the rate of the fastest camera; slower ones skip images."""
        stage = self.stage
        period = 1.0 / max((publisher.rate for publisher in stage.cameras), default=1.0)
        credit = [1.0] * len(stage.cameras)
        due = time.monotonic()
        while not self.stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + period, time.monotonic())
            if self._frame is None:
                continue
            stamp, joints, cubes = self._frame
            stage.show(joints, cubes)
            for i, publisher in enumerate(stage.cameras):
                credit[i] += publisher.rate * period
                if credit[i] >= 1.0:
                    credit[i] -= 1.0
                    publisher.publish(stage.view, stamp)
        stage.view.close()
