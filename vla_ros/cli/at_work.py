"""A policy at work in the simulator in one process, without ROS: with the executor that executor_node feeds."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch

from vla_ros.control.executor import Executor
from vla_ros.control.limits import Limits
from vla_ros.control.settings import Settings
from vla_ros.core.chunk import ActionChunk
from vla_ros.core.errors import InputError
from vla_ros.core.instruction import instruction_id
from vla_ros.core.observation import Sample
from vla_ros.core.records import read_mapping
from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec
from vla_ros.runtime.serving import open_session
from vla_ros.runtime.session import PolicySession, SessionOptions
from vla_ros.sim.demonstrations import Recording
from vla_ros.sim.simulated import Simulated

PERIOD_NS = 10_000_000
_PARAMETERS = read_mapping(config_file("executor_demo.yaml"), "parameter file")["/**/executor_node"]["ros__parameters"]


class AtWork:
    """Moves a simulated robot by a policy, on one thread; the executor blends as config/executor_demo.yaml says.

    There are no messages, so a chunk comes one control period after its images. A pickled one opens the policy again.

    Args:
        recording: which cameras and sensors there are.
        observe_ticks: control periods from one image to the next.
        options: None: by torch, since converting takes longer than a few episodes.
    """

    def __init__(
        self, policy: str, robot: RobotSpec, recording: Recording, observe_ticks: int = 10,
        options: SessionOptions | None = None,
    ) -> None:
        self._policy, self._robot, self._recording = policy, robot, recording
        self._observe_ticks, self._options = observe_ticks, options or SessionOptions(engine="torch")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "session"}

    @cached_property
    def session(self) -> PolicySession:
        """Raises InputError for a policy that does not suit the robot, or that reads earlier observations too."""
        torch.set_num_threads(1)
        session = open_session(self._policy, self._robot, "cpu", options=self._options)
        if any(len(offsets) > 1 for offsets in session.processor.steps().values()):
            raise InputError(f"policy {self._policy}: it reads earlier observations too, expected one of the newest "
                             "alone")
        return session

    def commands(self, world: Simulated, instruction: str, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Position and velocity (J,) of each command after the world has followed it, without end."""
        session, robot = self.session, self._robot
        session.begin()
        session.seed(seed)
        executor = Executor(Limits.merge(robot), robot.control_rate, Settings(**_PARAMETERS))
        executor.set_instruction(instruction)
        waiting: ActionChunk | None = None
        tick = 0
        while True:
            now = (100 + tick) * PERIOD_NS
            joints = world.joint_positions()
            executor.joint_state(now, list(world.joint_names), joints.tolist(), now)
            if tick == 0:
                executor.activate(now)
            if waiting is not None:
                executor.add_chunk(waiting, now)
                waiting = None
            command = executor.tick(now, now)
            if tick % self._observe_ticks == 0:
                (found,) = session.infer([self._sample(world, joints, instruction, now)])
                number = instruction_id(instruction)
                waiting = ActionChunk(now, session.processor.step_dt, found.targets, number, tick, session=1)
            world.step(command.position)
            yield command.position, command.velocity
            tick += 1

    def _sample(self, world: Simulated, joints: np.ndarray, instruction: str, now: int) -> Sample:
        sizes = self._recording.sizes(world)
        images = {camera: world.render(camera, *size)[None] for camera, size in sizes.items()}
        values = self._recording.sense(world) if self._recording.sense else {}
        values = {name: np.asarray(value)[None] for name, value in values.items()}
        return Sample(images, joints[None], instruction, values=values, stamp_ns=now)
