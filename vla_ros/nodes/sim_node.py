"""The simulated robot, with the topics of the real one: other nodes cannot tell the difference."""

import os
import sys
from dataclasses import dataclass

from std_srvs.srv import SetBool, Trigger

from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.messages.stamps import stamp_ns
from vla_ros.nodes.base import ManagedNode, spin_node
from vla_ros.nodes.bounded import subscribe_instruction
from vla_ros.nodes.parameters import NodeParameters, parameter
from vla_ros.nodes.qos import RECORDED_DEPTH, STATUS_QOS
from vla_ros.nodes.shared_memory import make_room_for_pictures
from vla_ros.nodes.sim.environment import environment_stage
from vla_ros.nodes.sim.lockstep import LockstepLoop
from vla_ros.nodes.sim.loops import Loop, RealTimeLoop, Stage
from vla_ros.nodes.sim.sensors import DepthPublisher, ScanPublisher
from vla_ros.nodes.sim.streams import (
    CameraPublisher,
    Commands,
    CubePublisher,
    StatePublisher,
    check_robot,
    check_stamps,
)
from vla_ros.nodes.sim.task import TaskWatch
from vla_ros.sim.environments import Environment
from vla_ros.sim.worlds import world_of

_NOT_ACTIVE = "the simulation is not active"
_PATIENCE = 30.0  # s of wall time for a reset of the simulator


@dataclass(frozen=True)
class SimParameters(NodeParameters):
    autostart: bool = parameter(True, "configure and activate by itself, as a robot's driver does", read_only=True)
    seed: int = parameter(0, "where things lie; taken by ~/reset", low=0, high=2**31 - 1, live=True)
    task: str = parameter("", "what success is judged by; empty: the instruction; taken by ~/reset", live=True)
    foreign_images: bool = parameter(
        False, "draw another layout (a control experiment); taken by ~/reset", live=True
    )
    lockstep: bool = parameter(False, "simulated time on /clock, waiting for commands and chunks, instead of real time")
    clock: bool = parameter(False, "publish /clock in real time too, for nodes with use_sim_time")
    image_rate: float = parameter(
        10.0, "images per second of simulated time, all cameras at once; lockstep only", unit="Hz", low=0.1, high=100.0
    )
    patience: float = parameter(
        60.0, "wall time to wait for a command or a chunk; lockstep only", unit="s", low=1.0, high=3600.0
    )
    time_limit: float = parameter(
        0.0, "simulated time after which a run ends unless it succeeds earlier; 0: never; lockstep only; read by "
             "~/reset",
        unit="s", low=0.0, high=3600.0, live=True,
    )  # fmt: skip
    hold: bool = parameter(
        False, "at success, time stands still until ~/run; lockstep only; read by ~/reset", live=True
    )
    rest: float = parameter(
        0.0, "simulated time from success until `hold` takes effect; lockstep only; read by ~/reset",
        unit="s", low=0.0, high=60.0, live=True,
    )  # fmt: skip
    chunks: bool = parameter(True, "images wait for a chunk; false where no policy steers; lockstep only")
    chunk_rate: float = parameter(
        0.0, "images per second of simulated time that wait for a chunk; 0: all of them; lockstep only", unit="Hz",
        low=0.0, high=100.0,
    )  # fmt: skip
    acknowledged: bool = parameter(
        False, "wait until every subscriber has received the images, for a recorder; lockstep only"
    )
    scene: str = parameter("", "what is on the table: cubes (with \"\" too) or bench")
    environment: str = parameter(
        "", "a gymnasium environment instead of the simulated robot, for example aloha/transfer_cube; lockstep only"
    )
    environment_python: str = parameter("", "interpreter that has the environment's packages; empty: this one")
    disturbance: float = parameter(
        0.0, "standard deviation of a smooth error of the arm's motors, of a base 2 m/s and 8 rad/s for each rad; "
        "taken by ~/reset",
        unit="rad", low=0.0, high=0.2, live=True,
    )  # fmt: skip


class SimNode(ManagedNode):
    """MuJoCo world to topics; which one, the joints of the robot file say. Or a gymnasium environment.

    Publishes joint states, odometry, images, camera_info and further sensors as the robot file says, robot_description,
    /tf and /tf_static,
    `~/task` and `~/success`, in lockstep `/clock`; for demonstrators `~/cubes` (in lockstep while it runs). Takes
    commands of the robot file's groups and `instruction`. Services: `~/reset` (std_srvs/Trigger) reads the parameters
    marked so; `~/run` (std_srvs/SetBool) runs or pauses a simulation in lockstep.
    """

    def __init__(self) -> None:
        super().__init__("sim_node", SimParameters)
        self._loop: Loop | None = None
        self._process: Environment | None = None
        self._instruction = ""

    def configure(self) -> None:
        robot = self.load_robot()
        values = self.parameters
        if values.lockstep:
            check_stamps(robot)
        stage = self._environment(robot) if values.environment else self._simulated(robot)
        if values.lockstep:
            self._loop = LockstepLoop(
                stage, values.image_rate, values.patience, values.chunks, values.acknowledged, values.chunk_rate
            )
            from vla_ros.msg import ExecutorStatus  # a simulation in real time needs no messages of our own

            answered = self._loop.chunk_answered
            self.create_subscription(
                ExecutorStatus, "executor_node/status", lambda m: answered(stamp_ns(m.chunk_stamp)), STATUS_QOS
            )
        else:
            self._loop = RealTimeLoop(stage, values.clock)
        self._reset_world()
        subscribe_instruction(self, self._take_instruction)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/run", self._on_run)

    def _environment(self, robot: RobotSpec) -> Stage:
        values = self.parameters
        if not values.lockstep:
            raise InputError(f"environment {values.environment}: lockstep false, expected true: it has no real time")
        if problem := self._beyond_environments():
            raise InputError(problem)
        self._process = Environment(values.environment, values.environment_python)
        return environment_stage(self, robot, self._process, RECORDED_DEPTH if values.acknowledged else 10)

    def _beyond_environments(self) -> str:
        """What the parameters ask of an environment that only the simulated robots of this package have."""
        values = self.parameters
        if not values.environment or not (values.foreign_images or values.disturbance or values.scene):
            return ""
        if values.scene:
            return f"environment {values.environment}: scene {values.scene}, expected none"
        return (
            f"environment {values.environment}: foreign_images {str(values.foreign_images).lower()}, disturbance "
            f"{values.disturbance:g} rad, expected false and 0"
        )

    def _simulated(self, robot: RobotSpec) -> Stage:
        values = self.parameters
        kind = world_of(robot.name, robot.joint_names, values.scene)
        world, view = kind(values.seed), kind(values.seed)
        check_robot(robot, world)
        return Stage(
            node=self,
            world=world,
            view=view,
            commands=Commands(self, robot, world),
            states=StatePublisher(self, robot, world, RECORDED_DEPTH if values.acknowledged else 10),
            scans=ScanPublisher(self, robot),
            cubes=CubePublisher(self),
            cameras=[CameraPublisher(self, camera, view) for camera in robot.cameras]
            + [DepthPublisher(self, stream, view) for stream in robot.streams if stream.name == "front_depth"],
            task=TaskWatch(self),
            period=1.0 / robot.control_rate,
        )

    def activate(self) -> None:
        self._loop.start()

    def deactivate(self) -> None:
        self._loop.stop()

    def release(self) -> None:
        self._loop = None
        if self._process is not None:
            self._process.end()
            self._process = None

    def _take_instruction(self, text: str) -> None:
        if text != self._instruction:
            self._instruction = text
            self._loop.instruct(text)

    def _reset_world(self) -> None:
        """Read the parameters and start again; in the world's thread, or before it runs."""
        values, loop = self.parameters, self._loop
        if isinstance(loop, LockstepLoop):
            loop.end("reset")
            loop.skip()
            loop.time_limit = values.time_limit
            loop.hold_on_success, loop.rest = values.hold, values.rest
        loop.stage.reset(values.seed, values.foreign_images, values.disturbance)
        loop.stage.task.override = values.task
        loop.stage.task.restart(loop.stage.world)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if problem := self._beyond_environments():
            response.success, response.message = False, problem
            return response
        patience = self.parameters.patience if self.parameters.environment else _PATIENCE
        response.success = self._loop.ask(self._reset_world, patience)
        why = self._loop.failure or _NOT_ACTIVE
        response.message = f"layout of seed {self.parameters.seed}" if response.success else why
        return response

    def _on_run(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        loop = self._loop
        if not isinstance(loop, LockstepLoop):
            response.success, response.message = False, "only a simulation in lockstep can be run and paused"
            return response
        response.success = loop.ask(loop.begin if request.data else lambda: loop.end("pause"))
        response.message = str(loop.runs) if response.success else loop.failure or _NOT_ACTIVE
        return response


def main(args: list[str] | None = None) -> int:
    os.environ.setdefault("LP_NUM_THREADS", "1")  # software rendering in one thread, beside the physics
    make_room_for_pictures()
    return spin_node(SimNode, args)


if __name__ == "__main__":
    sys.exit(main())
