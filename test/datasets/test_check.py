"""`vla-ros dataset check`: each thing that is wrong is found where it is, and nothing in a dataset that is right."""

import json
import re

import numpy as np
import odd_datasets as odd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training_data import REPOSITORY

from vla_ros.cli.main import main
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.datasets.check import check
from vla_ros.datasets.lerobot import Dataset
from vla_ros.datasets.writer import DatasetWriter, Outcome
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer

ROBOT = RobotSpec.load(REPOSITORY / "config/robots/so101.yaml")
LENGTH = 30


def parts(seed: int):
    """Pictures, states and actions of a motion that the pictures show."""
    rng = np.random.default_rng(seed)
    times = np.linspace(0, 1, LENGTH)[:, None]
    states = 0.5 * np.sin(times * rng.uniform(2, 5, 6) + rng.uniform(0, 6, 6))
    pictures = np.full((LENGTH, 32, 32, 3), 60, np.uint8)
    for t in range(LENGTH):
        pictures[t, 8:16, round(10 + 20 * float(states[t, 0])) :, :] = 200
    return {"front": pictures, "wrist": 255 - pictures}, states, states + 0.02


def unchanged(k, pictures, states, actions):
    pass


def write(path, changed=unchanged, texts=("pick", "place", "pick", "place"), outcomes=""):
    writer = DatasetWriter(path, ROBOT, fps=10)
    for k, text in enumerate(texts):
        pictures, states, actions = parts(k)
        length = changed(k, pictures, states, actions) or LENGTH
        cut = {camera: frames[:length] for camera, frames in pictures.items()}
        writer.add_episode(cut, states[:length], actions[:length], text, outcome=Outcome(outcomes if k == 1 else ""))
    writer.finish()
    return path


def found(path, pictures=True):
    return [(f.level, f.kind, f.episode, f.row, f.text) for f in check(Dataset(path), pictures)]


def test_nothing_is_wrong(tmp_path):
    assert not found(write(tmp_path / "d"))


def test_a_joint_that_settles_does_not_jump(tmp_path):
    def settling(k, pictures, states, actions):
        states[:, 4] = 0.2 + 1e-5 * np.arange(LENGTH)
        states[0, 4] += 0.002 * (k == 2)
        actions[:, 4] = states[:, 4]

    assert not found(write(tmp_path / "d", settling), pictures=False)


def degrees(k, pictures, states, actions):
    states *= 57.3 * 3
    actions *= 57.3 * 3


def jump(k, pictures, states, actions):
    if k == 2:
        states[17:, 3] += 3.0


def constant(k, pictures, states, actions):
    states[:, 4] = actions[:, 4] = 0.2


def short(k, pictures, states, actions):
    return 6 if k == 3 else None


def repeated(k, pictures, states, actions):
    if k == 3:
        _, states[:], actions[:] = parts(0)


def frozen(k, pictures, states, actions):
    if k == 1:
        pictures["wrist"][8:] = pictures["wrist"][8]


def blank(k, pictures, states, actions):
    if k == 1:
        pictures["front"][4:9] = 0


def copied(k, pictures, states, actions):
    actions[:] = states


def differences(k, pictures, states, actions):
    states += 2.0
    actions[:] = 0.01


@pytest.mark.parametrize(("change", "kind", "place", "words"), [
    (degrees, "units", None, "reaches -?[0-9.]+, which cannot be in rad or m; training needs"),
    (jump, "jump", (2, 16), "observation.state of wrist_flex jumps from"),
    (constant, "constant", (None, None), "observation.state and action of wrist_roll never changes"),
    (short, "length", (3, None), "6 rows, the median is 30"),
    (repeated, "repeated", (3, None), "the same states and actions as episode 0"),
    (frozen, "pictures", (1, 8), "wrist: the same image for 22 rows, while joints move"),
    (blank, "pictures", (1, 4), r"front: a blank image, level 0 of 255 \(4 more of the episode\)"),
    (copied, "actions", (None, None), "every action equals the state of its row"),
    (differences, "actions", (None, None), "action of .* from the state, which moves by"),
])  # fmt: skip
def test_what_looks_wrong(tmp_path, change, kind, place, words):
    rows = [row for row in found(write(tmp_path / "d", change)) if not (change is differences and row[1] == "constant")]
    assert rows and {row[:2] for row in rows} == {("warning", kind)}, rows
    assert re.search(words, rows[0][4]) and (place is None or rows[0][2:4] == place), rows


def test_texts_and_outcomes(tmp_path):
    path = write(tmp_path / "d", texts=("Pick up", "pick  up.", " ", "place"), outcomes="failure")
    assert [row[1:] for row in found(path, pictures=False)] == [
        ("outcome", 1, None, "failure: a policy would imitate it all the same"),
        ("instructions", 2, None, "an instruction without words"),
        ("instructions", None, None, "written in several ways: ['Pick up', 'pick  up.']"),
    ]


def rewritten(path, **columns):
    file = next((path / "data").rglob("*.parquet"))
    table = pq.read_table(file)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, file)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """A gap between the rows of episode 1, a late row in episode 3; counts and statistics that are wrong."""
    path = write(tmp_path_factory.mktemp("check") / "d")
    times = np.tile(np.arange(LENGTH) / 10, (4, 1))
    times[1, 20:] += 0.15
    times[3, 7] += 0.02
    index = np.arange(4 * LENGTH)
    index[50] = 3
    rewritten(path, timestamp=times.ravel().astype(np.float32), index=index)
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | {"total_frames": 500}))
    statistics = json.loads((path / "meta/stats.json").read_text())
    statistics["action"]["mean"][2] += 0.5
    statistics["action"]["q99"] = [1, 2]
    del statistics["observation.state"]
    (path / "meta/stats.json").write_text(json.dumps(statistics))
    return path


def test_counts_timestamps_and_statistics(spoilt):
    rows = found(spoilt, pictures=False)
    assert [row[:4] for row in rows] == [
        ("error", "counts", None, None), ("error", "timestamps", 1, 19), ("warning", "counts", 1, 20),
        ("warning", "timestamps", 3, 6), ("warning", "statistics", None, None), ("warning", "statistics", None, None),
    ]  # fmt: skip
    texts = [row[4] for row in rows]
    assert texts[0] == "info.json: total_frames 500, there are 120"
    assert texts[1] == "0.2500 s to the next row, expected 0.1000 at 10 Hz"
    assert texts[3] == "0.1200 s to the next row, expected 0.1000 at 10 Hz (1 more of the episode)"
    assert "action: mean of the file are not those of the rows: mean of elbow_flex is" in texts[4]
    assert "q99 of shape (2,), expected (6,)" in texts[5]


def test_rows_without_a_frame_are_errors(spoilt):
    rows = [row for row in found(spoilt) if row[1] == "pictures"]
    assert {row[:4] for row in rows} == {("error", "pictures", 1, 29), ("error", "pictures", 3, 7)}


def test_the_command(spoilt, tmp_path, capsys):
    assert main(["dataset", "check", str(spoilt), "--json", "--rows-only"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["errors"], said["warnings"]) == (2, 4)
    assert said["findings"][1] == {
        "level": "error", "kind": "timestamps", "episode": 1, "row": 19,
        "text": "0.2500 s to the next row, expected 0.1000 at 10 Hz",
    }  # fmt: skip
    assert main(["dataset", "check", str(spoilt)]) == 1
    assert "6 errors, 4 warnings" in capsys.readouterr().out
    assert main(["dataset", "check", str(write(tmp_path / "d"))]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    (spoilt / "meta/tasks.parquet").rename(spoilt / "meta/tasks.away")
    assert main(["dataset", "check", str(spoilt)]) == 1
    assert "unreadable" in capsys.readouterr().out
    (spoilt / "meta/tasks.away").rename(spoilt / "meta/tasks.parquet")


def test_the_table_stays_short(tmp_path, capsys):
    path = odd.write(tmp_path / "d", lengths=(20,) * 15, columns={"timestamp": np.arange(300).astype(np.float32)})
    assert main(["dataset", "check", str(path), "--rows-only"]) == 1
    out = capsys.readouterr().out
    assert "5 more" in out and "the images were not checked" in out


def test_training_begins_with_it(spoilt, tmp_path):
    config = TrainConfig.load("config/train/act_tiny.yaml", dataset=str(spoilt), output=str(tmp_path / "run"))
    with pytest.raises(InputError, match=r"total_frames 500, there are 120 \(2 errors in all, see vla-ros"):
        Trainer(config)
    assert not (tmp_path / "run").exists()


def test_training_goes_on_with_warnings(tmp_path):
    path = write(tmp_path / "d", outcomes="failure")
    trainer = Trainer(TrainConfig.load("config/train/act_tiny.yaml", dataset=str(path), output=str(tmp_path / "run")))
    assert trainer.warnings == ["outcome: episode 1: failure: a policy would imitate it all the same"]


def test_statistics_of_relative_actions_are_named(tmp_path):
    """LeRobot's `recompute_stats` with `relative_action` counts the rows of all chunks, and writes no other sign."""
    path = write(tmp_path / "d")
    statistics = json.loads((path / "meta/stats.json").read_text())
    statistics["action"] |= {"mean": [0.1] * 6, "count": [1050]}
    (path / "meta/stats.json").write_text(json.dumps(statistics))
    [row] = found(path, pictures=False)
    assert row[:2] == ("warning", "statistics") and "as LeRobot's statistics of relative actions are" in row[4]
