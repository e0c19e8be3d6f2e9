"""One gymnasium environment, in a process of its own and with the packages of its own interpreter.

Started as a script by `vla_ros.sim.environments`, which talks to it over its standard input and output: a line of
JSON, then the bytes that the line announces. Nothing of vla_ros is imported here, and no more of a benchmark than the
chosen adapter needs.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
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
        moved = (action[:3] - self._point()) / self.env.action_scale
        told = np.append(moved, 1.0 - 2.0 * action[3] / self._WIDEST)
        self._seen, reward, _, _, info = self.env.step(np.clip(told, -1.0, 1.0))
        return reward, bool(info["success"])

    def state(self) -> np.ndarray:
        return np.append(self._seen[:3], self._WIDEST * self._seen[3])

    def images(self) -> dict[str, np.ndarray]:
        return {"corner": np.flip(self.env.render(), (0, 1))}

    def expert(self) -> np.ndarray:
        """What its scripted expert does next."""
        told = np.clip(self._expert.get_action(self._seen), -1.0, 1.0)
        return np.append(self._point() + self.env.action_scale * told[:3], 0.5 * self._WIDEST * (1.0 - told[3]))

    def _point(self) -> np.ndarray:
        return self.env.data.mocap_pos[0]


ADAPTERS: dict[str, Any] = {"aloha": Aloha, "pusht": PushT, "metaworld": MetaWorld}


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
                line = {"assets": getattr(env, "assets", "")}
        except Exception as error:  # of any kind: foreign code, whose words are what the user needs
            line, more = {"error": f"{type(error).__name__}: {error}"}, b""
        answers.write(json.dumps(line).encode() + b"\n" + more)
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the environment prints must not come between the answers
    serve(sys.stdin.buffer, answers)
