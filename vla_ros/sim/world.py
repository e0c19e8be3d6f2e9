"""The physics: an arm, a table, three cubes and two cameras."""

import os
from collections.abc import Mapping, Sequence

import mujoco
import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.sim.kinematics import inverse
from vla_ros.sim.layout import Layout
from vla_ros.sim.robot import GRIPPER_CLOSED, JOINTS, LOWER, UPPER
from vla_ros.sim.scene import COLOURS, CUBE_HALF, TIMESTEP, scene_xml

CONTROL_PERIOD = 0.01  # s
CAMERAS = ("front", "wrist")
HOME = np.append(inverse(np.array([0.20, 0.0, 0.13]), 0.0), GRIPPER_CLOSED)  # (6,) rad


class World:
    """The simulated robot and its table.

    All randomness comes from the seed of `reset`; the same seed and the same commands give the same run.
    A world renders in the thread that first called `render`.

    Attributes:
        joint_names: the order of every (6,) array here.
        time: simulated time since the last reset, s.
        layout: where the cubes were at the last reset.
    """

    joint_names = JOINTS
    colours = COLOURS
    cameras = CAMERAS
    control_period = CONTROL_PERIOD

    def __init__(self, seed: int = 0, friction: float = 1.0):
        """`friction` is the sliding friction between fingers and cubes (1 is a rubber pad)."""
        self.model = mujoco.MjModel.from_xml_string(scene_xml(friction))
        self.data = mujoco.MjData(self.model)
        model = self.model
        self._qpos = np.array([model.joint(name).qposadr[0] for name in JOINTS])
        self._qvel = np.array([model.joint(name).dofadr[0] for name in JOINTS])
        self._cube_qpos = {colour: int(model.joint(colour).qposadr[0]) for colour in COLOURS}
        self._cube_geom = {int(model.geom(colour).id): colour for colour in COLOURS}
        self._fingers = (int(model.geom("fixed_finger").id), int(model.geom("moving_finger").id))
        self._tip = int(model.site("tip").id)
        self._steps = round(CONTROL_PERIOD / TIMESTEP)
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self.reset(seed)

    def reset(self, seed: int = 0, joints: Sequence[float] | None = None, layout: Layout | None = None) -> None:
        """Put the cubes at the places of `seed` (or of `layout`) and the arm, at rest, at `joints` (6,) rad (home)."""
        self.layout = layout = layout or Layout.random(seed)
        pose = HOME if joints is None else self._checked(joints)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._qpos] = pose
        self.data.ctrl[:] = pose
        for colour, (x, y), yaw in zip(COLOURS, layout.places, layout.yaws, strict=True):
            start = self._cube_qpos[colour]
            self.data.qpos[start : start + 7] = [x, y, CUBE_HALF, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        mujoco.mj_forward(self.model, self.data)

    def step(self, command: Sequence[float]) -> None:
        """Advance one control period (10 ms) with (6,) joint targets, rad; beyond the limits they stop at them.

        Raises InputError for a bad command, RuntimeError when the physics diverged.
        """
        self.data.ctrl[:] = self._checked(command)
        mujoco.mj_step(self.model, self.data, self._steps)
        if not np.isfinite(self.data.qacc).all():
            raise RuntimeError(f"the simulation diverged at {self.time:.2f} s after the command {list(self.data.ctrl)}")

    def _checked(self, command: Sequence[float]) -> np.ndarray:
        command = np.asarray(command, dtype=float)
        if command.shape != (len(JOINTS),) or not np.isfinite(command).all():
            raise InputError(f"joint targets {command}, expected {len(JOINTS)} finite numbers for {JOINTS}")
        return np.clip(command, LOWER, UPPER)

    @property
    def time(self) -> float:
        return float(self.data.time)

    def joint_positions(self) -> np.ndarray:
        """(6,) rad."""
        return self.data.qpos[self._qpos].copy()

    def joint_velocities(self) -> np.ndarray:
        """(6,) rad/s."""
        return self.data.qvel[self._qvel].copy()

    def tip_position(self) -> np.ndarray:
        """(3,) m: the point between the finger tips, in the frame of the base."""
        return self.data.site_xpos[self._tip].copy()

    def cube_positions(self) -> dict[str, np.ndarray]:
        """Colour -> (3,) m, centre of the cube, in the frame of the base."""
        return {colour: pose[:3] for colour, pose in self.cube_poses().items()}

    def cube_yaw(self, colour: str) -> float:
        """Turn of the cube about z, rad, between -pi / 4 and pi / 4 (a quarter turn looks the same)."""
        start = self._cube_qpos[colour]
        w, x, y, z = self.data.qpos[start + 3 : start + 7]
        yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return float((yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4)

    def held_cube(self) -> str | None:
        """Colour of the cube that both fingers touch, if there is one."""
        touched: dict[str, set[int]] = {}
        for contact in self.data.contact[: self.data.ncon]:
            for finger, cube in ((contact.geom1, contact.geom2), (contact.geom2, contact.geom1)):
                if finger in self._fingers and cube in self._cube_geom:
                    touched.setdefault(self._cube_geom[cube], set()).add(int(finger))
        return next((colour for colour, fingers in touched.items() if len(fingers) == 2), None)

    def render(self, camera: str, width: int = 640, height: int = 480) -> np.ndarray:
        """(height, width, 3) uint8 RGB. Raises InputError for an unknown camera, or if nothing can be drawn."""
        if camera not in CAMERAS:
            raise InputError(f"camera {camera!r}, expected one of {CAMERAS}")
        renderer = self._renderers.get((width, height))
        if renderer is None:
            renderer = self._renderers[width, height] = self._new_renderer(width, height)
        renderer.update_scene(self.data, camera)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        for place in (*self.cube_positions().values(), self.tip_position()):
            _add_shade(renderer.scene, place)
        return renderer.render()

    def cube_poses(self) -> dict[str, np.ndarray]:
        """Colour -> (7,): centre, m, and quaternion w, x, y, z, in the frame of the base."""
        return {c: self.data.qpos[start : start + 7].copy() for c, start in self._cube_qpos.items()}

    def place(self, joints: Sequence[float], cubes: Mapping[str, Sequence[float]]) -> None:
        """Take the arm's joint positions (6,) rad and the `cube_poses` of another world; other cubes stay."""
        self.data.qpos[self._qpos] = joints
        for colour, pose in cubes.items():
            start = self._cube_qpos[colour]
            self.data.qpos[start : start + 7] = pose
        mujoco.mj_forward(self.model, self.data)

    def _new_renderer(self, width: int, height: int) -> mujoco.Renderer:
        try:
            return mujoco.Renderer(self.model, height, width)
        except Exception as error:  # of many kinds, one for each way in which a graphics library can be missing
            raise InputError(
                f"no images with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}: {error}; expected EGL (libegl1, "
                "libegl-mesa0, libgl1-mesa-dri) or, with MUJOCO_GL=osmesa, OSMesa (libosmesa6)"
            ) from error

    def pinhole(self, camera: str, width: int = 640, height: int = 480) -> tuple[np.ndarray, np.ndarray]:
        """The model of a camera, without distortion, for images of that size in pixels.

        Returns:
            (3, 3) K, pixels: focal lengths on the diagonal, principal point in the last column.
            (4, 4) from the camera's optical frame (x right, y down, z forwards; REP-103) to the base's, now: the wrist
            camera moves with the arm.
        """
        index = self.model.camera(camera).id
        focal = 0.5 * height / np.tan(np.radians(self.model.cam_fovy[index]) / 2)
        matrix = np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
        mujoco.mj_camlight(self.model, self.data)
        pose = np.eye(4)
        pose[:3, :3] = self.data.cam_xmat[index].reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
        pose[:3, 3] = self.data.cam_xpos[index]
        return matrix, pose

    def close(self) -> None:
        """Free the graphics context, in the thread that rendered."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()


def _add_shade(scene: mujoco.MjvScene, place: np.ndarray) -> None:
    """A soft dark spot on the table under `place` (3,) m, instead of real shadows, which cost most of the frame."""
    height = max(float(place[2]) - CUBE_HALF, 0.0)
    alpha = 0.35 * np.exp(-height / 0.10)
    for radius, share in ((1.25, 0.5), (1.6, 0.5)):
        geom = scene.geoms[scene.ngeom]
        size = np.array([CUBE_HALF * radius * (1 + 3 * height), 0.0001, 0.0])  # radius, half a height
        mujoco.mjv_initGeom(
            geom, mujoco.mjtGeom.mjGEOM_CYLINDER, size, np.array([place[0], place[1], 0.0008 + 0.0001 * radius]),
            np.eye(3).ravel(), np.array([0.05, 0.05, 0.08, alpha * share], dtype=np.float32),
        )
        scene.ngeom += 1
