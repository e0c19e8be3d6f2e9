"""Record demonstrations of the scripted expert in the simulator, as a dataset or as the bags a robot would give.

    vla-ros demos demos/touch_and_pick --episodes 900 --tasks touch pick pick --jobs 4

writes a LeRobot dataset at 10 Hz that `vla-ros train` reads. The same arguments give the same episodes. With
`--space tool` its actions are poses of the tool and targets of the gripper, instead of joint targets.

    vla-ros demos drives --robot lekiwi_sim --tasks drive --cameras front

does the same with the robot on wheels and its sensors.

    vla-ros demos pushes --bags --episodes 100 --tasks push

moves the simulated robot through the ROS nodes, in lockstep, and records a bag for every episode.

    vla-ros demos from_mistakes --episodes 900 --tasks touch pick --policy runs/mine/checkpoints/last

begins each episode where a policy has brought the robot, so that the next one sees how to come back from there.

    vla-ros demos reach --env metaworld/reach-v3 --env-python ~/envs/metaworld/bin/python --episodes 100

records the scripted experts of other people's benchmarks (docs/benchmarks.md).
"""

import argparse
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from vla_ros.cli import options
from vla_ros.cli.simulated_sensors import Sense
from vla_ros.control.kinematics import Kinematics
from vla_ros.control.tool_arm import joints_between
from vla_ros.core.errors import InputError
from vla_ros.core.files import new_folder
from vla_ros.core.robot import RobotSpec
from vla_ros.core.rotations import from_matrix
from vla_ros.core.text import say
from vla_ros.core.tool import ToolColumns
from vla_ros.datasets.writer import DatasetWriter
from vla_ros.policies.images import resize_within
from vla_ros.sim.demonstrations import ATTEMPTS, FPS, Recording, demonstrations, given_up, layout_seed
from vla_ros.sim.description import urdf
from vla_ros.sim.scene import COLOURS
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import task_of
from vla_ros.sim.variation import WHAT
from vla_ros.sim.wordings import WORDINGS
from vla_ros.sim.world import World
from vla_ros.sim.worlds import check_sensors, scene_with, sentences

_ROTATION = "rotation_6d_columns"  # no angles, which are ambiguous for a hand that points down
_BAG_SEEDS = 1000  # the simulator's parameter is a 32-bit number


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--episodes", type=int, default=900, help="number of episodes")
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", default=["touch", "pick"],
        help="tasks to demonstrate in turn (docs/simulation.md), two in a row as place+press; one that is named twice "
        "is shown twice as often",
    )
    options.scene(parser)
    options.environment(parser, nargs="+")
    options.robot(parser, default="so101")
    parser.add_argument("--cameras", nargs="+", metavar="NAME", help="cameras to store (default: all of the robot)")
    parser.add_argument("--seed", type=int, default=0, help="seed for the layouts")
    parser.add_argument("--space", choices=("joint", "tool"), default="joint",
                        help="actions: joint targets, or poses of the robot file's tool and the gripper's targets")
    parser.add_argument("--policy", metavar="CKPT",
                        help="episodes begin where this policy has brought the robot in up to 9 s")
    parser.add_argument("--bags", action="store_true", help="record bags of the running nodes instead (needs ROS)")
    parser.add_argument("--vary", nargs="+", choices=WHAT, default=[], metavar="WHAT",
                        help=f"{', '.join(WHAT)}: different in every layout, drawn with its seed (default: none)")
    parser.add_argument("--image-size", type=int, default=96, metavar="N",
                        help="longer side of the stored images, pixels")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")


def main(args: argparse.Namespace) -> int:
    for name in ("episodes", "jobs", "image_size"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}, expected 1 or more")
    if not 0 <= args.seed < 10_000:
        raise InputError(f"--seed {args.seed}, expected 0 to 9999")
    options.check_environment(args, "tasks", "scene", "robot", "cameras", "space", "policy", "bags", "vary", "jobs")
    if args.env:
        from vla_ros.cli.benchmark_demos import record

        return record(args)
    robot = RobotSpec.load(args.robot)
    world = scene_with(robot, args.scene, args.tasks)
    check_sensors(robot, world)
    if unknown := [name for name in args.cameras or () if name not in robot.camera_names]:
        raise InputError(f"--cameras {unknown[0]}, robot {robot.name} has {', '.join(robot.camera_names)}")
    if args.bags:
        options.check_unused(args, ("vary", "cameras", "image_size", "jobs", "space", "policy"),
                             "with --bags, expected only one of them: a bag has joint commands and the images of all "
                             "cameras as they are, one episode after another; vla-ros dataset build scales images")
        return _record_bags(args, world)
    if args.space == "tool" and robot.tool is None:
        raise InputError(f"--space tool, robot {robot.name} has no `tool`; expected --space joint")
    tool = ToolPoses(robot) if args.space == "tool" else None
    cameras = [camera for camera in robot.cameras if camera.name in (args.cameras or robot.camera_names)]
    recording = Recording(
        partial(resize_within, height=args.image_size, width=args.image_size),
        {camera.name: (camera.width, camera.height) for camera in cameras}, Sense(robot),
    )  # fmt: skip
    leader = None
    if args.policy:
        from vla_ros.cli.at_work import AtWork

        policy = AtWork(args.policy, robot, recording, observe_ticks=20)
        if "://" in args.policy:
            raise InputError(f"--policy {args.policy}, expected a checkpoint folder or policy file, no server")
        # Opened here, what does not suit is refused before an episode is begun.
        if unseen := [name for name in policy.session.processor.cameras if name not in recording.cameras]:
            raise InputError(f"--cameras {' '.join(recording.cameras)}: --policy {args.policy} sees "
                             f"{', '.join(unseen)} too, expected it among the cameras")
        look = policy.session.processor.unknown_words
        if unknown := sorted({word for text in sentences(world, args.tasks) for word in look(text)}):
            say(f"warning: --tasks {' '.join(args.tasks)}: the policy does not know {', '.join(unknown)}")
        leader = policy.commands
    frames, made, began = 0, Counter(), time.monotonic()
    with new_folder(args.out, "dataset", replace=False) as folder:
        special = args.vary or world.words is not WORDINGS
        about = {"scene": world.scene, "vary": args.vary, "tasks": args.tasks, "seed": args.seed} if special else {}
        about |= {"policy": args.policy} if args.policy else {}
        writer = DatasetWriter(folder, robot, FPS, tool and tool.columns, simulator=about)
        made_up = demonstrations(args.tasks, args.episodes, args.seed, recording, args.jobs, world, args.vary, leader)
        for done, demo in enumerate(made_up, start=1):
            actions = tool.actions(demo.actions) if tool else demo.actions
            writer.add_episode(
                demo.images, demo.states, actions, demo.instruction, demo.values, variation=demo.variation
            )
            frames += len(demo.states)
            made["+".join(demo.task.kinds) + (f" {demo.task.colour}" if demo.task.colour else "")] += 1
            if done % 20 == 0 or done == args.episodes:
                say(f"{done}/{args.episodes} episodes, {frames} frames, {time.monotonic() - began:.0f} s")
        writer.finish()
    say(f"{args.out}: " + ", ".join(f"{count} x {what}" for what, count in sorted(made.items())))
    say(f"mean length {frames / args.episodes / FPS:.2f} s")
    return 0


class ToolPoses:
    """Converts the simulated robot's joint targets to poses of its tool, by forward kinematics.

    Attributes:
        columns: of the actions.
    """

    def __init__(self, robot: RobotSpec) -> None:
        """`robot`: has a tool; the simulated one."""
        self._names, tool = robot.joint_names, robot.tool
        self._tree = Kinematics(urdf(World().model, robot.name))
        moving = [joint.name for joint in joints_between(self._tree, tool)]
        others = tuple(name for name in robot.joint_names if name not in moving)
        self.columns = ToolColumns(_ROTATION, tool.frame, tool.link, others)

    def actions(self, targets: np.ndarray) -> np.ndarray:
        """(T, J) joint targets, rad, to (T, A) poses and targets in the order of `columns`."""
        known = {name: targets[:, k] for k, name in enumerate(self._names)}
        found = self._tree.pose(self.columns.link, self.columns.frame, known)
        joints = [self._names.index(name) for name in self.columns.joints]
        return np.concatenate([found[:, :3, 3], from_matrix(found[:, :3, :3], _ROTATION), targets[:, joints]], axis=1)


def _record_bags(args: argparse.Namespace, world: type[Simulated]) -> int:
    if args.seed >= _BAG_SEEDS:
        raise InputError(f"--seed {args.seed}, expected 0 to {_BAG_SEEDS - 1} with --bags")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise InputError(f"{args.out}: is not empty, expected a new folder")
    from vla_ros.graph.demonstrations import DISTURBANCE, DemonstrationGraph

    args.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vla_ros_demos_") as folder:
        with DemonstrationGraph(Path(folder), args.robot, scene=world.scene) as graph:
            graph.bring_up()
            for index in range(args.episodes):
                name, colour = args.tasks[index % len(args.tasks)], COLOURS[index // len(args.tasks) % len(COLOURS)]
                for attempt in range(ATTEMPTS):
                    seed = layout_seed(args.seed, index, attempt)
                    task = world.suited(task_of(name, colour), seed)
                    instruction = task.instruction(np.random.default_rng([seed, 17]), world.words)
                    bag = args.out / f"episode_{index:04d}"
                    if graph.record(bag, task, instruction, seed, DISTURBANCE if index % 3 else 0.0):
                        break
                else:
                    raise InputError(given_up(name))
                if (index + 1) % 10 == 0 or index + 1 == args.episodes:
                    say(f"{index + 1}/{args.episodes} episodes, {time.monotonic() - began:.0f} s")
    say(f"{args.episodes} bags in {args.out}; vla-ros dataset build {args.out}/* makes a dataset of them")
    return 0
