"""Show what a file or folder is, and which command opens it.

    vla-ros info CHECKPOINT_FOLDER     family, layout, sizes, cameras, dimensions, normalisation, clock
    vla-ros info POLICY_FILE.yaml      the same, with the robot's cameras and joints
    vla-ros info ROBOT_FILE.yaml       cameras, joints and their limits, command groups
    vla-ros info ROBOT_FILE.yaml --urdf ROBOT.urdf       with the limits of the URDF, if they are stricter
    vla-ros info ROBOT_FILE.yaml --sros2 > policy.xml    access rights of its nodes (docs/security.md)
    vla-ros info PATH                  a dataset, bag, training run or its config, URDF, parameter file, video, result
"""

import argparse
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from vla_ros.cli import options
from vla_ros.cli.identify import LOOKED_FOR, SUFFIXES, identify
from vla_ros.control.limits import Limits
from vla_ros.control.tool_pose import tool_limits
from vla_ros.control.urdf import load_urdf
from vla_ros.core.errors import InputError
from vla_ros.core.hub import folder_of, is_of_checkpoint, no_folder
from vla_ros.core.records import read_mapping
from vla_ros.core.resources import is_server, resolve_robot
from vla_ros.core.robot import RobotSpec
from vla_ros.core.terminal import Terminal
from vla_ros.core.text import say
from vla_ros.messages.observation import ObservationBuilder

_OF_ROBOTS = ("urdf", "sros2", "namespace")  # options


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path",
                        help="checkpoint folder, policy file, robot file or name of one, or any other file or folder")
    parser.add_argument("--urdf", type=Path,
                        help="with a robot file: show the stricter limits of both, and which file they come from")
    parser.add_argument("--sros2", action="store_true", help="with a robot file: print the SROS2 policy of its graph")
    options.namespace(parser, "with --sros2: namespace of the nodes and the robot's topics")
    parser.add_argument("--tokenizer", type=Path, help="folder or file of the tokenizer, if the checkpoint has none")


def main(args: argparse.Namespace) -> int:
    console = Terminal()
    if not args.path.strip():
        raise InputError(f"{args.path!r}: expected a checkpoint folder, a policy file, a robot file or its name")
    if is_server(args.path):
        raise InputError(f"{args.path}: a server, expected a file or folder; vla-ros bench --policy {args.path} "
                         "asks it")
    path = folder_of(Path(args.path).expanduser())
    if (found := identify(path)) is not None:
        options.check_unused(args, (*_OF_ROBOTS, "tokenizer"), f"with {path}, expected none: that is {found.what}")
        console.print(f"{path}: {found.what}\nopens with: {found.opens}", soft_wrap=True)
        return 0
    is_robot = "checkpoint" not in _mapping(path) if path.is_file() else not path.is_dir()  # a policy file has one
    if is_robot:
        try:
            file = resolve_robot(path)
        except InputError as error:
            hint = no_folder(path).removeprefix("no such folder")  # "", or what may be meant
            raise InputError(f"{path}: neither a checkpoint folder nor a policy file{hint}; {error}") from None
        options.check_unused(args, ("tokenizer",), f"with {path}, expected none: it is for a checkpoint")
        if args.sros2:
            options.check_unused(args, ("urdf",), "with --sros2, expected only one of them")
        else:
            options.check_unused(args, ("namespace",), "without --sros2, expected both or neither")
        robot = RobotSpec.load(file)
        ObservationBuilder(robot)  # refuses streams that nothing can decode
        if args.sros2:
            from vla_ros.graph.security import policy

            say(policy(robot, args.namespace), end="")
            return 0
        _print_robot(console, robot)
        if args.urdf is not None:
            _print_limits(console, robot, args.urdf)
        console.print(f"opens with: vla-ros run --robot {args.path} --policy CHECKPOINT", soft_wrap=True)
        return 0
    options.check_unused(args, _OF_ROBOTS, f"with {path}, expected none: it is for a robot file")
    from vla_ros.policies import registry

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    try:
        rows = dict(registry.describe(path, tokenizer=args.tokenizer))
    except InputError as error:
        if path.is_dir() and not any(map(is_of_checkpoint, path.iterdir())):
            raise InputError(f"{error}; looked for {LOOKED_FOR}") from None
        raise
    refused = rows.pop(registry.REFUSED, None)
    for title, value in rows.items():
        table.add_row(title, value)
    console.print(table)
    if refused:
        raise InputError(refused)
    console.print(f"opens with: vla-ros run --policy {args.path} --robot ROBOT", soft_wrap=True)
    return 0


def _mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, whatever its extension."""
    if path.suffix in (".yaml", ".yml", ".json"):
        return read_mapping(path, "file")
    from vla_ros.policies.formats.pickles import not_loaded

    not_loaded(path)
    try:
        return read_mapping(path, "file")
    except InputError as error:
        raise InputError(f"{error}; expected YAML or JSON, or a name with one of {', '.join(SUFFIXES)}") from None


def _print_robot(console: Terminal, robot: RobotSpec) -> None:
    own = {joint.name: f"{robot.margin(joint):g} {joint.unit}" for joint in robot.joints if not joint.is_velocity}
    common = f"{robot.position_margin:g} rad"
    others = "".join(f", {name}: {margin}" for name, margin in own.items() if margin != common)
    joint_states = [f"joint states on {', '.join(robot.joint_state_topics)}"] if not robot.velocities.all() else []
    measured = joint_states + [f"odometry on {group.odometry}" for group in robot.base_groups]
    console.print(
        f"robot {robot.name}: {', '.join(measured)}, "
        f"commands at {robot.control_rate:g} Hz, {common} kept free at both ends{others}",
        soft_wrap=True,
    )
    groups = {joint: group for group in robot.groups for joint in group.joints}
    joints = _table("joint", "lower", "upper", "velocity", "accel.", "unit", "group")
    for joint in robot.joints:
        name = f"{joint.name} (discrete)" if joint.discrete else joint.name
        limits = (f"{value:g}" for value in (joint.lower, joint.upper, joint.velocity, joint.acceleration))
        joints.add_row(name, *limits, joint.unit, groups[joint.name].name)
    console.print(joints)
    cameras = _table("camera", "topic", "size", "encoding", "Hz", "stamps")
    for camera in robot.cameras:
        encoding = "compressed" if camera.compressed else camera.encoding
        size = f"{camera.width}x{camera.height}"
        cameras.add_row(camera.name, camera.topic, size, encoding, f"{camera.rate:g}", camera.stamps)
    console.print(cameras)
    if robot.streams:
        sensors = _table("stream", "topic", "type", "shape", "unit")
        for stream in robot.streams:
            shape = " x ".join(map(str, stream.readings[stream.name][0]))
            sensors.add_row(stream.name, stream.topic, stream.type, f"{shape} {stream.dtype}", stream.unit)
        console.print(sensors)
    commands = _table("command group", "topic", "interface")
    for group in robot.groups:
        commands.add_row(group.name, group.topic, group.interface)
    console.print(commands)
    if tool := robot.tool:
        table = _table("tool", "in the frame of", "box, m", "m/s", "m/s²", "rad/s", "rad/s²")
        sides = " x ".join(f"{low:g} to {high:g}" for low, high in zip(tool.lower, tool.upper, strict=True))
        limits = (tool.velocity, tool.acceleration, tool.rotation_velocity, tool.rotation_acceleration)
        table.add_row(tool.link, tool.frame, sides, *(f"{value:g}" for value in limits))
        console.print(table)


def _print_limits(console: Terminal, robot: RobotSpec, urdf: Path) -> None:
    """Print the limits that the executor enforces, and the file that each comes from."""
    limits = _table("joint", "enforced, without the margin: the stricter of robot file and URDF")
    merged = Limits.merge(robot, load_urdf(urdf, robot.joint_names))
    if group := robot.tool_group:
        merged = tool_limits(robot, group, merged)
    for name, line in merged.report().items():
        limits.add_row(name, line)
    console.print(limits)


def _table(*titles: str) -> Table:
    """Narrow terminals break long names over lines instead of cutting them off."""
    table = Table(box=box.SIMPLE)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table
