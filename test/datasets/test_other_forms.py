"""Forms of datasets that others write: subtasks, pictures without names, old versions."""

import json
import re

import cv2
import numpy as np
import odd_datasets as odd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vla_ros.cli.main import main as vla_ros
from vla_ros.core.errors import InputError
from vla_ros.datasets.check import check
from vla_ros.datasets.lerobot import Dataset
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer

TEXTS = ["reach", "grasp", "lift"]


def with_subtasks(path, version="v3.0", index=None, numbers=(0, 1, 2), name=None):
    """As LeRobot 0.5.1 has them: the texts are the index of meta/subtasks.parquet, whose name pandas may keep."""
    index = np.repeat([0, 2, 1], [5, 7, 8]) if index is None else index
    number = {"dtype": "int64", "shape": [1], "names": None}
    odd.write(path, version=version, info={"subtask_index": number}, columns={"subtask_index": index})
    table = pa.table({"subtask_index": list(numbers), name or "__index_level_0__": TEXTS[: len(numbers)]})
    pq.write_table(table, path / "meta/subtasks.parquet")
    return path


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("name", [None, "subtask"])
def test_the_instruction_is_the_task_or_the_subtask(tmp_path, version, name):
    path = with_subtasks(tmp_path / "d", version, name=name)
    dataset = Dataset(path)
    assert dataset.has_subtasks and dataset.tasks == ("go",)
    dataset = Dataset(path, "subtask")
    assert dataset.tasks == ("reach", "lift", "grasp")
    assert [dataset.tasks[k] for k in dataset.task_of] == ["reach"] * 5 + ["lift"] * 7 + ["grasp"] * 8
    assert [episode.instructions for episode in dataset.episodes] == [("reach", "lift"), ("grasp",)]
    assert not [finding for finding in check(dataset, pictures=False) if finding.kind in ("instructions", "subtasks")]
    plain = Dataset(odd.write(tmp_path / "plain", version=version))
    assert not plain.has_subtasks
    with pytest.raises(InputError, match="plain: no subtasks, expected a column subtask_index and meta/subtasks"):
        Dataset(plain.path, "subtask")
    with pytest.raises(InputError, match="instruction 'plan', expected one of"):
        Dataset(path, "plan")


def test_a_policy_is_trained_on_subtasks(tmp_path, capsys):
    path = with_subtasks(tmp_path / "d")
    units = [{"joint": name, "scale": 1.0} for name in odd.NAMES]
    settings = TrainConfig.load("config/train/act_tiny.yaml", dataset=str(path), output=str(tmp_path / "run")).to_dict()
    settings |= {"units": units, "held_out": 0.0, "instruction": "subtask"}
    trainer = Trainer(TrainConfig.from_dict(settings))
    told = {trainer.samples.get(np.array([k]))[0].instruction for k in range(20)}
    assert told == {"reach", "lift", "grasp"}
    assert vla_ros(["dataset", "show", str(path), "--output", ""]) == 0
    said = capsys.readouterr().out
    assert "subtasks too" in said and "grasp" not in said
    assert vla_ros(["dataset", "show", str(path), "--output", "", "--instruction", "subtask"]) == 0
    assert "grasp" in capsys.readouterr().out


@pytest.mark.parametrize(("more", "message"), [
    ({"numbers": (0, 1)}, "episode 0, row 5: subtask_index 2, expected one of the table of subtasks: [0, 1]"),
    ({"index": [None] * 20}, "subtask_index: 20 of 20 values are null"),
])  # fmt: skip
def test_subtasks_that_are_wrong_stop_those_who_want_them(tmp_path, more, message):
    path = with_subtasks(tmp_path / "d", **more)
    [finding] = [finding for finding in check(Dataset(path), pictures=False) if finding.kind == "subtasks"]
    assert message in finding.text and finding.level == "warning"
    with pytest.raises(InputError, match=re.escape(message)):
        Dataset(path, "subtask")


def test_language_columns_are_named_and_not_read(tmp_path, capsys):
    """As LeRobot 0.6 writes them: lists of structures."""
    said = [{"role": "user", "content": "reach", "style": "subtask", "timestamp": 0.0, "camera": None}]
    column = {"dtype": "language", "shape": [1], "names": None}
    path = odd.write(tmp_path / "d", info={"language_persistent": column}, columns={"language_persistent": [said] * 20})
    assert Dataset(path).tasks == ("go",) and not check(Dataset(path), pictures=False)[0].kind.startswith("instr")
    assert vla_ros(["dataset", "show", str(path), "--output", ""]) == 0
    assert "not read: language_persistent" in capsys.readouterr().out


@pytest.mark.parametrize(("shape", "names", "size"), [
    ([3, 24, 32], None, (24, 32)), ([24, 32, 3], None, (24, 32)), ([24, 32, 3], [], (24, 32)),
    ([3, 24, 32], ["channels", "height", "width"], (24, 32)), ([32, 24, 3], ["width", "height", "channel"], (24, 32)),
    ([3, 24, 3], None, "without names"), ([24, 32, 5], None, "without names"), ([24, 32], None, "without names"),
    ([3, 24, 32], ["height", "width", "channels"], "expected height, width and channels"),
    ([24, 32, 3], ["height", "width"], "expected height, width and channels"),
])  # fmt: skip
def test_which_side_of_a_picture_is_which(tmp_path, shape, names, size):
    key, picture = "observation.images.wrist", np.full((24, 32, 3), 77, np.uint8)
    rows = [{"bytes": cv2.imencode(".png", picture)[1].tobytes(), "path": None}] * 20
    info = {key: {"dtype": "image", "shape": shape, "names": names}}
    dataset = Dataset(odd.write(tmp_path / "d", info=info, columns={key: rows}))
    if isinstance(size, str):
        with pytest.raises(InputError, match=rf"wrist: .*{re.escape(str(shape))}.*{size}"):
            dataset.image_size("wrist")
    else:
        assert dataset.image_size("wrist") == size
        assert dataset.episode_frames(dataset.episodes[1], "wrist").shape == (8, 24, 32, 3)


@pytest.mark.parametrize(("version", "words"), [
    ("v2.0", "python -m lerobot.datasets.v21.convert_dataset_v20_to_v21 --repo-id OWNER/NAME"),
    ("v1.6", "convert_dataset_v1_to_v2 .*, then v21's"), ("v4.0", "$"),
])  # fmt: skip
def test_an_old_version_is_told_what_converts_it(tmp_path, version, words):
    path = odd.write(tmp_path / "d")
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | {"codebase_version": version}))
    with pytest.raises(InputError, match=f"codebase_version '{version}', expected v2.1 or v3.x.*{words}"):
        Dataset(path)


def test_a_name_that_is_there_twice_is_found(tmp_path):
    vector = {"dtype": "float32", "shape": [3], "names": ["a", "gripper", "gripper"]}
    dataset = Dataset(odd.write(tmp_path / "d", info={"observation.state": vector, "action": vector}))
    [finding] = [finding for finding in check(dataset, pictures=False) if finding.level == "error"]
    assert "observation.state: the names ['gripper'] are there more than once" in finding.text
