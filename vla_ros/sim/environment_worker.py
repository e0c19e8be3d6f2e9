"""One gymnasium environment, in a process of its own and with the packages of its own interpreter.

Started as a script by `vla_ros.sim.environments`, which talks to it over its standard input and output: a line of
JSON, then the bytes that the line announces. Nothing of vla_ros is imported here, and no more of a benchmark than the
chosen adapter needs.
"""

import importlib
import json
import os
import sys
from typing import Any, BinaryIO

import numpy as np

_NOTHING = np.zeros((0, 0, 3), dtype=np.uint8)


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
        self._task.get_observation = lambda physics: {"qpos": self._task.get_qpos(physics), "images": {"top": _NOTHING}}

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


ADAPTERS: dict[str, Any] = {"aloha": Aloha, "pusht": PushT}


def answer(env: Any, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """What is said of a running environment: a line, and the pixels behind it."""
    if request["do"] == "look":
        pictures = env.images()
        shapes = {name: list(picture.shape) for name, picture in pictures.items()}
        pixels = (np.ascontiguousarray(picture, dtype=np.uint8).tobytes() for picture in pictures.values())
        return {"images": shapes}, b"".join(pixels)
    reward, success = 0.0, False
    if request["do"] == "reset":
        env.reset(request["seed"])
    else:
        reward, success = env.step(np.asarray(request["action"], dtype=np.float64))
    state = np.asarray(env.state(), dtype=float).tolist()
    return {"state": state, "reward": float(reward), "success": bool(success)}, b""


def missing(family: str) -> str:
    """The first module that is not installed; "" when all are."""
    for module in ADAPTERS[family].modules:
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
        except Exception as error:  # of any kind: foreign code, whose words are what the user needs
            line, more = {"error": f"{type(error).__name__}: {error}"}, b""
        answers.write(json.dumps(line).encode() + b"\n" + more)
        answers.flush()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the environment prints must not come between the answers
    serve(sys.stdin.buffer, answers)
