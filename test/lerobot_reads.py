"""Run by a Python that has LeRobot 0.6.1, not by ours: what it reads of a dataset, and a dataset that it makes of that.

    python lerobot_reads.py DATASET OUTPUT.npz COPY
"""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np


def main(folder, output, copy):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("ours/dataset", root=Path(folder), video_backend="pyav")
    own = ("timestamp", "frame_index", "episode_index", "index", "task_index")  # which every dataset has
    features = {name: row for name, row in dataset.meta.features.items() if name not in own}
    made = LeRobotDataset.create("ours/copy", fps=dataset.meta.fps, features=features, root=Path(copy),
                                 robot_type=dataset.meta.robot_type, video_backend="pyav")  # fmt: skip
    rows, before = {}, 0
    for number in range(len(dataset)):
        row = dataset[number]
        values = {name: np.atleast_1d(row[name].numpy()) for name in features}
        for name in values:
            if "images" in name:
                values[name] = np.round(values[name].transpose(1, 2, 0) * 255).astype(np.uint8)
        if int(row["episode_index"]) != before:
            made.save_episode()
            before = int(row["episode_index"])
        made.add_frame(values | {"task": row["task"]})
        for name, value in (values | {name: row[name].numpy() for name in own} | {"task": row["task"]}).items():
            rows.setdefault(name, []).append(value)
    made.save_episode()
    made.finalize()
    said = {f"statistics/{feature}/{name}": np.asarray(value) for feature, row in dataset.meta.stats.items()
            for name, value in row.items()}  # fmt: skip
    np.savez(output, **{name: np.stack(values) for name, values in rows.items()}, **said)


if __name__ == "__main__":
    main(*sys.argv[1:])
