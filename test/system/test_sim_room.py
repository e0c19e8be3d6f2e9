"""The simulated robot on wheels through the graph: the executor drives it, an e-stop brakes it, its sensors report."""

from array import array
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("mujoco", reason="MuJoCo is not installed")

from nav_msgs.msg import Odometry
from sensor_msgs.msg import Image, Imu, PointCloud2
from std_msgs.msg import Bool
from system.support import Probe, free_domain

from vla_ros.core.instruction import instruction_id
from vla_ros.core.resources import resolve_robot
from vla_ros.graph.simulated import SimulatedGraph
from vla_ros.messages.decoders import decoder_of
from vla_ros.messages.joints import base_pose, velocities
from vla_ros.messages.stamps import NS, set_stamp, stamp_ns
from vla_ros.msg import ActionChunk, ActionPart, ExecutorStatus
from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS, sensor_qos
from vla_ros.sim.driving import clearance
from vla_ros.sim.room_world import FOLDED, RoomWorld

TEXT = "drive to the red post"
SPEED = 0.2  # m/s
SEEN = {"lidar/points": PointCloud2, "imu/data": Imu, "camera/front_depth/image_raw": Image}


class Room(SimulatedGraph):
    """Executor and simulator in lockstep; the test is the policy, and each of its chunks drives straight ahead."""

    def followed(self) -> list[int | None]:
        return [self.watch.executor and self.watch.executor.instruction_id]

    def bring_up(self, probe: Probe) -> None:
        self.sequence, self.brake_after = 0, np.inf  # m
        reliable = sensor_qos(reliable=True, depth=1000)
        for topic, kind in {**SEEN, "base_controller/odom": Odometry}.items():
            probe.record(topic, kind, reliable)
        probe.record("executor_node/status", ExecutorStatus, STATUS_QOS)
        self.graph.start("executor_node", parameters=self.common | {"mode": "latest", "resume": "automatic"})
        self.simulation.start(self.robot_file, lockstep=True, image_rate=5.0, patience=120.0)
        self.graph.configure("executor_node")
        self.chunks = probe.publisher("action_chunk", ActionChunk, COMMAND_QOS)
        self.e_stop = probe.publisher("e_stop", Bool)
        self.probe = probe
        self.graph.node.create_subscription(Image, "camera/front/image_raw", self._answer, reliable)

    def _answer(self, image: Image) -> None:
        odometry = self.probe.last("base_controller/odom")
        if odometry is not None and base_pose(odometry)[0] > self.brake_after:
            self.brake_after = np.inf
            self.e_stop.publish(Bool(data=True))
        self.sequence += 1
        message = set_stamp(ActionChunk(), stamp_ns(image))
        message.step_dt, message.horizon, message.session, message.sequence = 0.1, 10, 7, self.sequence
        row = [*FOLDED.tolist(), SPEED, 0.0, 0.0]
        message.parts = [ActionPart(names=list(self.robot.joint_names), data=array("d", row * 10))]
        message.instruction_id = instruction_id(TEXT)
        self.chunks.publish(message)


def free_ahead() -> int:
    """The seed of a layout in which nothing is in the way for a metre and a half."""
    world = RoomWorld()
    for seed in range(200):
        world.reset(seed)
        x, y, yaw = world.base_pose()
        way = np.array([x, y]) + np.linspace(0.0, 1.5, 30)[:, None] * [np.cos(yaw), np.sin(yaw)]
        if clearance(world, way).min() > 0.2:
            return seed
    raise AssertionError("no such layout")


def test_it_drives_a_metre_and_an_e_stop_brakes_it(tmp_path: Path):
    seed = free_ahead()
    data = yaml.safe_load(resolve_robot("lekiwi_sim").read_text(encoding="utf-8"))
    data["cameras"] = data["cameras"][:1]  # a policy need not look at all of them
    (file := tmp_path / "room.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    with Room(tmp_path / "graph", file, domain=free_domain()) as room:
        room.bring_up(probe := Probe(room.graph))
        room.simulation.reset(seed=seed, time_limit=6.4)
        room.graph.activate_when_ready("executor_node")
        room.instruct(TEXT)
        room.wait_until_steered()
        start_x = RoomWorld(seed).base_pose()[0]
        room.brake_after = start_x + 0.9
        task = room.simulation.run_to_end()
        begin, end = (int(task.values["run_start_ns"]) + round(s * NS) for s in (0, float(task.values["run_time"])))

        def run(topic: str) -> list:
            found = {stamp_ns(m): m for m in probe.messages(topic) if begin <= stamp_ns(m) < end}
            return [found[stamp] for stamp in sorted(found)]

        odometry = run("base_controller/odom")
        speeds = np.array([velocities(m.twist.twist, ("x", "y", "yaw")) for m in odometry])
        places = np.array([base_pose(m) for m in odometry])
        gone = np.hypot(*(places[-1] - places[0])[:2])
        assert 0.9 < gone < 1.3 and np.abs(places[-1, 2] - places[0, 2]) < 0.02
        assert speeds[:, 0].max() == pytest.approx(SPEED, abs=0.01) and np.abs(speeds[:, 1]).max() < 0.02
        changes = np.abs(np.diff(speeds[:, 0])) / 0.01
        assert changes.max() < 1.6  # m/s²; the executor's limit is 1.0, the motors follow a little unevenly
        assert np.abs(speeds[-60:]).max() < 0.01  # it stands, long before the end
        status = probe.last("executor_node/status")
        assert status.state == ExecutorStatus.E_STOPPED and task.values["success"] == "false"
        assert task.values["post"] == "red" and task.values["touched"] == "false"
        assert len(run("imu/data")) == len(odometry) == 640
        for topic in ("lidar/points", "camera/front_depth/image_raw"):
            assert len(run(topic)) == 32, topic
        read = decoder_of(room.robot.stream("lidar"), room.robot)(run("lidar/points")[-1])
        assert read["lidar"].shape == (360, 3) and 200 < read["lidar_count"][0] <= 360  # over the walls is no return
