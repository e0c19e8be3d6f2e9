"""What every simulated robot is: an SO-101, three cubes, cameras, and physics that take a command a period."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from vla_ros.core.errors import InputError
from vla_ros.sim.scene import COLOURS, CUBE_HALF, TIMESTEP
from vla_ros.sim.tasks import Task, parse_instruction
from vla_ros.sim.wordings import WORDINGS, TaskKind, Wordings

CONTROL_PERIOD = 0.01  # s


class Simulated(ABC):
    """A simulated robot and what is around it.

    All randomness comes from the seed of `reset`; the same seed and the same commands give the same run.
    A world renders in the thread that first called `render`.

    Attributes:
        joint_names: the order of every (J,) array here; the arm's six joints come first.
        cameras: names of those that `render` takes.
        scene: its name.
        kinds: tasks that there are for it.
        words: how demonstrations say them.
        colours: of the cubes that there are, in some layout or in all.
        time_limit: s, for a demonstration.
        lower, upper: (J,) of commands, rad, m/s or rad/s.
        shaken: (J,) what a disturbance of 1 rad of the arm's motors is for each joint, in its unit; 0: none.
        sensors: name -> type of the message of each further sensor.
        drawn: those of them that go with the images, at their rate.
        own_poses: those of `poses` that are the robot's own.
        collisions: control periods since the reset in which a robot that drives touched what it may not.
        time: simulated time since the last reset, s.
        layout: where things were at the last reset.
    """

    joint_names: tuple[str, ...]
    cameras: tuple[str, ...]
    scene: str
    kinds: tuple[TaskKind, ...]
    words: Wordings = WORDINGS
    time_limit: float
    lower: np.ndarray
    upper: np.ndarray
    shaken: np.ndarray
    sensors: Mapping[str, str] = {}
    drawn: tuple[str, ...] = ()
    own_poses: tuple[str, ...] = ()
    collisions = 0
    colours: tuple[str, ...] = COLOURS
    control_period = CONTROL_PERIOD

    def __init__(self, xml: str, arm: Sequence[str]) -> None:
        """`arm`: the names of the arm's joints in the model."""
        self._xml = xml
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        model = self.model
        self._qpos = np.array([model.joint(name).qposadr[0] for name in arm])
        self._qvel = np.array([model.joint(name).dofadr[0] for name in arm])
        self._cube_qpos = {colour: int(model.joint(colour).qposadr[0]) for colour in self.colours}
        self._cube_geom = {int(model.geom(colour).id): colour for colour in self.colours}
        self._fingers = (int(model.geom("fixed_finger").id), int(model.geom("moving_finger").id))
        self._tip = int(model.site("tip").id)
        self._steps = round(CONTROL_PERIOD / TIMESTEP)
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}

    @staticmethod
    @abstractmethod
    def random_layout(seed: int) -> Any:
        """The same layout for the same seed."""

    @abstractmethod
    def reset(self, seed: int = 0, joints: Sequence[float] | None = None, layout: Any = None) -> None:
        """Put everything at the places of `seed` (or of `layout`) and the robot, at rest, at `joints` (J,) (home)."""

    @classmethod
    def suited(cls, task: Task, seed: int) -> Task:
        """The task that takes the place of `task` in the layout of `seed`, where not all colours may be."""
        return task

    @classmethod
    def limit(cls, task: Task) -> float:
        """s, for a demonstration of this task."""
        return cls.time_limit

    def understand(self, text: str) -> Task:
        """The task that a sentence asks for. Raises InputError where it is none for this robot, or not now."""
        return parse_instruction(text, self.kinds, self.colours)

    def _begin(self, joints: np.ndarray, places: np.ndarray, yaws: np.ndarray, height: float = 0.0) -> None:
        """All at rest: the arm at (6,) rad, the cubes at (3, 2) m, turned by (3,) rad, on something `height` m high."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._qpos] = self.data.ctrl[: len(joints)] = joints
        for colour, (x, y), yaw in zip(COLOURS, places, yaws, strict=True):
            start = self._cube_qpos[colour]
            self.data.qpos[start : start + 7] = [x, y, height + CUBE_HALF, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]

    def step(self, command: Sequence[float]) -> None:
        """Advance one control period (10 ms) with (J,) targets, rad, of a base m/s and rad/s; beyond the limits they
        stop at them.

        Raises InputError for a bad command, RuntimeError when the physics diverged.
        """
        self.data.ctrl[:] = self._controls(self._checked(command))
        mujoco.mj_step(self.model, self.data, self._steps)
        if not np.isfinite(self.data.qacc).all():
            raise RuntimeError(f"the simulation diverged at {self.time:.2f} s after the command {list(self.data.ctrl)}")

    def shaken_command(self, command: np.ndarray, error: np.ndarray) -> np.ndarray:
        """What the motors make of a command (J,) with a (J,) error, drawn as `shaken` says."""
        return command + error

    def _controls(self, command: np.ndarray) -> np.ndarray:
        """What the motors are told for a command."""
        return command

    def _checked(self, command: Sequence[float]) -> np.ndarray:
        command = np.asarray(command, dtype=float)
        if command.shape != (len(self.joint_names),) or not np.isfinite(command).all():
            raise InputError(
                f"joint targets {command}, expected {len(self.joint_names)} finite numbers for {self.joint_names}"
            )
        return np.clip(command, self.lower, self.upper)

    @property
    def time(self) -> float:
        return float(self.data.time)

    def joint_positions(self) -> np.ndarray:
        """(J,) rad, of a base its velocities, m/s and rad/s."""
        return self.data.qpos[self._qpos].copy()

    def joint_velocities(self) -> np.ndarray:
        """(6,) rad/s, of the arm."""
        return self.data.qvel[self._qvel].copy()

    def base_pose(self) -> np.ndarray | None:
        """(3,) x, y and yaw of a base that drives, in the frame of the world, m and rad; None for one that stands."""
        return None

    def tip_position(self) -> np.ndarray:
        """(3,) m: the point between the finger tips, in the frame of the world, which is that of a base that stands."""
        return self.data.site_xpos[self._tip].copy()

    def cube_positions(self) -> dict[str, np.ndarray]:
        """Colour -> (3,) m, centre of the cube, in the frame of the world."""
        return {colour: self.data.qpos[start : start + 3].copy() for colour, start in self._cube_qpos.items()}

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
        """(height, width, 3) uint8 RGB. Raises InputError for an unknown camera or where nothing can be drawn."""
        if camera not in self.cameras:
            raise InputError(f"camera {camera!r}, expected one of {self.cameras}")
        renderer = self._renderer(width, height)
        renderer.update_scene(self.data, camera)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        for place in self._shading():
            _add_shade(renderer.scene, place)
        return renderer.render()

    def _shading(self) -> list[np.ndarray]:
        """Places, (3,) m, below which the table is darker."""
        return [*self.cube_positions().values(), self.tip_position()]

    def poses(self) -> dict[str, np.ndarray]:
        """Name -> (7,) of all that moves or lies elsewhere in another layout, cubes by their colours: centre, m, and
        quaternion w, x, y, z, in the frame of the world."""
        return {c: self.data.qpos[start : start + 7].copy() for c, start in self._cube_qpos.items()}

    def place(
        self, joints: Sequence[float], poses: Mapping[str, Sequence[float]], time: float | None = None
    ) -> None:
        """Take the joint positions (6,) or (J,), the `poses` and the time, s, of another world; what is in none of them
        stays."""
        self.data.time = self.data.time if time is None else time
        self.data.qpos[self._qpos] = joints[: len(self._qpos)]
        for name, pose in poses.items():
            self._put(name, pose)
        mujoco.mj_forward(self.model, self.data)

    def _put(self, name: str, pose: Sequence[float]) -> None:
        """One of `poses`."""
        start = self._cube_qpos[name]
        self.data.qpos[start : start + 7] = pose

    def _renderer(self, width: int, height: int) -> mujoco.Renderer:
        if (width, height) not in self._renderers:
            self._renderers[width, height] = self._new_renderer(width, height)
        return self._renderers[width, height]

    def _new_renderer(self, width: int, height: int) -> mujoco.Renderer:
        try:
            return mujoco.Renderer(self.model, height, width)
        except Exception as error:  # of many kinds, one for each way in which a graphics library can be missing
            raise InputError(
                f"no pictures through MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}: {error}; expected EGL (libegl1, "
                "libegl-mesa0, libgl1-mesa-dri) or, with MUJOCO_GL=osmesa, OSMesa (libosmesa6)"
            ) from error

    def pinhole(self, camera: str, width: int = 640, height: int = 480) -> tuple[np.ndarray, np.ndarray]:
        """The model of a camera, without distortion, for pictures of that size in pixels.

        Returns:
            (3, 3) K, pixels: focal lengths on the diagonal, principal point in the last column.
            (4, 4) from the camera's optical frame (x right, y down, z forwards; REP-103) to the world's, now: cameras
            on the robot move with it.
        """
        index = self.model.camera(camera).id
        focal = 0.5 * height / np.tan(np.radians(self.model.cam_fovy[index]) / 2)
        matrix = np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])
        mujoco.mj_camlight(self.model, self.data)
        pose = np.eye(4)
        pose[:3, :3] = self.data.cam_xmat[index].reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
        pose[:3, 3] = self.data.cam_xpos[index]
        return matrix, pose

    def textured(self, materials: Sequence[str], size: int) -> dict[str, int]:
        """Give those of the materials that there are a texture each, of `size` x `size` pixels RGB, in their order.
        All is to be reset afterwards.

        Returns name -> number of the material.
        """
        self.close()
        spec = mujoco.MjSpec.from_string(self._xml)
        found = [material for material in spec.materials if material.name in materials]
        for material in found:
            spec.add_texture(
                name=material.name, type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
                width=size, height=size, nchannel=3,
            )  # fmt: skip
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = material.name
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        return {material.name: int(self.model.material(material.name).id) for material in found}

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
