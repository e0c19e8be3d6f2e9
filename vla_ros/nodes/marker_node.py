"""Draws what the policy asks for and what the executor commands, for RViz and Foxglove. It only subscribes.

    ros2 run vla_ros marker_node --ros-args -p robot:=so101 -p autostart:=true
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Point
from nav_msgs.msg import Path
from rclpy.serialization import deserialize_message
from std_msgs.msg import ColorRGBA, String
from visualization_msgs.msg import Marker, MarkerArray

from vla_ros.control.kinematics import MOVING, Kinematics
from vla_ros.control.remedies import with_section
from vla_ros.control.urdf import MOST_BYTES
from vla_ros.core.chunk import PATH, ActionChunk
from vla_ros.core.errors import InputError
from vla_ros.core.text import plain
from vla_ros.messages.chunks import MAX_PARTS, chunk_size_limit, count_parts, read_chunk
from vla_ros.messages.stamps import NS, set_stamp, stamp_ns
from vla_ros.msg import ActionChunk as ChunkMessage
from vla_ros.msg import ExecutorStatus
from vla_ros.nodes.base import ManagedNode, spin_node
from vla_ros.nodes.base_way import path_message
from vla_ros.nodes.bounded import subscribe_bounded, subscribe_raw
from vla_ros.nodes.executor.parameters import ExecutorParameters
from vla_ros.nodes.parameters import NodeParameters, parameter
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS
from vla_ros.nodes.taking import Withheld
from vla_ros.nodes.tool_way import rows_of, tool_way

MOST_TIPS = 8
_KEPT = 8  # chunks whose acceptance is not known yet
_STATES = {
    getattr(ExecutorStatus, name): name
    for name in ("UNCONFIGURED", "INACTIVE", "APPROACHING", "EXECUTING", "HOLDING", "STOPPED", "E_STOPPED",
                 "TAKEN_OVER")
}
_COLOURS = {  # r, g, b
    "chunk": (0.10, 0.55, 1.0), "past": (0.5, 0.5, 0.5), "command": (1.0, 0.6, 0.0), "measured": (0.85, 0.85, 0.85),
}  # fmt: skip


@dataclass(frozen=True)
class MarkerParameters(NodeParameters):
    urdf: str = parameter("", "path of the robot's URDF")
    robot_description: str = parameter("", "text of the URDF instead")
    robot_description_topic: str = parameter("", "topic of that text instead; robot_description by default")
    tips: tuple[str, ...] = parameter((), "links whose paths are drawn; empty: the ends of the chains that the "
                                          "joints move")
    rate: float = parameter(10.0, "highest rate of the markers", unit="Hz", low=1.0, high=60.0)


class MarkerNode(ManagedNode):
    """Publishes `~/markers` (visualization_msgs/MarkerArray) in the frame of the URDF's root link.

    Namespaces: "chunk", the path of each tip (for a chunk for the robot's tool, only that of the tool) in the newest
    chunk that the executor has accepted, grey where it is over; "command" and "measured", the arm as lines; "state",
    the executor's state and the instruction.

    For a robot whose base follows paths also `~/base_path` (nav_msgs/Path), that of the newest accepted chunk.
    """

    def __init__(self) -> None:
        super().__init__("marker_node", MarkerParameters)

    def configure(self) -> None:
        values = self.parameters
        robot = self.load_robot()
        self._names = robot.joint_names
        self._discrete = {joint.name for joint in robot.joints if joint.discrete}
        self._tree: Kinematics | None = None
        self._tool = robot.tool
        self._seen: dict[tuple[int, int], ActionChunk] = {}
        self._followed: tuple[int, int] | None = None  # the newest accepted one; may arrive after the status
        self._status: ExecutorStatus | None = None
        self._accepted = 0
        names = ("urdf", "robot_description", "robot_description_topic")
        given = [name for name in names if getattr(values, name)]
        if len(given) > 1:
            raise InputError(f"parameters {' and '.join(given)}: all of them are set, expected one")
        if source := values.urdf or values.robot_description:
            self._take_tree(Kinematics(source))
        else:
            topic = values.robot_description_topic or "robot_description"
            self.get_logger().info(f"waiting for the topic {topic}: no URDF is given")
            subscribe_bounded(self, String, topic, self._take_description, STATUS_QOS, limit=MOST_BYTES)
        self._largest_chunk = chunk_size_limit(robot, ExecutorParameters().max_horizon)
        subscribe_raw(self, ChunkMessage, "action_chunk", self._take_chunk, COMMAND_QOS, self._largest_chunk)
        subscribe_bounded(self, ExecutorStatus, "executor_node/status", self._take_status, STATUS_QOS)
        self._publisher = self.create_publisher(MarkerArray, "~/markers", COMMAND_QOS)
        self._paths = self.create_publisher(Path, "~/base_path", COMMAND_QOS) if robot.path_axes else None
        self._shown: ActionChunk | None = None  # whose path was published last
        self.create_steady_timer(1.0 / values.rate, self._draw)

    # Inputs

    def _take_description(self, message: String) -> None:
        try:
            self._take_tree(Kinematics(message.data))
        except InputError as error:
            topic = self.parameters.robot_description_topic or "robot_description"
            self.get_logger().error(f"topic {topic}: {with_section(error)}")

    def _take_tree(self, tree: Kinematics) -> None:
        """Raises InputError if the tree does not fit the robot file."""
        links = {tree.root, *(joint.child for joint in tree.joints)}
        if unknown := [tip for tip in self.parameters.tips if tip not in links]:
            raise InputError(f"parameter tips: {unknown[0]!r} is no link of the URDF, expected some of {sorted(links)}")
        moved = [joint.name for joint in tree.joints if joint.name in self._names]
        if not moved:
            raise InputError(f"URDF: none of the robot file's joints {list(self._names)}")
        # Without the gripper, whose jaws would repeat the path of the hand.
        arm = [name for name in moved if name not in self._discrete]
        self._tips = list(self.parameters.tips) or tree.tips(arm or moved)[:MOST_TIPS]
        self._tree, self._moved = tree, set(moved)
        moving: set[str] = set()  # links; what is fixed to the root, such as a camera beside the arm, is not drawn
        for joint in tree.joints:
            if joint.kind in MOVING or joint.parent in moving:
                moving.add(joint.child)
        self._drawn = [joint for joint in tree.joints if joint.child in moving]

    def _take_chunk(self, data: bytes | Withheld) -> None:
        if len(data) > self._largest_chunk or count_parts(data) > MAX_PARTS:
            return  # the executor refuses it and says so
        try:
            chunk = read_chunk(deserialize_message(data, ChunkMessage))
            chunk.targets.joint_positions(self._names, np.zeros(len(self._names)))  # its joints are the robot's
            if part := chunk.targets.spatial:
                rows_of(part, self._tool)  # and so is its tool
            if part := chunk.targets.path:
                [part.names.index(name) for name in PATH]
        except Exception:  # whatever the decoder raises on foreign bytes; the executor says so
            return
        self._seen[chunk.session, chunk.sequence] = chunk
        for old in list(self._seen)[:-_KEPT]:
            del self._seen[old]

    def _take_status(self, message: ExecutorStatus) -> None:
        if message.accepted_chunks != self._accepted:
            self._accepted = message.accepted_chunks
            self._followed = (message.chunk_session, message.chunk_sequence)
        self._status = message

    # Drawing

    def _draw(self) -> None:
        status, tree = self._status, self._tree
        chunk = self._seen.get(self._followed)
        if self._paths and self.is_active and chunk and chunk.targets.path and chunk is not self._shown:
            self._shown = chunk
            self._paths.publish(path_message(chunk))
        if status is None or tree is None or not self.is_active:
            return
        self._status = None
        command = _positions(status.names, status.position)
        measured = _positions(status.names, status.measured)
        markers = [
            *self._chunk_markers(status, command),
            self._arm("command", command),
            self._arm("measured", measured),
            self._words(status),
        ]
        for marker in markers:
            marker.header.frame_id = tree.root
            set_stamp(marker, stamp_ns(status))
        self._publisher.publish(MarkerArray(markers=markers))

    def _chunk_markers(self, status: ExecutorStatus, command: Mapping[str, float]) -> list[Marker]:
        chunk, now = self._seen.get(self._followed), stamp_ns(status)
        found = [Marker(ns="chunk", id=index, action=Marker.DELETE) for index in range(max(len(self._tips), 1))]
        live = chunk is not None and status.live_chunks and chunk.stamp_ns + chunk.duration * NS > now
        if not live or not set(self._names) <= set(command):
            return found
        over = [chunk.stamp_ns + (row + 1) * chunk.step_dt * NS <= now for row in range(chunk.horizon)]
        for marker, places in zip(found, self._ways(chunk, command, sum(over)), strict=False):
            marker.action, marker.type, marker.scale.x = Marker.ADD, Marker.LINE_STRIP, 0.004
            marker.points = _points(places)
            marker.colors = [_colour("past" if gone else "chunk") for gone in over]
        return found

    def _ways(self, chunk: ActionChunk, command: Mapping[str, float], now: int) -> list[np.ndarray]:
        """(H, 3) m for each tip, or for the tool alone; `now`: the row that is followed."""
        if part := chunk.targets.spatial:
            poses, tool = self._tree.poses(command), self._tool
            return [tool_way(part, tool, poses, now)] if {tool.link, tool.frame} <= set(poses) else []
        rest = np.array([command[name] for name in self._names])
        rows = chunk.targets.joint_positions(self._names, rest)  # (H, J)
        poses = self._tree.poses(dict(zip(self._names, rows.T, strict=True)))
        return [np.broadcast_to(poses[tip], (chunk.horizon, 4, 4))[:, :3, 3] for tip in self._tips]

    def _arm(self, kind: str, positions: Mapping[str, float]) -> Marker:
        """Lines from joint to joint; none if a joint is not known."""
        marker = Marker(ns=kind, type=Marker.LINE_LIST, action=Marker.DELETE)
        if self._moved <= set(positions):
            poses = self._tree.poses(positions)
            ends = [end for joint in self._drawn for end in (poses[joint.parent], poses[joint.child])]
            marker.action, marker.scale.x, marker.color = Marker.ADD, 0.006, _colour(kind)
            marker.points = _points(np.stack(ends)[:, :3, 3])
        return marker

    def _words(self, status: ExecutorStatus) -> Marker:
        words = ": ".join(part for part in (_STATES.get(status.state, "?"), status.instruction) if part)
        marker = Marker(ns="state", type=Marker.TEXT_VIEW_FACING, text=plain(words, 200), color=_colour("measured"))
        marker.scale.z, marker.pose.position.z = 0.03, -0.05
        return marker


def _positions(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    return {name: value for name, value in zip(names, values, strict=False) if np.isfinite(value)}


def _points(places: np.ndarray) -> list[Point]:
    """(N, 3) m."""
    return [Point(x=x, y=y, z=z) for x, y, z in places.tolist()]


def _colour(name: str) -> ColorRGBA:
    red, green, blue = _COLOURS[name]
    return ColorRGBA(r=red, g=green, b=blue, a=1.0)


def main(args: list[str] | None = None) -> int:
    return spin_node(MarkerNode, args)


if __name__ == "__main__":
    sys.exit(main())
