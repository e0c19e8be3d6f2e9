"""A robot, a policy and an operator in explicit time, for the tests of the executor."""

import numpy as np
from control.robots import robot

from vla_ros.control.admission import NO_TOOL, Reason, Refusal
from vla_ros.control.executor import Executor
from vla_ros.control.limits import Limits
from vla_ros.control.settings import Command, Settings
from vla_ros.control.timing import SimulatedPeriods
from vla_ros.control.tool_arm import ToolArm
from vla_ros.core.chunk import ActionChunk, MalformedChunk, Part, Space, Targets
from vla_ros.core.instruction import instruction_id
from vla_ros.messages.stamps import NS

HOME = np.array([0.1, 0.25, 0.5])


class World:
    """One executor and what surrounds it.

    Attributes:
        now_ns: ROS time; steady_ns: the loop's own.
        measured: (J,) follows the commands unless `stuck`.
    """

    def __init__(
        self, rate: float = 100.0, jerk: float = np.inf, clock: float = 0.0, *, arm: ToolArm | None = None,
        limits: Limits | None = None, home: np.ndarray = HOME, base: dict[str, str] | None = None, **settings: object,
    ) -> None:
        """`clock`: Hz of a simulated clock; 0 for real time. `arm`, `limits`: of another robot, and where it stands.
        `base`: axes that follow paths."""
        self.period_ns = round(NS / rate)
        self.clock, self.messages, self.periods = clock, 0, SimulatedPeriods(rate, 0.5)
        limits = limits or Limits.merge(robot(jerk, gripper=True))
        settings = Settings(**{"resume": "automatic"} | settings)
        self.executor = Executor(limits, rate, settings, clock > 0, arm or NO_TOOL, base)
        self.names = self.executor.limits.names
        self.now_ns, self.steady_ns = 1_000 * NS, 5 * NS
        self.measured, self.stuck, self.joints = home.copy(), False, True
        self.session, self.sequence, self.instruction = 1, 0, "go"
        self.executor.set_instruction("go")
        self.measure()

    def measure(self, **change: object) -> None:
        values = {"stamp_ns": self.now_ns, "names": list(self.names), "position": list(self.measured)} | change
        self.executor.joint_state(now_ns=self.now_ns, **values)

    def activate(self) -> "World":
        self.executor.activate(self.now_ns)
        return self

    def tick(self, count: int = 1, pause: float = 0.0, leap: float = 0.0) -> Command | None:
        """`count` control periods; before each, the loop misses those of `pause` s and ROS time leaps by `leap` s."""
        command = None
        for _ in range(count if not self.clock else 0):
            passed = self.period_ns * (1 + round(pause * NS / self.period_ns))
            self.steady_ns += passed
            self.now_ns += passed + round(leap * NS)
            if self.joints:
                self.measure()
            command = self.executor.tick(self.now_ns, self.steady_ns)
            if command is not None and not self.stuck:
                self.measured = command.position.copy()
        for _ in range(count if self.clock else 0):
            command = self._simulated_period()
        return command

    def _simulated_period(self) -> Command | None:
        """Clock messages until one ends a control period; the last command of that one."""
        ticks: list[tuple[int, int]] = []
        while not ticks:
            self.now_ns = 1_000 * NS + round(self.messages * NS / self.clock)
            self.messages += 1
            self.measure()
            ticks = list(self.periods.due(self.now_ns))
        for at_ns, self.steady_ns in ticks:
            command = self.executor.tick(at_ns, self.steady_ns)
        self.measured = self.measured if command is None else command.position.copy()
        return command

    def chunk(self, rows: object = None, step_dt: float = 0.1, age: float = 0.0, **change: object) -> ActionChunk:
        rows = np.tile(self.measured, (10, 1)) if rows is None else np.asarray(rows, dtype=np.float64)
        self.sequence += 1
        values = {
            "stamp_ns": self.now_ns - round(age * NS),
            "step_dt": step_dt,
            "targets": Targets(
                (Part(change.pop("names", self.names), rows, change.pop("space", Space.JOINT_POSITION)),)
            ),
            "instruction_id": instruction_id(self.instruction),
            "session": self.session,
            "sequence": self.sequence,
        }
        return ActionChunk(**(values | change))

    def send(self, *args: object, **change: object) -> ActionChunk | Refusal:
        try:
            chunk = self.chunk(*args, **change)
        except MalformedChunk as error:
            return self.executor.refuse_chunk(Reason(error.reason), str(error))
        return self.executor.add_chunk(chunk, self.now_ns)
