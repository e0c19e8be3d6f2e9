"""The simulator's scripted expert as a demonstrator: it steers the simulated robot as a teleoperator would.

Unlike a policy it knows where the cubes are. It publishes commands on the topics of the robot file, so that a recorder
makes demonstrations of them. No executor may run beside it, except with `takeover`: then it commands through the
executor, in place of a policy that makes a mistake.
"""

import sys
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import JointState, MultiDOFJointState
from std_msgs.msg import String

from vla_ros.control.remedies import with_section
from vla_ros.core.errors import InputError
from vla_ros.messages.joints import joint_positions
from vla_ros.messages.stamps import NS, stamp_ns
from vla_ros.nodes.base import ManagedNode, spin_node
from vla_ros.nodes.bounded import subscribe_instruction
from vla_ros.nodes.commands import CommandPublishers
from vla_ros.nodes.parameters import NodeParameters, parameter
from vla_ros.nodes.qos import RECORDED_DEPTH, STATUS_QOS, sensor_qos
from vla_ros.nodes.sim.leading import Leading
from vla_ros.nodes.sim.streams import check_robot, read_cubes
from vla_ros.sim.bench_world import Bench
from vla_ros.sim.tasks import parse_instruction
from vla_ros.sim.worlds import expert_of, world_of


@dataclass(frozen=True)
class ExpertParameters(NodeParameters):
    scene: str = parameter("", "what is on the table, as the simulator has it: cubes (with \"\" too) or bench")
    takeover: bool = parameter(False, "take over from a policy that makes a mistake, instead of commanding the robot "
                                      "directly")
    patience: float = parameter(1.0, "with takeover: time without progress before it takes over", unit="s", low=0.1)
    lead: float = parameter(2.0, "with takeover: time before it gives back", unit="s", low=0.1)


class ExpertNode(ManagedNode):
    """One command for each joint state of the running simulation, while there is an instruction.

    Takes `instruction`, joint states and `sim_node/cubes`; publishes commands with the stamps of the joint states, and
    on `~/following` the instruction that it follows ("": none, or one that it does not understand).
    """

    def __init__(self) -> None:
        super().__init__("expert_node", ExpertParameters)

    def configure(self) -> None:
        robot = self.load_robot()
        p: ExpertParameters = self.parameters
        self._world = world_of(robot.name, robot.joint_names, p.scene)()
        check_robot(robot, self._world)
        self._order = self._world.joint_names
        self._measured = self._order[: len(self._world.joint_velocities())]  # the rest is odometry's
        if p.takeover and isinstance(self._world, Bench):
            raise InputError(f"takeover: true, scene {p.scene}; expected cubes")
        self._leading = Leading(self, self._world, p.patience, p.lead) if p.takeover else None
        if self._leading is None:
            self._commands = CommandPublishers(self, robot, self._order, sensor_qos(True, RECORDED_DEPTH))
        self._repeats = round(1.0 / robot.control_rate / self._world.control_period)
        self._text, self._task, self._expert, self._answered = "", None, None, 0
        self._command = np.zeros(len(self._order))
        self._joints: JointState | None = None
        self._cubes: MultiDOFJointState | None = None
        self._following = self.create_publisher(String, "~/following", STATUS_QOS)
        subscribe_instruction(self, self._take_instruction)
        self.create_subscription(JointState, robot.joint_state_topics[0], self._take_joints, sensor_qos(True, 10))
        self.create_subscription(MultiDOFJointState, "sim_node/cubes", self._take_cubes, sensor_qos(True, 10))

    def activate(self) -> None:
        self._text, self._task, self._expert = "", None, None
        self._following.publish(String())

    def _take_instruction(self, text: str) -> None:
        if not self.is_active or text == self._text:
            return
        self._expert, self._text = None, text
        try:
            self._task = parse_instruction(text, self._world.kinds, self._world.colours) if text else None
        except InputError as error:
            self.get_logger().error(with_section(error))
            self._task = None
        if self._leading:
            self._leading.begin(self._task)
        self._following.publish(String(data=text if self._task else ""))
        self._steer()

    def _take_joints(self, message: JointState) -> None:
        self._joints = message
        self._steer()

    def _take_cubes(self, message: MultiDOFJointState) -> None:
        again = self._cubes is not None and stamp_ns(self._cubes) == stamp_ns(message) == self._answered
        self._cubes = message
        if again and self.is_active and self._expert is not None:
            self._commands.publish(self._command, self._answered)  # repeated: the answer was missed
        else:
            self._steer()

    def _steer(self) -> None:
        """Publish the command for the newest time for which all inputs are known, once."""
        if not self.is_active or self._task is None or None in (self._joints, self._cubes):
            return
        now = stamp_ns(self._cubes)
        if stamp_ns(self._joints) != now or now == self._answered:
            return
        self._answered = now
        self._world.place(joint_positions(self._joints, self._measured), read_cubes(self._cubes), now / NS)
        if self._leading:
            self._leading.steer(now, self._repeats)
            return
        if self._expert is None:
            try:
                self._expert = expert_of(self._world, self._task)
            except InputError as error:
                self.get_logger().error(with_section(error))
                self._task = None
                return
        for _ in range(self._repeats):  # a slower robot gets the last of the expert's own steps
            self._command = self._expert.command()
        self._commands.publish(self._command, now)


def main(args: list[str] | None = None) -> int:
    return spin_node(ExpertNode, args)


if __name__ == "__main__":
    sys.exit(main())
