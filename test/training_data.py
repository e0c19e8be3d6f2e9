"""A small dataset that a policy can learn."""

from pathlib import Path

import numpy as np

from vla_ros.core.robot import RobotSpec
from vla_ros.datasets.values import DONE, INTERVENTION, SUCCESS
from vla_ros.datasets.writer import DatasetWriter, Outcome

REPOSITORY = Path(__file__).parent.parent


def write_dataset(
    path: Path, episodes: int = 24, seed: int = 0, size: tuple[int, int] = (16, 16), unit=lambda values: values,
    marked: bool = False,
) -> Path:
    """The colour of the pictures says where the joints shall go; `size` is (height, width), `unit` maps (T, 6) rad.

    `marked`: a person commanded from row 8 on, and every second episode failed.
    """
    robot = RobotSpec.load(REPOSITORY / "config/robots/so101.yaml")
    writer = DatasetWriter(path, robot, fps=10, marks=(INTERVENTION, SUCCESS, DONE) if marked else ())
    rng = np.random.default_rng(seed)
    for k in range(episodes):
        length = 12 + k
        colour = rng.integers(0, 256, 3)
        images = np.broadcast_to(colour.astype(np.uint8), (length, *size, 3))
        goal = np.resize(colour, 6) / 255 - 0.5
        states = np.linspace(0, 1, length)[:, None] * goal + rng.normal(scale=0.01, size=(length, 6))
        actions = states + 0.2 * (goal - states)
        rows, failed = np.arange(length), bool(k % 2)
        marks = {INTERVENTION: rows >= 8, SUCCESS: (rows == length - 1) & (not failed), DONE: rows == length - 1}
        outcome = Outcome("failure" if failed else "success", "operator", "slipped" * failed) if marked else Outcome()
        pictures = {"front": images, "wrist": 255 - images}
        writer.add_episode(pictures, unit(states), unit(actions), f"go to {k % 3}", outcome=outcome, marks=marks)
    writer.finish()
    return path
