"""Checks whether a robot can move, and why it does not, by comparing checkpoint, robot file and running graph.

`vla-ros doctor` prints these checks, and the console shows them while the robot runs. Each is green, yellow (the robot
moves, but this is worth a look) or red (it does not move, or not as it should), and says what to do.
"""

import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.bags.streams import CLOCK
from vla_ros.control.remedies import about
from vla_ros.core.errors import InputError
from vla_ros.core.resources import is_server
from vla_ros.core.robot import WIDEST, Camera, Joint, RobotSpec
from vla_ros.messages.stamps import NS
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.nodes.commands import node_name, other_commanders, unheard
from vla_ros.nodes.console.cameras import Picture
from vla_ros.nodes.console.scene import Scene
from vla_ros.nodes.console.words import executor_words, policy_words
from vla_ros.nodes.diagnostics import faulty, hindrances
from vla_ros.nodes.names import CAUSES, EXECUTOR_STATES, POLICY_STATES
from vla_ros.nodes.silent import silent

GREEN, YELLOW, RED = "green", "yellow", "red"
FRESH = 0.5  # s, default limit of policies for the age of an observation
_AHEAD = 0.1  # s that a stamp may lie in the future
_SLOW = 0.7  # of the nominal rate
_LEAST_DISK, _LITTLE_DISK = 0.5, 5.0  # GB
_FAR = {"mean_std": 5.0, "identity": math.inf}  # normalised; other modes map the training data to -1 to 1
_FAR_OUT = 1.5
_STOPS = (ExecutorStatus.STOPPED, ExecutorStatus.E_STOPPED)


@dataclass(frozen=True)
class Check:
    title: str
    level: str  # one of GREEN, YELLOW, RED
    words: str
    mend: str = ""  # what to do; "" if nothing is wrong


def read_processor(policy: str, robot: RobotSpec) -> Any:
    """The processor of a checkpoint or policy file, without its weights, checked against the robot; None for a server,
    which only policy_node asks. Raises InputError."""
    if is_server(policy):
        return None
    from vla_ros.policies import registry  # imports torch, which takes seconds
    from vla_ros.policies.server_file import read_server
    from vla_ros.runtime.serving import check_robot

    if read_server(policy) is not None:
        return None
    processor = registry.processor(policy, robot=robot)
    check_robot(processor, robot)
    return processor


def policy_checks(policy: str, robot: RobotSpec) -> tuple[list[Check], Any]:
    """Check the checkpoint against the robot file. Returns its processor too, if it fits."""
    try:
        processor = read_processor(policy, robot)
    except InputError as error:
        mend = "use another checkpoint, or describe the differences in a policy file (docs/policy_file.md)"
        return [Check("policy and robot file", RED, str(error), mend)], None
    if processor is None:
        words = f"{policy} is a server: policy_node asks it what it expects"
        return [Check("policy and robot file", GREEN, words)], None
    words = f"cameras {', '.join(processor.cameras) or 'none'}; the joints are the robot's"
    return [Check("policy and robot file", GREEN, words)], processor


def live_checks(scene: Scene, processor: Any = None) -> list[Check]:
    """Check the running graph against robot file and policy, and the nodes' statuses; in the thread that polls the
    scene."""
    return [
        *_nodes(scene), *_cameras(scene, processor), *_joint_states(scene), *_trained(scene, processor),
        *_controllers(scene), _e_stop(scene), _clock(scene),
    ]


def machine_checks(folder: Path) -> list[Check]:
    """Disk and GPU of this machine; may take seconds."""
    parent = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())
    free = shutil.disk_usage(parent).free / 1e9
    level = RED if free < _LEAST_DISK else YELLOW if free < _LITTLE_DISK else GREEN
    mend = "" if level == GREEN else "free some space for recordings and logs"
    return [Check("disk", level, f"{free:.1f} GB are free below {parent}", mend), _gpu()]


def _gpu() -> Check:
    query = ["nvidia-smi", "--query-gpu=name,memory.used,memory.total,temperature.gpu", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        rows = [[part.strip() for part in line.split(",")] for line in said.splitlines() if line.strip()]
        words = "; ".join(f"{name}, {used} of {total} MB used, {heat} °C" for name, used, total, heat in rows)
        full = any(float(used) > 0.9 * float(total) for _, used, total, _ in rows)
    except FileNotFoundError:
        return Check("GPU", GREEN, "no NVIDIA GPU on this machine: a policy runs on the CPU here")
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Check("GPU", YELLOW, f"nvidia-smi does not answer as usual: {error}", "check the driver: nvidia-smi")
    do = "end the programs that fill its memory" if full else ""
    return Check("GPU", YELLOW if full else GREEN, words or "none", do)


# The nodes


def _nodes(scene: Scene) -> Iterator[Check]:
    policy, executor = scene.policy, scene.executor
    start = "start it: `vla-ros run`, or vla.launch.py"
    if policy is None:
        yield Check("policy_node", RED, "not heard", start)
    else:
        what, ends = policy_words(policy.state)
        bad = {PolicyStatus.FAILED: RED, PolicyStatus.WAITING: YELLOW, PolicyStatus.IDLE: YELLOW,
               PolicyStatus.INACTIVE: RED, PolicyStatus.UNCONFIGURED: RED}
        words = f"{POLICY_STATES[policy.state]}: {policy.message or what}"
        yield Check("policy_node", bad.get(policy.state, GREEN), words, ends)
    if executor is None:
        yield Check("executor_node", RED, "not heard", start)
        return
    what, ends = executor_words(executor.state, executor.cause)
    cause = f" ({CAUSES[executor.cause]})" if executor.cause else ""
    stopped = executor.state in _STOPS or executor.state <= ExecutorStatus.INACTIVE
    idle = executor.state == ExecutorStatus.HOLDING
    words = f"{EXECUTOR_STATES[executor.state]}{cause}: {executor.message or what}"
    mend = "; ".join(filter(None, (ends, about(executor.state, executor.cause))))
    yield Check("executor_node", RED if stopped else YELLOW if idle else GREEN, words, mend)
    if executor.dry_run:
        yield Check("dry run", YELLOW, "the executor commands nothing", "start it without dry_run")
    if words := scene.disagreement():
        yield Check("instruction", RED, words, "give the instruction again")
    if executor.state in (ExecutorStatus.EXECUTING, ExecutorStatus.APPROACHING):
        for words in hindrances(executor):
            yield Check("progress", YELLOW, words, "look at the plot: is the command at a limit, and does the arm "
                                                   "follow?")
    refused = faulty(executor)
    if refused and refused > executor.accepted_chunks:
        words = f"{refused} refused, {executor.accepted_chunks} accepted; last refusal: {executor.last_refusal}"
        yield Check("chunks", RED, words, "the reason names the joint and the limit")


# Sensors


def _cameras(scene: Scene, processor: Any) -> Iterator[Check]:
    used = scene.robot.camera_names if processor is None else processor.cameras
    for camera in scene.robot.cameras:
        if camera.name in used:
            yield _camera(scene, camera, scene.pictures[camera.name])


def _camera(scene: Scene, camera: Camera, picture: Picture) -> Check:
    title, stream = f"camera {camera.name}", scene.robot.stream(camera.name)
    if why := silent(scene.node, [stream]):
        return Check(title, RED, why, "start its driver, or correct its topic in the robot file")
    if picture.trouble:
        return Check(title, RED, picture.trouble, "set the driver's encoding")
    if not picture.came:
        return Check(title, RED, f"no image on {camera.topic} yet", "look at its driver")
    if (since := time.monotonic() - picture.came) > 2 * FRESH:
        return Check(title, RED, f"no image for {since:.1f} s", "look at its driver")
    age = (scene.node.get_clock().now().nanoseconds - picture.stamp_ns) / NS
    if camera.stamps == "header" and not -_AHEAD <= age <= FRESH:
        where = f"{age:.2f} s old" if age > 0 else f"{-age:.2f} s in the future"
        mend = "set the camera's clock (ptp, ntp), or `stamps: arrival` in the robot file" if picture.rate > 0 else \
            "look at its driver"
        return Check(title, RED, f"by its stamp, the newest image is {where}", mend)
    size = "" if picture.size is None else f"{picture.size[1]}x{picture.size[0]} "
    words = f"{size}{picture.encoding}, {picture.rate:.0f} Hz" if math.isfinite(picture.rate) else \
        f"{size}{picture.encoding}"
    if picture.size not in (None, (camera.height, camera.width)):
        return Check(title, YELLOW, f"{words}; the robot file says {camera.width}x{camera.height}",
                     "correct the size in the robot file; each policy scales images as in its training")
    if not camera.compressed and picture.encoding not in ("", camera.encoding):
        return Check(title, YELLOW, f"{words}; the robot file says {camera.encoding}", "correct one of the two")
    if picture.rate < _SLOW * camera.rate:
        return Check(title, YELLOW, f"{words}; the robot file says {camera.rate:g} Hz",
                     "check exposure, cable and network, and see docs/runtime.md#images-that-do-not-arrive")
    return Check(title, GREEN, words)


def _joint_states(scene: Scene) -> Iterator[Check]:
    robot = scene.robot
    streams = [robot.stream(name) for name in robot.state_streams]
    if why := silent(scene.node, streams):
        yield Check("joint states", RED, why, "start the robot's driver, or correct its topic in the robot file")
        return
    missing = [name for name in robot.joint_names if name not in scene.joints]
    if missing:
        others = ", ".join(sorted(set(scene.joints) - set(robot.joint_names))[:20])
        words = f"nobody publishes the position of {', '.join(missing)}"
        words += f"; published are {others}" if others else ""
        yield Check("joint states", RED, words, "use the driver's names of the joints in the robot file, or "
                                                "joint_prefix")
        return
    ages = scene.ages(scene.node.get_clock().now().nanoseconds)
    oldest = max(robot.joint_names, key=lambda name: ages[name])
    if not -_AHEAD <= ages[oldest] <= FRESH:
        yield Check("joint states", RED, f"{oldest} is {ages[oldest]:.2f} s old by its stamp",
                    "check the driver, and the clocks of both machines")
        return
    yield Check("joint states", GREEN, f"all {len(robot.joint_names)} joints, {max(ages[oldest], 0) * 1e3:.0f} ms old")
    wrong = [words for joint in robot.joints if (words := _range(joint, scene.joints[joint.name][0]))]
    if wrong:
        yield Check("ranges", RED, "; ".join(wrong), "move it back by hand, or correct unit, sign and limits in the "
                    "robot file")
    else:
        yield Check("ranges", GREEN, "every joint is measured inside its limits")


def _range(joint: Joint, position: float) -> str:
    unit = joint.unit
    if not math.isfinite(position):
        return f"{joint.name} is {position}"
    slack = 0.02 * (joint.upper - joint.lower)
    if joint.lower - slack <= position <= joint.upper + slack:
        return ""
    hint = " (degrees or ticks?)" if abs(position) > WIDEST else ""
    return f"{joint.name} is at {position:.3f} {unit}{hint}, its limits are {joint.lower:g} to {joint.upper:g}"


def _trained(scene: Scene, processor: Any) -> Iterator[Check]:
    """Compare the robot's position with the policy's training data."""
    names, normalisation = scene.robot.joint_names, getattr(processor, "state", None)
    if normalisation is None or normalisation.missing or not set(names) <= set(scene.joints):
        return
    row = np.array([scene.joints[name][0] for name in names])
    try:
        values = np.atleast_1d(normalisation.normalise(processor.embodiment.state_to_policy(row)))
    except (InputError, ValueError):
        return  # states that are not only joints
    far = _FAR.get(normalisation.mode, _FAR_OUT)
    dimensions = processor.embodiment.state
    out = [d.joint for d, value in zip(dimensions, values, strict=False) if d.joint and not abs(value) <= far]
    if out:
        yield Check("training data", YELLOW, f"{', '.join(dict.fromkeys(out))}: farther out than in the data that the "
                    "policy was trained on", "move the arm to where demonstrations began; or check units and signs")
    else:
        yield Check("training data", GREEN, "the arm is within the range of the training data")


# Commands


def _controllers(scene: Scene) -> Iterator[Check]:
    executor = scene.executor
    if words := unheard(scene.node, scene.robot):
        yield Check("controllers", RED, words, "start the controllers, or correct their topics in the robot file")
    else:
        yield Check("controllers", GREEN, "each command topic has a listener")
    # Before the executor publishes itself; it is recognised by its name, since this is another process.
    own = scene.node.resolve_topic_name("executor_node")
    others = [words for words in other_commanders(scene.node, scene.robot, False) if not words.startswith(f"{own} on")]
    if others:
        level = RED if executor is not None and executor.cause == ExecutorStatus.CAUSE_RIVAL else YELLOW
        yield Check("other commanders", level, "; ".join(others), "end them: only one program may command a joint")


def _e_stop(scene: Scene) -> Check:
    topic, own = scene.node.resolve_topic_name("e_stop"), scene.node.resolve_topic_name("executor_node")
    if own in map(node_name, scene.node.get_subscriptions_info_by_topic(topic)):
        return Check("e-stop", GREEN, f"the executor listens to {topic}")
    mend = "start executor_node; until then use the robot's own emergency stop"
    return Check("e-stop", RED, f"no executor listens to {topic}", mend)


def _clock(scene: Scene) -> Check:
    node = scene.node
    simulated, published = bool(node.get_parameter("use_sim_time").value), node.count_publishers(CLOCK) > 0
    if published and not simulated:
        return Check("clock", YELLOW, "a node publishes /clock, but this program uses the machine's time",
                     "use_sim_time: true for all nodes, or for none")
    if simulated and not published:
        return Check("clock", RED, "use_sim_time is true and nobody publishes /clock", "start the simulator")
    return Check("clock", GREEN, "simulated time" if simulated else "the machine's time")
