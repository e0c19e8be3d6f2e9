"""Other people's benchmarks: gymnasium environments, each in a process with the packages that it needs."""

import difflib
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.core import processes
from vla_ros.core.errors import InputError, shown
from vla_ros.sim.benchmark_tasks import LIBERO, METAWORLD

_WORKER = Path(__file__).with_name("environment_worker.py")
_MOVED = 1e-6  # rad or m: a larger change of a command is one


@dataclass(frozen=True)
class Channel:
    """One number of an environment's state and actions: scale * joint + offset, as in a policy file.

    `role`: "velocity" of one that is zero where nothing moves, "measured" of one that the environment takes no command
    for.
    """

    joint: str
    scale: float = 1.0
    offset: float = 0.0
    role: str = "position"


@dataclass(frozen=True)
class Benchmark:
    """An environment that there is an adapter for.

    Attributes:
        family, task: as `environment_worker` knows them.
        requirements: file of `requirements/` with what is to be installed for it.
        robot: name of the robot file.
        rate: steps per second of its simulated time, Hz.
        demonstrated: frames per second of demonstrations, Hz.
        steps: of an episode at most.
        instruction: the task's sentence, for policies that read one.
        channels: of its state and actions, in its order.
        cameras: camera of the robot file -> its picture.
    """

    family: str
    task: str
    requirements: str
    robot: str
    rate: float
    demonstrated: float
    steps: int
    instruction: str
    channels: tuple[Channel, ...]
    cameras: Mapping[str, str]


_ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
_CLOSED, _OPEN = 0.01844, 0.058  # m of a finger where gym-aloha's gripper is 0 and 1
_FINGER = {"scale": 1.0 / (_OPEN - _CLOSED), "offset": -_CLOSED / (_OPEN - _CLOSED)}
_ALOHA = tuple(
    channel
    for side in ("left", "right")
    for channel in (*(Channel(f"{side}_{name}") for name in _ARM), Channel(f"{side}_left_finger", **_FINGER))
)

_MT10 = (
    "reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "drawer-open-v3", "drawer-close-v3",
    "button-press-topdown-v3", "peg-insert-side-v3", "window-open-v3", "window-close-v3",
)  # fmt: skip
_PLACE, _SPEED = ("x", "y", "z"), ("x.vel", "y.vel", "z.vel")
_HAND = (  # commanded by differences
    *(Channel(name, role="measured") for name in _PLACE), Channel("gripper"),
    *(Channel(name, role="velocity") for name in _SPEED),
)  # fmt: skip
_PANDA = (
    *(Channel(name, role="measured") for name in (*_PLACE, "rx", "ry", "rz")), Channel("left_finger"),
    Channel("right_finger", role="measured"),
    *(Channel(name, role="velocity") for name in (*_SPEED, "roll.vel", "pitch.vel", "yaw.vel")),
)  # fmt: skip
_LIBERO_STEPS = {"spatial": 280, "object": 280, "goal": 300, "10": 520, "90": 400}  # LeRobot's, for each suite

BENCHMARKS = {
    "aloha/transfer_cube": Benchmark(
        "aloha", "transfer_cube", "aloha.txt", "aloha_sim", 50.0, 10.0, 400,
        "Pick up the cube with the right arm and transfer it to the left arm.", _ALOHA, {"cam_high": "top"},
    ),
    "aloha/insertion": Benchmark(
        "aloha", "insertion", "aloha.txt", "aloha_sim", 50.0, 10.0, 400, "Insert the peg into the socket.", _ALOHA,
        {"cam_high": "top"},
    ),
    "pusht": Benchmark(
        "pusht", "pusht", "pusht.txt", "pusht", 10.0, 10.0, 300, "Push the T-shaped block onto the T-shaped target.",
        (Channel("x", 1000.0), Channel("y", 1000.0)), {"top": "image"},
    ),
}  # fmt: skip
BENCHMARKS |= {
    f"metaworld/{task}": Benchmark(
        "metaworld", task, "metaworld.txt", "metaworld", 80.0, 20.0, 500, METAWORLD[task],
        tuple(Channel(name) for name in (*_PLACE, "gripper")), {"corner": "corner"},
    ) for task in _MT10
}  # fmt: skip
BENCHMARKS |= {
    f"metaworld_deltas/{task}": Benchmark(
        "metaworld_deltas", task, "metaworld.txt", "metaworld_deltas", 80.0, 80.0, 500, text, _HAND,
        {"corner": "corner"},
    ) for task, text in METAWORLD.items()
}  # fmt: skip
BENCHMARKS |= {
    f"libero/{suite}/{number}": Benchmark(
        "libero", f"{suite}/{number}", "libero.txt", "libero", 20.0, 20.0, _LIBERO_STEPS[suite], text, _PANDA,
        {"image": "agentview", "image2": "robot0_eye_in_hand"},
    ) for suite, texts in LIBERO.items() for number, text in enumerate(texts)
}  # fmt: skip
_FORMS = "aloha/transfer_cube, aloha/insertion, pusht, metaworld/TASK, metaworld_deltas/TASK, libero/SUITE/NUMBER"


def benchmark(name: str) -> Benchmark:
    """Raises InputError that says which there are."""
    if name not in BENCHMARKS:
        near = " or ".join(difflib.get_close_matches(name, BENCHMARKS, 2))
        known = f"{near}; all are {_FORMS}" if near else f"one of {_FORMS}"
        raise InputError(f"environment {shown(name)}, expected {known}; see docs/benchmarks.md")
    return BENCHMARKS[name]


class Environment:
    """A running environment, as a context.

    Args:
        name: one of BENCHMARKS.
        python: interpreter that has its packages; "" for this one.

    Attributes:
        success: of the step before, as the benchmark judges; `success_seen`: of any step since the last reset.
        highest_reward: since the last reset.

    Raises:
        InputError: the interpreter or a package is missing, or the environment refuses.
    """

    def __init__(self, name: str, python: str = "") -> None:
        self.name, self.benchmark = name, benchmark(name)
        python = str(Path(python).expanduser()) if python else sys.executable
        channels = self.benchmark.channels
        self._scale = np.array([channel.scale for channel in channels])
        self._offset = np.array([channel.offset for channel in channels])
        self._measured = np.array([channel.role == "measured" for channel in channels])
        self._velocities = np.array([channel.role == "velocity" for channel in channels])
        try:
            self._process = subprocess.Popen(
                [python, "-P", str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise InputError(f"environment {name}: {python} cannot be started: {error.strerror}") from error
        try:
            answer, _ = self._ask(do="make", family=self.benchmark.family, task=self.benchmark.task)
            if "missing" in answer:
                raise InputError(
                    f"environment {name}: {python} has no module {answer['missing']}, expected an interpreter with "
                    f"what requirements/{self.benchmark.requirements} lists; name it by --env-python"
                )
            if answer["instruction"] not in ("", self.benchmark.instruction):
                raise InputError(
                    f"environment {name}: its package calls the task {shown(answer['instruction'])}, expected "
                    f"{shown(self.benchmark.instruction)}: install what requirements/{self.benchmark.requirements} pins"
                )
        except InputError:
            self.end()
            raise
        self._assets = Path(answer["assets"])

    def __enter__(self) -> "Environment":
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        """End the process."""
        processes.end(self._process, 5.0)

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(channel.joint for channel in self.benchmark.channels)

    def reset(self, seed: int) -> None:
        """A new episode; the same seed gives the same one."""
        self._seed, self._steps = seed, 0
        self._plan: np.ndarray | None = None
        self.highest_reward, self.success_seen = 0.0, False
        self._take(self._ask(do="reset", seed=seed)[0])
        self._held = self.at_rest()

    def step(self, joints: np.ndarray) -> None:
        """One step with targets (J,), rad and m, and velocities.

        Raises InputError for one of a joint that is measured alone, other than where it was at the reset.
        """
        if (moved := self._measured & (np.abs(joints - self._held) > _MOVED)).any():
            raise InputError(
                f"environment {self.name}: joint {self.joint_names[moved.argmax()]} is commanded to move, which is "
                "measured alone; name it in `hold` of the policy file, and command the velocities"
            )
        answer, _ = self._ask(do="step", action=(joints * self._scale + self._offset).tolist())
        self._steps += 1
        self._take(answer)

    def expert(self) -> np.ndarray:
        """(J,) what a scripted expert would command now, rad and m: Meta-World's own, or ours of gym-aloha's cube.

        Raises InputError where there is none.
        """
        if self.benchmark.family.startswith("metaworld"):
            answer, _ = self._ask(do="expert")
            told = (np.array(answer["action"]) - self._offset) / self._scale
            return np.where(self._measured, self._held, told)
        if self.name != "aloha/transfer_cube":
            raise InputError(f"environment {self.name}: no scripted expert; aloha/transfer_cube and metaworld have one")
        if self._plan is None:
            from vla_ros.sim.aloha_expert import AlohaExpert  # MuJoCo, which an evaluation does not need

            self._plan = AlohaExpert(self._assets).plan(self._seed, self._joints)
        return self._plan[min(self._steps, len(self._plan) - 1)]

    def _take(self, answer: Mapping[str, Any]) -> None:
        self._images: dict[str, np.ndarray] = {}  # those of this step, once it was drawn
        self._joints = (np.array(answer["state"]) - self._offset) / self._scale
        self.success = answer["success"]
        self.success_seen |= self.success
        self.highest_reward = max(self.highest_reward, answer["reward"])

    @property
    def time(self) -> float:
        """Simulated time since the last reset, s."""
        return self._steps / self.benchmark.rate

    def joint_positions(self) -> np.ndarray:
        """(J,) rad and m; of a velocity rad/s and m/s."""
        return self._joints.copy()

    def at_rest(self) -> np.ndarray:
        """(J,) what a robot that is to stay is commanded: where it is, and velocities of zero."""
        return np.where(self._velocities, 0.0, self._joints)

    def poses(self) -> dict[str, np.ndarray]:
        """Nothing: where its objects are, an environment does not say."""
        return {}

    def render(self, camera: str, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8. Raises InputError where the environment draws another size."""
        self._images = self._images or self._ask(do="look")[1]
        image = self._images[self.benchmark.cameras[camera]]
        if image.shape != (height, width, 3):
            raise InputError(
                f"camera {camera}: {width}x{height} in the robot file, environment {self.name} draws "
                f"{image.shape[1]}x{image.shape[0]}"
            )
        return image

    def close(self) -> None:
        """Nothing: it draws in its own process, which lives until `end`."""

    def _ask(self, **request: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The answer, and its pictures."""
        process = self._process
        with suppress(OSError):  # it has ended, perhaps after it said something
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise InputError(f"environment {self.name}: its process ended with {process.wait()}; the output of "
                             f"{process.args[0]}, an interpreter of Python, says why")
        try:
            answer = json.loads(line)
            shapes = answer.get("images", {})
            pixels = {name: process.stdout.read(math.prod(shape)) for name, shape in shapes.items()}
            images = {name: np.frombuffer(pixels[name], np.uint8).reshape(shape) for name, shape in shapes.items()}
        except (ValueError, AttributeError):  # it is no interpreter, or was ended in the middle of an image
            raise InputError(f"environment {self.name}: {process.args[0]} answers {shown(line)}, expected a line of "
                             "JSON and the images that it names, from an interpreter of Python") from None
        if "error" in answer:
            raise InputError(f"environment {self.name}: {answer['error']}")
        return answer, images
