"""Modules that stand for gymnasium and gym_pusht where these are not installed: a disc that goes where it is told."""

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


def write(folder: Path) -> Path:
    """To be put on PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gymnasium.py").write_text(GYMNASIUM)
    (folder / "gym_pusht.py").write_text("")
    return folder
