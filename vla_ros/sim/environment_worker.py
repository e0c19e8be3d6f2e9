"""One gymnasium environment, in a process of its own and with the packages of its own interpreter.

Started as a script by `vla_ros.sim.environments`, which talks to it over its standard input and output: a line of
JSON, then the bytes that the line announces. The environment itself has neither: what it prints goes to standard error,
and what it asks for has no answer. Nothing of vla_ros is imported here, and no more of a benchmark than the chosen
adapter needs.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import signal
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

try:
    import numpy as np
except ModuleNotFoundError:  # an interpreter without packages, which `missing` names
    np = None  # type: ignore[assignment]


class Aloha:
    """gym-aloha: two arms, joint positions in rad, grippers from 0 (closed) to 1 (open).

    It draws three cameras at every step. Here it draws the one that its observation has, when that is asked for: the
    physics are the same, and a step takes a tenth of the time.
    """

    modules = ("gymnasium", "gym_aloha")

    def __init__(self, task: str) -> None:
        ids = {"transfer_cube": "AlohaTransferCube-v0", "insertion": "AlohaInsertion-v0"}
        make = importlib.import_module("gymnasium").make
        self.env = make(f"gym_aloha/{ids[task]}", obs_type="pixels_agent_pos", disable_env_checker=True).unwrapped
        self._physics, self._task = self.env._env.physics, self.env._env.task
        self.assets = str(importlib.import_module("gym_aloha.constants").ASSETS_DIR)
        images = {"top": np.zeros((0, 0, 3), dtype=np.uint8)}
        self._task.get_observation = lambda physics: {"qpos": self._task.get_qpos(physics), "images": images}

    def reset(self, seed: int) -> None:
        self.env.reset(seed=seed)

    def step(self, action: np.ndarray) -> tuple[float, bool]:
        _, reward, _, _, info = self.env.step(action)
        return reward, info["is_success"]

    def state(self) -> np.ndarray:
        return self._task.get_qpos(self._physics)

    def images(self) -> dict[str, np.ndarray]:
        return {"top": self._physics.render(height=480, width=640, camera_id="top")}


class PushT:
    """gym-pusht: a disc in a plane of 512 x 512 units, commanded to a place."""

    modules = ("gymnasium", "gym_pusht")

    def __init__(self, task: str) -> None:
        make = importlib.import_module("gymnasium").make
        self.env = make("gym_pusht/PushT-v0", obs_type="pixels_agent_pos", disable_env_checker=True).unwrapped

    def reset(self, seed: int) -> None:
        self._seen, _ = self.env.reset(seed=seed)

    def step(self, action: np.ndarray) -> tuple[float, bool]:
        self._seen, reward, _, _, info = self.env.step(action)
        return reward, info["is_success"]

    def state(self) -> np.ndarray:
        return self._seen["agent_pos"]

    def images(self) -> dict[str, np.ndarray]:
        return {"image": self._seen["pixels"]}


class MetaWorld:
    """Meta-World: the hand of a Sawyer, dragged by a point in space; x, y, z and opening in m.

    Its actions move that point by up to a centimetre for each axis, and pull the fingers with an effort from -1 (open)
    to 1 (shut). Here the place of the point is commanded, and an opening that stands for the effort. The camera is
    that of LeRobot's environment of the same tasks.
    """

    modules = ("metaworld", "packaging")
    _WIDEST = 0.1  # m, opening that its observation calls 1

    def __init__(self, task: str) -> None:
        benchmark = importlib.import_module("metaworld").MT1(task, seed=42)
        self.env = benchmark.train_classes[task](render_mode="rgb_array", camera_name="corner2")
        self.env.set_task(benchmark.train_tasks[0])
        self.env.model.cam_pos[2] = [0.75, 0.075, 0.7]
        self.env.reset()
        self.env._freeze_rand_vec, self.env.seeded_rand_vec = False, True
        self._expert = importlib.import_module("metaworld.policies").ENV_POLICY_MAP[task]()

    def reset(self, seed: int) -> None:
        self.env.seed(seed)  # `reset` ignores one
        self._seen, _ = self.env.reset()

    def step(self, action: np.ndarray) -> tuple[float, bool]:
        return self._step((action[:3] - self._point()) / self.env.action_scale, action[3])

    def _step(self, moved: np.ndarray, opening: float) -> tuple[float, bool]:
        told = np.append(moved, 1.0 - 2.0 * opening / self._WIDEST)
        self._seen, reward, _, _, info = self.env.step(np.clip(told, -1.0, 1.0))
        return reward, bool(info["success"])

    def state(self) -> np.ndarray:
        return np.append(self._seen[:3], self._WIDEST * self._seen[3])

    def images(self) -> dict[str, np.ndarray]:
        return {"corner": np.flip(self.env.render(), (0, 1))}

    def expert(self) -> np.ndarray:
        """What its scripted expert does next."""
        moved, opening = self._told()
        return np.append(self._point() + self.env.action_scale * moved, opening)

    def _told(self) -> tuple[np.ndarray, float]:
        """The expert's (3,) differences, -1 to 1, and opening, m."""
        told = np.clip(self._expert.get_action(self._seen), -1.0, 1.0)
        return told[:3], 0.5 * self._WIDEST * (1.0 - told[3])

    def _point(self) -> np.ndarray:
        return self.env.data.mocap_pos[0]


class MetaWorldDeltas(MetaWorld):
    """The same, commanded as it is made: by differences, given as velocities in m/s over a step. x, y, z, opening in m,
    then the velocities; the first three are measured alone.
    """

    _RATE = 80.0  # steps per second

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._before = self._seen[:3]

    def step(self, action: np.ndarray) -> tuple[float, bool]:
        self._before = self._seen[:3]
        return self._step(action[4:] / self._fastest(), action[3])

    def state(self) -> np.ndarray:
        return np.append(super().state(), (self._seen[:3] - self._before) * self._RATE)

    def expert(self) -> np.ndarray:
        moved, opening = self._told()
        return np.concatenate([self._seen[:3], [opening], moved * self._fastest()])

    def _fastest(self) -> float:
        """m/s that an action of 1 stands for."""
        return self.env.action_scale * self._RATE


class Libero:
    """LIBERO: a Panda whose hand robosuite's controller moves by differences of its pose, in the axes of the world,
    given here as velocities in m/s and rad/s over a step.

    State and actions: place of the hand in m, its rotation as axis times angle in rad, the two fingers in m, then
    velocities. Of the first eight only the left finger is commanded; from 0 to 0.04 it stands for the gripper's action
    from 1 (shut) to -1 (open). Each of a task's 50 initial states is followed by ten steps of rest, and pictures are
    turned by half a turn, both as LeRobot and openpi do, whose policies have seen it so.

    robosuite measures and draws near the beginning of a step. Here it is drawn when that is asked for, but as the
    simulation was at that instant.
    """

    modules = ("torch", "robosuite", "bddl", "libero")
    _RATE, _SIZE, _REST, _OPEN = 20.0, 256, 10, 0.04

    def __init__(self, task: str) -> None:
        with tempfile.TemporaryDirectory(prefix="vla_ros_libero_") as folder:
            self._configure(Path(folder))
            self._make(*task.split("/"))

    def _configure(self, folder: Path) -> None:
        """The settings that the package would ask for when it is imported for the first time: its own folders."""
        there = Path(os.environ.get("LIBERO_CONFIG_PATH", "~/.libero")).expanduser()
        if (there / "config.yaml").exists():
            return
        root = Path(find_spec("libero.libero").origin).parent
        names = {"benchmark_root": ".", "bddl_files": "bddl_files", "init_states": "init_files", "assets": "assets"}
        settings = {name: str(root / place) for name, place in names.items()}
        (folder / "config.yaml").write_text(json.dumps(settings))
        os.environ["LIBERO_CONFIG_PATH"] = str(folder)

    def _make(self, suite: str, number: str) -> None:
        library = importlib.import_module("libero.libero")
        assets = library.get_assets_path()
        if not os.path.isdir(assets):
            raise FileNotFoundError(
                f"no assets at {assets}, and they could not be fetched from huggingface.co (data set "
                "lerobot/libero-assets); expected a network, or a copy of them in that folder"
            )
        found = importlib.import_module("libero.libero.benchmark").get_benchmark(f"libero_{suite}")()
        about = found.get_task(int(number))
        self.instruction = about.language
        self._states = found.get_task_init_states(int(number))
        scene = os.path.join(library.get_libero_path("bddl_files"), about.problem_folder, about.bddl_file)
        made = importlib.import_module("libero.libero.envs").OffScreenRenderEnv
        self.env = made(bddl_file_name=scene, use_camera_obs=False)

    def reset(self, seed: int) -> None:
        self.env.env.object_property_initializers.clear()  # it adds to them, and draws from those of every scene so far
        self.env.seed(seed)
        self.env.reset()
        self.env.env.modify_observable("robot0_eef_pos", "corrupter", self._remember)  # called at each measurement
        self.env.set_init_state(self._states[seed % len(self._states)])
        self._fastest = np.asarray(self.env.robots[0].controller.output_max) * self._RATE
        for _ in range(self._REST):
            self._seen, *_ = self.env.step([0.0] * 6 + [-1.0])

    def _remember(self, place: np.ndarray) -> np.ndarray:
        self._measured = copy.copy(self.env.sim.data._data)
        return place

    def step(self, action: np.ndarray) -> tuple[float, bool]:
        told = np.append(action[8:] / self._fastest, 1.0 - 2.0 * action[6] / self._OPEN)
        self._seen, reward, _, _ = self.env.step(told)
        return reward, self.env.check_success()

    def state(self) -> np.ndarray:
        seen, robot = self._seen, self.env.robots[0]
        fingers, moving = seen["robot0_gripper_qpos"], robot._hand_total_velocity
        return np.concatenate([seen["robot0_eef_pos"], rotation_vector(seen["robot0_eef_quat"]), fingers, moving])

    def images(self) -> dict[str, np.ndarray]:
        cameras, size = ("agentview", "robot0_eye_in_hand"), self._SIZE
        simulation = self.env.sim
        now, simulation.data._data = simulation.data._data, self._measured
        try:
            draw = simulation.render
            return {name: draw(camera_name=name, width=size, height=size)[::-1, ::-1] for name in cameras}
        finally:
            simulation.data._data = now


def rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    """(3,) axis times angle from 0 to 2 pi, rad, of (4,) x, y, z, w: a negative w is not made positive."""
    w = np.clip(quaternion[3], -1.0, 1.0)
    sine = np.sqrt(1.0 - w * w)
    return np.zeros(3) if sine < 1e-10 else quaternion[:3] * 2.0 * np.arccos(w) / sine


ADAPTERS: dict[str, Any] = {
    "aloha": Aloha, "pusht": PushT, "metaworld": MetaWorld, "metaworld_deltas": MetaWorldDeltas, "libero": Libero,
}  # fmt: skip


def answer(env: Any, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """What is said of a running environment: a line, and the pixels behind it."""
    if request["do"] == "look":
        pictures = env.images()
        shapes = {name: list(picture.shape) for name, picture in pictures.items()}
        pixels = (np.ascontiguousarray(picture, dtype=np.uint8).tobytes() for picture in pictures.values())
        return {"images": shapes}, b"".join(pixels)
    if request["do"] == "expert":
        return {"action": np.asarray(env.expert(), dtype=float).tolist()}, b""
    reward, success = 0.0, False
    if request["do"] == "reset":
        env.reset(request["seed"])
    else:
        reward, success = env.step(np.asarray(request["action"], dtype=np.float64))
    state = np.asarray(env.state(), dtype=float).tolist()
    return {"state": state, "reward": float(reward), "success": bool(success)}, b""


def missing(family: str) -> str:
    """The first module that is not installed; "" when all are."""
    for module in ("numpy", *ADAPTERS[family].modules):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            return str(error.name)
    return ""


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    env: Any = None
    for request in map(json.loads, requests):
        line: dict[str, Any] = {}
        more = b""
        try:
            if request["do"] != "make":
                line, more = answer(env, request)
            elif lacking := missing(request["family"]):
                line = {"missing": lacking}
            else:
                env = ADAPTERS[request["family"]](request["task"])
                line = {"assets": getattr(env, "assets", ""), "instruction": getattr(env, "instruction", "")}
        except Exception as error:  # of any kind: foreign code, whose words are what the user needs
            line, more = {"error": f"{type(error).__name__}: {error}"}, b""
        answers.write(json.dumps(line).encode() + b"\n" + more)
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends this process
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what the environment asks must not be answered by a request
    os.dup2(2, 1)  # what it prints must not come between the answers
    with suppress(BrokenPipeError):  # the command has gone
        serve(requests, answers)
    os._exit(0)  # robosuite prints tracebacks if its renderer is taken down after OpenGL
