"""Write a robot file: joints and limits from a URDF, topics from the running graph.

    vla-ros robot new --urdf my_arm.urdf -o my_arm.yaml

Values that neither provides are marked in the file with a comment that begins with "fill in". The command only
subscribes.
"""

import argparse
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_ros.cli import options
from vla_ros.control.urdf import UrdfLimit, load_urdf, parse_urdf
from vla_ros.core.errors import InputError
from vla_ros.core.files import new_file
from vla_ros.core.records import parsed
from vla_ros.core.robot import ENCODINGS, RobotSpec
from vla_ros.core.text import plain, say

if TYPE_CHECKING:
    from vla_ros.graph.survey import Seen

_FILL = "# fill in:"


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="new")
    new = commands.add_parser("new", help="write a robot file from a URDF and the running graph")
    new.add_argument("--urdf", type=Path, required=True,
                     help="URDF of the robot; for xacro, the output of `xacro FILE`")
    options.output(new, "file to write (default: print it)", type=Path)
    new.add_argument("--name", default="", help="name of the robot (default: from the URDF)")
    options.namespace(new, "of the robot's topics")
    new.add_argument("--wait", type=float, default=5.0, metavar="S",
                     help="time to listen to the graph, s; 0: do not listen")


def main(args: argparse.Namespace) -> int:
    if args.output is not None and args.output.exists():
        raise InputError(f"--output {args.output}: exists already, expected a new file")
    if not 0 <= args.wait <= 600:
        raise InputError(f"--wait {args.wait} s, expected 0 to 600")
    root, _ = parse_urdf(args.urdf)
    name = args.name or re.sub(r"\W+", "_", root.get("name", "")).strip("_") or "robot"
    limits = load_urdf(args.urdf)
    joints = {joint: limit for joint, limit in limits.items() if not limit.mimics}
    followers = sorted(set(limits) - set(joints))
    if not joints:
        raise InputError(f"URDF {args.urdf}: no joint that moves, expected one or more")
    seen = None
    if args.wait:
        from vla_ros.graph.survey import survey

        seen = survey(args.wait, args.namespace)
    text = "\n".join(_file(name, args.urdf, joints, followers, seen)) + "\n"
    if args.output is None:
        say(text, end="")
    else:
        with new_file(args.output, "robot file") as path:
            path.write_text(text, encoding="utf-8")
    where = args.output or "the robot file"
    try:
        RobotSpec.from_dict(parsed(text, "YAML", str(where)))
    except InputError as error:
        say(f"{where}: to be completed where it says {_FILL!r}; first: {error}", error=True)
    else:
        say(f"{where}: complete; check what was guessed, and each topic", error=True)
    return 0


def _file(
    name: str, urdf: Path, joints: dict[str, UrdfLimit], followers: list[str], seen: "Seen | None"
) -> Iterator[str]:
    yield f"# From {plain(urdf.name)}" + (" and the running graph." if seen else "; topics were not read from a graph.")
    if followers:
        yield f"# Joints that follow others (mimic) are left out: {plain(', '.join(followers), 500)}"
    yield f"name: {_word(name)}"
    yield from _joint_states(joints, seen)
    yield "control_rate: 100.0   # Hz, commands; not above the controllers' own rate"
    yield "position_margin: 0.01   # rad, kept free at both ends of the range of every joint in rad"
    yield from _cameras(seen)
    yield "joints:               # rad, rad/s, rad/s²; unit m: m, m/s, m/s²"
    for joint, limit in joints.items():
        yield from _joint(joint, limit)
    yield from _groups(joints, seen)


def _joint_states(joints: dict[str, Any], seen: "Seen | None") -> Iterator[str]:
    topics = {topic: names for topic, names in (seen.joint_states if seen else {}).items() if set(names) & set(joints)}
    if topics:
        yield f"joint_state_topic: [{', '.join(map(_word, topics))}]"
    else:
        yield f"{_FILL} joint_state_topic: joint_states   # this is the default; no joint states were seen"
    lacking = sorted(set(joints) - {name for names in topics.values() for name in names})
    if topics and lacking:
        yield f"# no joint states were seen of: {plain(', '.join(lacking), 500)}; remove the joints that do not move"


def _cameras(seen: "Seen | None") -> Iterator[str]:
    cameras = seen.cameras if seen else {}
    rows = []
    for topic, camera in sorted(cameras.items()):
        known = camera.size is not None and (camera.compressed or camera.encoding in ENCODINGS)
        words = [part for part in topic.split("/") if part] or ["camera"]
        name = re.sub(r"\W", "_", next((w for w in reversed(words[:-1]) if w not in ("color", "camera")), words[0]))
        height, width = camera.size or (480, 640)
        what = "compressed: true" if camera.compressed else f"encoding: {_word(camera.encoding or 'rgb8')}"
        rate = f", rate: {max(1, round(camera.rate))}.0" if camera.rate else ""
        row = f"- {{name: {_word(name)}, topic: {_word(topic)}, width: {width}, height: {height}, {what}{rate}}}"
        why = camera.trouble or ("no image was seen" if camera.size is None else f"encoding {camera.encoding}")
        depth = camera.encoding in ("16UC1", "32FC1")
        if depth:
            row, known, why = f"- {{topic: {_word(topic)}}}", False, "depth: as a stream, see docs/sensors.md"
        rows.append(f"  {row}" if known else f"  {_FILL} {row}   # {plain(why, 200)}")
    if any(not row.lstrip().startswith("#") for row in rows):
        yield "cameras:              # name: what policies call it; rate: as measured, Hz"
    else:
        yield "cameras: []           # no camera was found" if not rows else "cameras: []"
    yield from rows


def _joint(name: str, limit: UrdfLimit) -> Iterator[str]:
    yield f"  - name: {_word(name)}"
    per = limit.unit
    for field in ("lower", "upper", "velocity"):
        value = getattr(limit, field)
        unit = f"{per}/s" if field == "velocity" else per
        yield f"    {field}: {value!r}" if math.isfinite(value) else f"    {_FILL} {field}:   # {unit}, not in the URDF"
    yield f"    {_FILL} acceleration:   # {per}/s², no URDF has it"
    if per == "m":
        yield "    unit: m"


def _groups(joints: dict[str, Any], seen: "Seen | None") -> Iterator[str]:
    """Each joint once: trajectories before other interfaces, controllers that name their joints before others."""
    order = ("joint_trajectory", "float64_multi_array", "joint_state")
    found = sorted(
        (seen.commands if seen else {}).items(), key=lambda row: (not row[1][1], order.index(row[1][0]), row[0])
    )
    left = list(joints)
    rows, spare = [], []
    for topic, (interface, names) in found:
        taken = [name for name in names if name in left]
        if not names and len(found) == 1:
            taken = left  # the only one
        words = topic.split("/")
        name = re.sub(r"_controller$", "", words[-2]) if len(words) > 1 else words[0]
        group = [f"  - name: {_word(name)}", f"    topic: {_word(topic)}", f"    interface: {interface}",
                 f"    joints: [{', '.join(map(_word, taken or names))}]"]  # fmt: skip
        if taken and len(taken) == len(names or left):
            left = [name for name in left if name not in taken]
            rows += group
        else:
            spare += [f"  {_FILL} {line[2:]}" for line in group]
    if rows or spare:
        yield "groups:"
    else:
        yield f"{_FILL} groups:   # no topic for commands was seen"
        spare = [f"{_FILL}   - {{name: arm, topic: arm_controller/joint_trajectory, interface: joint_trajectory, "
                 f"joints: [{', '.join(map(_word, joints))}]}}"]  # fmt: skip
    yield from rows
    if left and rows:
        yield f"  {_FILL} a group for {plain(', '.join(left), 500)}, or remove them from the joints"
    yield from spare


def _word(text: str) -> str:
    """A string quoted so that YAML reads it back unchanged."""
    plain_word = re.fullmatch(r"[A-Za-z_][\w./-]*", text, re.ASCII)
    if plain_word and text.lower() not in ("y", "n", "yes", "no", "on", "off", "true", "false", "null"):
        return text
    return json.dumps(text)
