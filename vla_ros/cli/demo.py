"""The simulated arm follows some instructions, one after another, through the real nodes.

    vla-ros demo                                     in real time, where this machine keeps up
    vla-ros demo --lockstep                          in simulated time: the same run on every machine
    vla-ros demo --instructions "touch the green cube" "pick up the red cube"
    vla-ros demo --scene bench                       four tasks at the workbench, with a drawer, a bowl and a button
    vla-ros demo --robot lekiwi_sim --policy CKPT    the robot on wheels; no policy is shipped for it

The instruction changes as soon as a task is done, while the robot is still moving. The video, a plot of the commands
over their chunks, and the whole run as a rosbag2 (mcap) are written to a folder. If this machine is too slow for real
time, the demo says so and starts again with --lockstep.
"""

import argparse
import shutil
import time
from pathlib import Path

import vla_ros
from vla_ros.cli import options
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.terminal import Terminal

CHECKPOINT = Path(vla_ros.__file__).parent / "data" / "checkpoints" / "pi0_tiny"
POLICIES = {"cubes": CHECKPOINT, "bench": CHECKPOINT.with_name("bench_tiny")}
INSTRUCTIONS = {
    "cubes": ("touch the red cube", "pick up the blue cube", "touch the green cube"),
    "bench": ("open the drawer", "pick up the green cube", "put the green cube in the bowl", "press the button"),
    "room": ("drive to the red post", "drive to the blue post", "drive to the green post"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", help="checkpoint folder, policy file, or ws://HOST:PORT of a server (default: the "
                                         "one that is shipped for the scene)")
    parser.add_argument("--instructions", nargs="+", metavar="TEXT",
                        help="instructions to follow, one after another (default: some for the scene)")
    options.scene(parser, "the first that it has for the robot")
    parser.add_argument("--seed", type=int, default=0, help="seed for the positions of the cubes")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--lockstep", action="store_true", help="use simulated time, which waits for every node")
    pace.add_argument("--real-time", action="store_true",
                      help="do not change to --lockstep if this machine is too slow")
    parser.add_argument("--time-limit", type=float, default=30.0, help="time allowed for each instruction, s")
    parser.add_argument("--mode", choices=("ensemble", "latest", "rtc"), default="ensemble",
                        help="how overlapping chunks are blended")
    options.device(parser)
    options.robot(parser, default="so101")
    options.output(parser, "folder of the results (default: runs/demo-DATE)", type=Path)


def main(args: argparse.Namespace) -> int:
    from vla_ros.graph.demo import TooSlow
    from vla_ros.sim.worlds import check_sensors, understand, world_of

    options.check_time_limit(args)
    if not 0 <= args.seed < 1 << 31:  # as the simulator's parameter
        raise InputError(f"--seed {args.seed}, expected 0 to {(1 << 31) - 1}")
    robot = RobotSpec.load(args.robot)
    world = world_of(robot.name, robot.joint_names, args.scene)
    check_sensors(robot, world)
    args.instructions = args.instructions or list(INSTRUCTIONS[world.scene])
    simulated = world(args.seed)
    for text in args.instructions:
        understand(simulated, text)
    if not args.policy and world.scene not in POLICIES:
        raise InputError(f"--policy is missing: none is shipped for scene {world.scene} of robot {robot.name}, "
                         "expected a checkpoint folder, a policy file, or ws://HOST:PORT of a server")
    args.policy = options.check_policy(args.policy or str(POLICIES[world.scene]))
    folder = args.output or Path("runs") / time.strftime("demo-%Y-%m-%d-%H%M%S")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"folder {folder}: is not empty, expected a new one")
    console = Terminal()
    try:
        return _run(args, folder, console)
    except TooSlow as error:
        console.print(f"{error}; starting again with --lockstep, in simulated time (--real-time prevents this)",
                      soft_wrap=True)
    shutil.rmtree(folder / "bag")
    args.lockstep = True
    return _run(args, folder, console)


def _run(args: argparse.Namespace, folder: Path, console: Terminal) -> int:
    from vla_ros.cli.demo_pictures import write_plot, write_video
    from vla_ros.graph.demo import DemoGraph, result_table
    from vla_ros.graph.demo_bag import Step, read_motion

    steps = [Step(text) for text in args.instructions]
    with DemoGraph(folder, args, console) as demo:
        try:
            demo.bring_up()
            demo.follow(steps)
        except KeyboardInterrupt:
            console.print("ending the nodes")
            return 130
        demo.finish_bag()
        watch, robot = demo.watch, demo.robot
    with console.status("drawing the video and the plot"):
        write_video(folder / "bag", robot, steps, folder / "demo.mp4")
        write_plot(read_motion(folder / "bag", robot), robot, steps, folder / "commands.png")
    console.print(result_table(steps, watch))
    console.print(
        f"{folder}: video demo.mp4, plot commands.png, bag (ros2 bag info {folder / 'bag'}), logs *.log",
        soft_wrap=True,
    )  # fmt: skip
    return 0 if all(step.success_ns is not None for step in steps) else 1
