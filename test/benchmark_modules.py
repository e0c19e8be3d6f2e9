"""Modules that stand for a benchmark's where these are not installed: a disc that goes where it is told, and a hand
that moves by differences."""

from pathlib import Path

GYMNASIUM = '''
import os
import numpy as np

class Env:
    def __init__(self):
        self.unwrapped = self

    def reset(self, seed):
        print("words of the environment that are no answer")
        self.place, self.steps = np.array([100.0 + seed, 200.0]), 0
        return self.seen(), {}

    def step(self, action):
        if action[0] > 500:
            raise ValueError("too far")
        if action[1] > 500:
            os._exit(3)
        self.place, self.steps = self.place + 0.5 * (action - self.place), self.steps + 1
        done = self.steps == 40
        return self.seen(), self.steps / 40, done, False, {"is_success": done}

    def seen(self):
        return {"agent_pos": self.place, "pixels": np.full((96, 96, 3), self.steps, dtype=np.uint8)}

def make(name, obs_type, disable_env_checker):
    assert (name, obs_type) == ("gym_pusht/PushT-v0", "pixels_agent_pos")
    return Env()
'''

# As hf-libero: it asks for a folder where it has no settings, and prints.
LIBERO = {
    "libero/__init__.py": "",
    "libero/libero/__init__.py": '''
import json, os
folder = os.environ.get("LIBERO_CONFIG_PATH", os.path.expanduser("~/.libero"))
if not os.path.exists(os.path.join(folder, "config.yaml")):
    input("Do you want to specify a custom path? (Y/N): ")

def get_libero_path(name):
    with open(os.path.join(folder, "config.yaml")) as file:
        return json.load(file)[name]

def get_assets_path():
    print("words of the package")
    return os.path.join(os.path.dirname(__file__), "assets")
''',
    "libero/libero/benchmark/__init__.py": '''
from types import SimpleNamespace

class Suite:
    def get_task(self, number):
        words = ["pick up the alphabet soup and place it in the basket", "pick up the cheese"]
        return SimpleNamespace(language=words[number], problem_folder="libero_object", bddl_file="soup.bddl")

    def get_task_init_states(self, number):
        return [[0.1], [0.2]]

def get_benchmark(name):
    return {"libero_object": Suite}[name]
''',
    "libero/libero/envs/__init__.py": '''
import sys
from types import SimpleNamespace
import numpy as np

class Data:
    place, turned = np.zeros(3), 0.0

    def __copy__(self):
        there = Data()
        there.place, there.turned = self.place, self.turned
        return there

class OffScreenRenderEnv:
    """Measures before it moves, and copies what it is then to who asked."""

    def __init__(self, bddl_file_name, use_camera_obs):
        assert bddl_file_name.endswith("bddl_files/libero_object/soup.bddl") and not use_camera_obs
        assert sys.stdin.read() == ""
        robot = SimpleNamespace(controller=SimpleNamespace(output_max=np.array([0.05] * 3 + [0.5] * 3)))
        self.env, self.robots, self.sim = self, [robot], SimpleNamespace(render=self.draw)
        self.object_property_initializers = ["of the first scene"]

    def seed(self, seed):
        print("seed", seed)

    def reset(self):
        assert not self.object_property_initializers
        self.object_property_initializers.append("of this one")
        self.sim.data = SimpleNamespace(_data=Data())
        self.told = []

    def modify_observable(self, name, attribute, function):
        assert (name, attribute) == ("robot0_eef_pos", "corrupter")
        self.measured = function

    def set_init_state(self, state):
        self.sim.data._data.place = np.array([state[0], 0.0, 0.0])

    def step(self, action):
        data = self.sim.data._data
        data.place = data.place + 0.0  # a new array
        seen = {"robot0_eef_pos": self.measured(data.place), "robot0_gripper_qpos": np.array([0.03, -0.03]),
                "robot0_eef_quat": np.array([np.sin(data.turned / 2), 0.0, 0.0, np.cos(data.turned / 2)])}
        action = np.clip(action, -1.0, 1.0)
        data.place, data.turned = data.place + 0.05 * action[:3], data.turned + 0.5 * action[3]
        self.robots[0]._hand_total_velocity = 20 * self.robots[0].controller.output_max * action[:6]
        self.told.append(action)
        return seen, float(len(self.told)), False, {}

    def check_success(self):
        return self.sim.data._data.place[2] >= 0.1

    def draw(self, camera_name, width, height):
        image = np.zeros((height, width, 3), np.uint8)
        image[0, 0, 0] = round(1000 * self.sim.data._data.place[2])
        image[0, 0, 1] = {"agentview": 1, "robot0_eye_in_hand": 2}[camera_name]
        image[0, 0, 2] = 1 if self.told[-1][6] < 0 else 0
        return image
''',
    "torch.py": "", "robosuite.py": "", "bddl.py": "",
}


def write(folder: Path) -> Path:
    """To be put on PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gymnasium.py").write_text(GYMNASIUM)
    (folder / "gym_pusht.py").write_text("")
    return folder


def write_libero(folder: Path) -> Path:
    """To be put on PYTHONPATH."""
    for name, text in LIBERO.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "libero" / "libero" / "assets").mkdir()
    return folder
