"""Pictures of docs/ that matplotlib draws of what the product does, for scripts/pictures.py. Each returns a figure."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot

from vla_ros.control.executor import Executor
from vla_ros.control.limits import Limits
from vla_ros.control.settings import Command
from vla_ros.core.chunk import ActionChunk, Part, Targets
from vla_ros.core.instruction import instruction_id
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.stamps import NS

BLUE, GREEN, GREY = "#0072B2", "#009E73", "#888888"  # colour-blind safe
SO101 = RobotSpec.load("so101")
JOINT, TEXT, RATE, STEP_DT = SO101.joint_names[0], "touch the red cube", 100, 0.1


class Arm:
    """An arm that is at once where the executor commands it; its first joint moves, the others stay at 0."""

    def __init__(self) -> None:
        self.executor = Executor(Limits.merge(SO101), RATE)
        self.executor.set_instruction(TEXT)
        self.ticks, self.position = 0, np.zeros(len(SO101.joints))
        self.measure()
        self.executor.activate(self.now)

    @property
    def now(self) -> int:
        return NS + self.ticks * NS // RATE

    def measure(self) -> None:
        self.executor.joint_state(self.now, list(SO101.joint_names), list(self.position), self.now)

    def lead(self, angle: float) -> None:
        self.executor.takeover.heard(self.now, [JOINT], [angle], self.now)

    def send(self, angles: np.ndarray) -> bool:
        """Rows (H,) of the first joint; whether the chunk was accepted."""
        data = np.column_stack([angles, np.zeros((len(angles), len(self.position) - 1))])
        targets = Targets((Part(SO101.joint_names, data),))
        chunk = ActionChunk(self.now, STEP_DT, targets, instruction_id(TEXT), self.ticks, 1)
        return isinstance(self.executor.add_chunk(chunk, self.now), ActionChunk)

    def tick(self) -> Command:
        command = self.executor.tick(self.now, self.now)
        self.position, self.ticks = command.position, self.ticks + 1
        self.measure()
        return command


def _axes(end: float) -> tuple[Any, Any]:
    figure, axis = pyplot.subplots(figsize=(8, 2.8))
    axis.set_xlabel("s")
    axis.set_ylabel(f"{JOINT}, rad")
    axis.set_xlim(0, end)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.2)
    return figure, axis


def _legend(axis: Any) -> None:
    axis.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


def trajectories() -> Any:
    """Commands for one chunk, and of every 8th the points of the trajectory that follow it."""
    arm, commands = Arm(), []
    figure, axis = _axes(1.4)
    for tick in range(140):
        if tick == 20:
            arm.send(0.4 * (1 - np.cos(np.linspace(0, np.pi, 9))))
        command = arm.tick()
        commands.append(command.position[0])
        if tick % 8 == 0:
            points = np.append(commands[-1], command.braking[:, 0])
            axis.plot((tick + np.arange(len(points))) / RATE, points, color=BLUE, linewidth=0.9)
    times = np.arange(len(commands)) / RATE
    axis.plot(times, commands, color="black", linewidth=1.8, label="commands: the first points")
    axis.plot([], [], color=BLUE, linewidth=0.9, label="the points after some of them")
    _legend(axis)
    return figure


def takeover() -> Any:
    """A policy that errs, a source that takes over, and the policy again."""
    arm, commands, leader = Arm(), [], []
    figure, axis = _axes(9)
    for tick in range(900):
        leader.append(0.35 + 0.1 * np.sin(tick / 60))
        arm.lead(leader[-1])
        if tick == 250:
            arm.executor.take_over("leader", arm.now)
        if tick == 600:
            arm.executor.give_back(arm.now)
        if tick % 50 == 0:
            goal, rows = (-0.5 if tick < 250 else 0.5), np.arange(10)
            angles = arm.position[0] + np.clip(goal - arm.position[0], -0.04 * rows, 0.04 * rows)
            style = {"color": BLUE} if arm.send(angles) else {"color": GREY, "linestyle": ":"}
            axis.plot(tick / RATE + STEP_DT * rows, angles, linewidth=0.9, **style)
        commands.append(arm.tick().position[0])
    times = np.arange(len(commands)) / RATE
    axis.plot(times, leader, color=GREEN, linewidth=1.2, label="the leader arm")
    axis.plot(times, commands, color="black", linewidth=1.8, label="commands")
    axis.plot([], [], color=BLUE, linewidth=0.9, label="chunks (dotted: refused as taken_over)")
    axis.axvspan(2.5, 6, color=GREEN, alpha=0.1, linewidth=0)
    _legend(axis)
    return figure


def rights() -> Any:
    """Which enclave of `vla-ros info so101 --sros2` may do what matters for the robot's motion."""
    from vla_ros.graph.security import CHUNK, E_STOP, INSTRUCTION, TAKE_OVER, TAKEOVER, enclaves

    commands = SO101.groups[0].topic
    columns = {
        "publish chunks": ("publish", CHUNK), "command joints": ("publish", commands),
        "give instructions": ("publish", INSTRUCTION), "press the e-stop": ("publish", E_STOP),
        "reset the e-stop": ("request", "executor_node/reset_e_stop"), "take over": ("request", TAKE_OVER),
        "lead the arm": ("publish", TAKEOVER), "configure nodes": ("request", "executor_node/change_state"),
        "receive chunks": ("subscribe", CHUNK), "receive commands": ("subscribe", commands),
    }  # fmt: skip
    made = enclaves(SO101)
    held = np.array([[name in getattr(made[enclave], rule) for rule, name in columns.values()] for enclave in made])
    figure, axis = pyplot.subplots(figsize=(7, 4.4))
    axis.imshow(held, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=40, ha="left")
    axis.set_yticks(range(len(made)), made)
    axis.xaxis.tick_top()
    axis.set_xticks(np.arange(len(columns)) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(made)) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2)
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_visible(False)
    return figure


def _markers(demo: Path, at: float) -> list[Any]:
    """What marker_node publishes `at` s after the first message of a demo's bag."""
    from vla_ros.bags.reader import Bag
    from vla_ros.control.kinematics import Kinematics
    from vla_ros.messages.chunks import read_chunk
    from vla_ros.nodes.marker_node import MarkerNode

    node = SimpleNamespace(
        _names=SO101.joint_names, _tool=SO101.tool, _seen={}, _followed=None, _status=None, _accepted=0, _paths=None,
        _discrete={joint.name for joint in SO101.joints if joint.discrete}, is_active=True,
        parameters=SimpleNamespace(tips=()), _publisher=SimpleNamespace(),
    )  # fmt: skip
    for name in ("_ways", "_arm", "_words", "_chunk_markers"):
        setattr(node, name, partial(getattr(MarkerNode, name), node))
    node._publisher.publish = partial(setattr, node, "drawn")
    MarkerNode._take_tree(node, Kinematics((demo / "robot.urdf").read_text()))
    with Bag(demo / "bag") as bag:
        records = list(bag.records(["/action_chunk", "/executor_node/status"]))
        for record in records:
            if record.log_ns > records[0].log_ns + at * NS:
                break
            message = bag.decode(record)
            if record.topic == "/action_chunk":
                chunk = read_chunk(message)
                node._seen[chunk.session, chunk.sequence] = chunk
            else:
                MarkerNode._take_status(node, message)
    MarkerNode._draw(node)
    return node.drawn.markers


def markers(demo: Path, at: float) -> Any:
    """The markers in space, as RViz and Foxglove draw them."""
    from visualization_msgs.msg import Marker

    figure = pyplot.figure(figsize=(6, 4.2))
    axis = figure.add_subplot(projection="3d")
    for marker in _markers(demo, at):
        points = np.array([[point.x, point.y, point.z] for point in marker.points]).reshape(-1, 3)
        if marker.type == Marker.TEXT_VIEW_FACING:
            axis.set_title(marker.text, fontsize=10)
        if marker.type == Marker.LINE_LIST:
            lines, colours = points.reshape(-1, 2, 3), [marker.color] * (len(points) // 2)
        else:
            lines, colours = np.stack([points[:-1], points[1:]], axis=1), marker.colors[1:]
        for line, colour in zip(lines, colours, strict=True):
            shade = (colour.r, colour.g, colour.b)
            axis.plot(*line.T, color=shade, linewidth=500 * marker.scale.x)
        if len(lines):
            axis.plot([], [], color=shade, linewidth=3, label=marker.ns)
    axis.set_aspect("equal")
    axis.locator_params(nbins=4)
    axis.view_init(25, -60)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.05, 0.8))
    return figure
