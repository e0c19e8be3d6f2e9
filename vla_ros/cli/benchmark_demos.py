"""Demonstrations of scripted experts in other people's benchmarks, as a dataset."""

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.core.files import new_folder
from vla_ros.core.robot import RobotSpec
from vla_ros.core.text import say
from vla_ros.datasets.writer import DatasetWriter
from vla_ros.policies.images import resize_within
from vla_ros.sim.demonstrations import ATTEMPTS, SmoothNoise, given_up, layout_seed
from vla_ros.sim.environments import Environment, benchmark

_AFTER = 0.25  # s that an episode goes on after success
_NOISE = 0.01  # m, standard deviation of what is added to the place that an expert that sees its own errors commands


def record(args: argparse.Namespace) -> int:
    """`args` as of `vla-ros demos`: episodes of `args.env` in turn, those in which the expert succeeds."""
    for name in args.env:
        if held := [channel.joint for channel in benchmark(name).channels if channel.role == "measured"]:
            raise InputError(f"--env {name}: {held} are measured alone, so a dataset has no actions of them; expected "
                             "an environment without such joints, as metaworld/reach-v3")
    began, made, frames = time.monotonic(), Counter[str](), 0
    with ExitStack() as stack:
        environments = [stack.enter_context(Environment(name, args.env_python)) for name in dict.fromkeys(args.env)]
        robot, rate = _common([(e.benchmark.robot, e.benchmark.demonstrated) for e in environments])
        picture = partial(resize_within, height=args.image_size, width=args.image_size)
        folder = stack.enter_context(new_folder(args.out, "dataset", replace=False))
        writer = DatasetWriter(folder, robot, rate)
        for index in range(args.episodes):
            environment = environments[index % len(environments)]
            for attempt in range(ATTEMPTS):
                rows = list(_episode(environment, robot, layout_seed(args.seed, index, attempt), rate))
                if environment.success_seen:
                    break
            else:
                raise InputError(given_up(environment.name))
            images = {camera.name: np.stack([picture(row[0][camera.name]) for row in rows]) for camera in robot.cameras}
            states, actions = (np.stack([row[k] for row in rows]) for k in (1, 2))
            writer.add_episode(images, states, actions, environment.benchmark.instruction, {})
            made[environment.name] += 1
            frames += len(rows)
            if (index + 1) % 20 == 0 or index + 1 == args.episodes:
                say(f"{index + 1}/{args.episodes} episodes, {frames} frames, {time.monotonic() - began:.0f} s")
        writer.finish()
    say(f"{args.out}: " + ", ".join(f"{count} x {name}" for name, count in sorted(made.items())))
    return 0


def _common(found: list[tuple[str, float]]) -> tuple[RobotSpec, float]:
    """The robot of all environments, and the rate of frames, Hz. Raises InputError where they differ."""
    if len(set(found)) > 1:
        names = " and ".join(sorted({name for name, _ in found}))
        raise InputError(f"--env: robots {names}, expected the same one for a dataset")
    return RobotSpec.load(found[0][0]), found[0][1]


def _episode(
    environment: Environment, robot: RobotSpec, seed: int, rate: float
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
    """Frames: pictures, joints and the expert's command, each (J,) in the order of the robot file."""
    about = environment.benchmark
    environment.reset(seed)
    order = [environment.joint_names.index(name) for name in robot.joint_names]
    rng = np.random.default_rng([seed, 7])
    size = _NOISE if about.family == "metaworld" and rng.random() < 0.67 else 0.0
    noise = SmoothNoise(rng, size * np.array([channel.joint != "gripper" for channel in about.channels]), 1 / rate)
    every, left = round(about.rate / rate), round(_AFTER * about.rate)
    for step in range(about.steps):
        command = environment.expert()
        if step % every == 0:
            images = {c.name: environment.render(c.name, c.width, c.height) for c in robot.cameras}
            yield images, environment.joint_positions()[order], command[order]
            error = noise.next()
        environment.step(command + error)
        left -= environment.success_seen
        if left < 0:
            return
