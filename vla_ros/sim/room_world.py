"""A base on three wheels with the arm on it, in a room: what it is told, and what its sensors say."""

from collections.abc import Sequence

import mujoco
import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.sim.kinematics import inverse
from vla_ros.sim.robot import GRIPPER_CLOSED, LOWER, UPPER
from vla_ros.sim.room import STAND_HEIGHT, VELOCITIES, arm_joints, room_xml
from vla_ros.sim.room_layout import RoomLayout
from vla_ros.sim.scene import COLOURS
from vla_ros.sim.simulated import Simulated
from vla_ros.sim.tasks import TaskKind

SPEED = np.array([0.26, 0.23, 1.57])  # m/s and rad/s, as in the robot file
FOLDED = np.append(inverse(np.array([0.13, 0.0, 0.14]), 0.0), GRIPPER_CLOSED)  # (6,) rad: within the base's outline
RINGS = np.radians([-6.0, 0.0, 6.0, 12.0])  # of the LiDAR, above the horizon
AZIMUTHS = np.radians(np.arange(0.0, 360.0, 4.0))  # from straight ahead, counterclockwise
LIDAR_RANGE = (0.10, 6.0)  # m
RANGE_NOISE = 0.005  # m, standard deviation
SHAKEN_FROM = 0.10  # m/s: a slower base is disturbed less
_MOST_DEPTH = 10.0  # m; farther away is no return
_GROUPS = np.array([1, 0, 1, 1, 1, 1], dtype=np.uint8)  # of shapes that the LiDAR sees: not the robot's own


class RoomWorld(Simulated):
    """The robot is LeKiwi's in names, limits and shape. A command is the arm's six joints and three velocities along
    and about the base's own axes; `joint_positions` has the measured velocities in their place.    """

    joint_names = (*arm_joints(), *VELOCITIES)
    cameras = ("front", "wrist", "left", "right", "back")
    scene = "room"
    kinds = (TaskKind.DRIVE, TaskKind.FETCH)
    time_limit = 40.0
    lower, upper = np.append(LOWER, -SPEED), np.append(UPPER, SPEED)
    shaken = np.array([0.0] * 6 + [5.0, 5.0, 10.0])  # m/s, m/s and rad/s
    sensors = {
        "lidar": "sensor_msgs/msg/PointCloud2", "imu": "sensor_msgs/msg/Imu", "front_depth": "sensor_msgs/msg/Image",
    }  # fmt: skip
    drawn = ("lidar", "front_depth")
    own_poses = ("base_link",)
    random_layout = staticmethod(RoomLayout.random)

    def __init__(self, seed: int = 0, friction: float = 1.0):
        """`friction` is the sliding friction between fingers and cubes (1 is a rubber pad)."""
        super().__init__(room_xml(friction), arm_joints())
        model = self.model
        self._base = np.array([model.joint(f"base_{axis}").qposadr[0] for axis in ("x", "y", "yaw")])
        self._base_speed = np.array([model.joint(f"base_{axis}").dofadr[0] for axis in ("x", "y", "yaw")])
        self._body, self._lidar = int(model.body("base_link").id), int(model.site("lidar").id)
        self._mocap = {model.body(i).name: int(m) for i, m in enumerate(model.body_mocapid) if m >= 0}
        robot = model.geom_group == 1
        harmless = [*self._cube_geom, int(model.geom("floor").id)]
        self._robot, self._hard = robot, ~robot & ~np.isin(np.arange(model.ngeom), harmless)
        rays = [[np.cos(up) * np.cos(a), np.cos(up) * np.sin(a), np.sin(up)] for up in RINGS for a in AZIMUTHS]
        self._rays = np.array(rays)
        self.reset(seed)

    def reset(self, seed: int = 0, joints: Sequence[float] | None = None, layout: RoomLayout | None = None) -> None:
        """Put all at the places of `seed` (or of `layout`); all is at rest, the arm at `joints` (J,) (folded)."""
        self.layout = layout = layout or RoomLayout.random(seed)
        self._seed, self.collisions = seed, 0
        arm = FOLDED if joints is None else self._checked(joints)[:6]
        self._begin(arm, layout.stands, layout.yaws, STAND_HEIGHT)
        self.data.qpos[self._base] = layout.start
        for kind, places in (("post", layout.posts), ("stand", layout.stands)):
            for colour, (x, y) in zip(COLOURS, places, strict=True):
                self.data.mocap_pos[self._mocap[f"{colour}_{kind}"]] = x, y, 0.0
        for i, (x, y, yaw) in enumerate(layout.boxes):
            self._put(f"box_{i}", [x, y, 0.0, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
        mujoco.mj_forward(self.model, self.data)

    def step(self, command: Sequence[float]) -> None:
        super().step(command)
        touching = self.data.contact.geom[: self.data.ncon]
        robot, hard = self._robot[touching], self._hard[touching]
        self.collisions += bool((robot & hard[:, ::-1]).any())

    def shaken_command(self, command: np.ndarray, error: np.ndarray) -> np.ndarray:
        share = min(float(np.hypot(*command[6:8])) / SHAKEN_FROM, 1.0)  # a base that is told to stand stands
        return command + np.append(error[:6], share * error[6:])

    def _controls(self, command: np.ndarray) -> np.ndarray:
        """Velocities along the room's axes: those are the ones that the motors drive."""
        return np.concatenate([command[:6], _turned(command[6:], self.data.qpos[self._base[2]])])

    def joint_positions(self) -> np.ndarray:
        return np.append(super().joint_positions(), self.base_velocity())

    def base_pose(self) -> np.ndarray:
        """The yaw goes on over a whole turn."""
        return self.data.qpos[self._base].copy()

    def base_velocity(self) -> np.ndarray:
        """(3,) m/s and rad/s along and about the base's own axes."""
        return _turned(self.data.qvel[self._base_speed], -self.data.qpos[self._base[2]])

    def post_positions(self) -> dict[str, np.ndarray]:
        """Colour -> (2,) m, in the frame of the room."""
        return {colour: self.data.mocap_pos[self._mocap[f"{colour}_post"]][:2].copy() for colour in COLOURS}

    def poses(self) -> dict[str, np.ndarray]:
        data, places = self.data, {}
        for name, i in self._mocap.items():
            places[name] = np.concatenate([data.mocap_pos[i], data.mocap_quat[i]])
        x, y, yaw = self.base_pose()
        places["base_link"] = np.array([x, y, 0.0, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
        return super().poses() | places

    def _put(self, name: str, pose: Sequence[float]) -> None:
        if name == "base_link":
            self.data.qpos[self._base] = pose[0], pose[1], 2.0 * np.arctan2(pose[6], pose[3])
        elif name in self._mocap:
            i = self._mocap[name]
            self.data.mocap_pos[i], self.data.mocap_quat[i] = pose[:3], pose[3:]
        else:
            super()._put(name, pose)

    def _shading(self) -> list[np.ndarray]:
        return []  # the floor is too dark for shadows

    # Sensors

    def lidar(self) -> np.ndarray:
        """(rings, azimuths, 3) float32 m in the frame `lidar`, whose axes are the base's; NaN: no return. The robot
        itself is not in it."""
        found, count = np.zeros(len(self._rays)), len(self._rays)
        place, axes = self.data.site_xpos[self._lidar], self.data.site_xmat[self._lidar].reshape(3, 3)
        mujoco.mj_multiRay(
            self.model, self.data, place.reshape(3, 1), (self._rays @ axes.T).reshape(-1, 1), _GROUPS, True, -1,
            np.zeros((count, 1), np.int32), (out := found.reshape(-1, 1)), None, count, LIDAR_RANGE[1],
        )  # fmt: skip
        rng = np.random.default_rng([self._seed, 23, round(self.time * 1000)])
        ranges = out[:, 0] + rng.normal(size=count) * RANGE_NOISE
        ranges[(out[:, 0] < LIDAR_RANGE[0]) | (out[:, 0] > LIDAR_RANGE[1])] = np.nan
        return (ranges[:, None] * self._rays).astype(np.float32).reshape(len(RINGS), len(AZIMUTHS), 3)

    def imu(self) -> np.ndarray:
        """(6,) angular velocity, rad/s, and linear acceleration, m/s², along the base's axes; at rest the latter is
        9.81 upwards."""
        return np.concatenate([self.data.sensor(name).data for name in ("gyro", "accelerometer")])

    def depth(self, camera: str, width: int, height: int) -> np.ndarray:
        """(height, width) uint16 mm along the camera's axis, 0: no return. Raises InputError as `render` does."""
        if camera not in self.cameras:
            raise InputError(f"camera {camera!r}, expected one of {self.cameras}")
        renderer = self._renderer(width, height)
        renderer.update_scene(self.data, camera)
        renderer.enable_depth_rendering()
        try:
            metres = renderer.render()
        finally:
            renderer.disable_depth_rendering()
        return np.where(metres < _MOST_DEPTH, np.rint(metres * 1000), 0).astype(np.uint16)


def _turned(velocity: np.ndarray, angle: float) -> np.ndarray:
    """(3,) x, y and yaw rate in axes that are turned by `-angle`, rad."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y, turn = velocity
    return np.array([cos * x - sin * y, sin * x + cos * y, turn])
