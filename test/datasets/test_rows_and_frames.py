"""Each row has the frame of its time, the instruction of its own number, and joints by their names."""

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import odd_datasets as odd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from families import FAMILIES, INSTRUCTIONS, fresh
from training_data import write_dataset

from vla_ros.core.errors import InputError, shown
from vla_ros.core.stream import JOINT_STATES
from vla_ros.datasets.check import check
from vla_ros.datasets.lerobot import Dataset
from vla_ros.datasets.video import frames_at
from vla_ros.policies.processor import Processor
from vla_ros.training.config import TrainConfig
from vla_ros.training.samples import Samples
from vla_ros.training.trainer import Trainer

VERSIONS = ("v2.1", "v3.0")
TIMES = np.arange(40) / 10


class Reader(Processor):
    """Joints and pictures of one step, a chunk of four rows."""

    joints, cameras, step_dt, horizon = tuple(odd.NAMES), ("front",), 0.1, 4
    inputs = outputs = normalise = None

    def steps(self, training=False):
        return {"front": (0,), JOINT_STATES: (0,)}


Reader.__abstractmethods__ = frozenset()


def frames(path):
    dataset = Dataset(path)
    return [odd.levels(dataset, episode) for episode in dataset.episodes]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("rate", [10, 30, 60])
@pytest.mark.parametrize("options", [{}, {"g": "250", "bf": "3"}], ids=["plain", "reordered"])
def test_a_row_has_the_frame_of_its_time(tmp_path, version, rate, options):
    """A video of several times the rows' rate, too; and one whose only keyframe is the first, of another episode."""
    def film(path, levels):
        odd.video(path, np.repeat(levels, rate // 10), rate, **options)

    assert frames(odd.write(tmp_path / "d", version=version, film=film)) == [list(range(12)), list(range(12, 20))]


def test_every_frame_is_found_wherever_the_index_leads(tmp_path):
    """The keyframes of an open GOP come after frames that are shown before them."""
    settings = {"x265-params": "log-level=none:keyint=7:open-gop=1:bframes=4:b-adapt=0:scenecut=0"}
    odd.video(tmp_path / "x.mp4", odd.LEVEL * np.arange(40), codec="libx265", **settings)
    for first in range(40):
        found = [round(float(image.mean()) / odd.LEVEL) for _, image in frames_at(tmp_path / "x.mp4", TIMES[first:])]
        assert found == list(range(first, 40))


@pytest.mark.parametrize(("rate", "shift"), [(15, 0), (10, 0.01)], ids=["no multiple", "late"])
def test_frames_of_other_times_are_refused(tmp_path, rate, shift):
    def film(path, levels):
        if shift:
            odd.video(path, levels, 1000, times=[100 * k + round(1000 * shift) for k in range(len(levels))])
        else:
            odd.video(path, np.repeat(levels, 2), rate)

    with pytest.raises(InputError, match=r"episode 0, camera front, row \d: video .*mp4 has no frame at 0\.\d000 s,"):
        frames(odd.write(tmp_path / "d", film=film))


@pytest.mark.parametrize("version", VERSIONS)
def test_lost_frames_are_said_by_row(tmp_path, version):
    """The others keep their times, so the rows beside the gap have theirs; none gets one of the next episode."""
    def film(path, levels):
        kept = [k for k in range(len(levels)) if k not in (5, 6)]
        odd.video(path, levels[kept], times=kept)

    dataset = Dataset(odd.write(tmp_path / "d", version=version, film=film))
    with pytest.raises(InputError, match="episode 0, camera front, row 5: .* the nearest are at 0.4000 and 0.7000 s"):
        odd.levels(dataset, dataset.episodes[0])
    found = [finding for finding in check(dataset) if finding.level == "error"]
    assert [(f.kind, f.episode, f.row) for f in found][0] == ("pictures", 0, 5)
    if version == "v3.0":
        assert odd.levels(dataset, dataset.episodes[1]) == list(range(12, 20))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_video_that_ends_early(tmp_path, version):
    path = odd.write(tmp_path / "d", version=version, film=lambda path, levels: odd.video(path, levels[:-3]))
    dataset = Dataset(path)
    with pytest.raises(InputError, match="episode 1, camera front, row 5: .*, and there the video ends"):
        odd.levels(dataset, dataset.episodes[1])


def test_no_frame_of_the_next_episode(tmp_path):
    """Rows that were counted on where the camera's file is that of the next episode already."""
    times = np.r_[np.arange(11), 12, np.arange(8)].astype(np.float32) / 10
    dataset = Dataset(odd.write(tmp_path / "d", columns={"timestamp": times}))
    with pytest.raises(InputError, match="episode 0, camera front, row 11: at 1.2000 s .*, expected 0.0000 to 1.2"):
        odd.levels(dataset, dataset.episodes[0])
    assert odd.levels(dataset, dataset.episodes[1]) == list(range(12, 20))


def test_clips_that_overlap(tmp_path):
    path = odd.write(tmp_path / "d")
    file = path / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    name = f"videos/{odd.KEY}/from_timestamp"
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array([0.0, 1.1])), file)
    with pytest.raises(InputError, match="front: episode 0 is 0 to 1.2 s of file-000.mp4, episode 1 begins at 1.1 s"):
        Dataset(path)


def test_decoded_frames_are_of_the_rows_they_were_decoded_for(tmp_path):
    """Rows with other times, in a file of the same name: the cache is made anew."""
    path = odd.write(tmp_path / "d", lengths=(20,))
    first = Dataset(path).frames("front").copy()
    file = next((path / "data").rglob("*.parquet"))
    table = pq.read_table(file)
    times = pa.array((np.arange(20)[::-1] / 10).astype(np.float32))
    pq.write_table(table.set_column(table.column_names.index("timestamp"), "timestamp", times), file)
    assert np.array_equal(Dataset(path).frames("front"), first[::-1])


def test_pictures_in_the_rows_are_those_of_their_frame(tmp_path):
    """In whatever order a file has its rows."""
    order = np.random.default_rng(0).permutation(20)
    pictures = [cv2.imencode(".png", np.full((32, 32, 3), odd.LEVEL * k, np.uint8))[1].tobytes() for k in range(20)]
    feature = {"dtype": "image", "shape": [32, 32, 3], "names": ["height", "width", "channels"]}
    column = pa.array([{"bytes": picture, "path": None} for picture in pictures])
    path = odd.write(tmp_path / "d", info={odd.KEY: feature}, columns={odd.KEY: column})
    file = next((path / "data").rglob("*.parquet"))
    pq.write_table(pq.read_table(file).take(order), file)
    assert frames(path) == [list(range(12)), list(range(12, 20))]
    assert np.array_equal(Dataset(path).states[:, 0], np.arange(20))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_row_has_its_own_instruction(tmp_path, version):
    tasks = ["open the drawer"] * 5 + ["close it"] * 7 + ["open the drawer"] * 8
    dataset = Dataset(odd.write(tmp_path / "d", version=version, tasks=tasks))
    assert dataset.tasks == ("open the drawer", "close it")
    assert [episode.instructions for episode in dataset.episodes] == [dataset.tasks, ("open the drawer",)]
    samples = Samples(dataset, dataset.episodes, Reader())
    assert [sample.instruction for sample in samples.get(np.arange(20))] == tasks


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_told_the_instruction_of_the_row(two_tasks, tmp_path, family):
    dataset, processor = Dataset(two_tasks), fresh(family).processor
    samples = Samples(dataset, dataset.episodes, processor, tmp_path)
    first, last = samples.get(np.array([0, dataset.episodes[0].length - 1]))
    assert (first.instruction, last.instruction) == INSTRUCTIONS
    last = replace(last, images=first.images, state=first.state)  # which some write into the prompt
    batches = [processor.inputs([sample]) for sample in (first, replace(first, instruction=last.instruction), last)]
    told = [key for key in batches[0] if not torch.equal(batches[0][key], batches[1][key])]
    assert told and all(torch.equal(batches[1][key], batches[2][key]) for key in told)


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory):
    """The instruction changes in the last third of the first episode."""
    path = write_dataset(tmp_path_factory.mktemp("tasks") / "d", episodes=3)
    file = next((path / "data").rglob("*.parquet"))
    table = pq.read_table(file)
    numbers = table["task_index"].to_numpy().copy()
    numbers[8:12] = 1
    pq.write_table(table.set_column(table.column_names.index("task_index"), "task_index", pa.array(numbers)), file)
    pq.write_table(pa.table({"task_index": [0, 1, 2], "task": [*INSTRUCTIONS, "x"]}), path / "meta/tasks.parquet")
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_a_task_that_no_table_has(tmp_path, version):
    numbers = [0] * 14 + [7] + [0] * 5
    path = odd.write(tmp_path / "d", version=version, columns={"task_index": numbers})
    with pytest.raises(InputError, match=r"episode 1, row 2: task_index 7, expected one of the table of tasks: \[0\]"):
        Dataset(path)


def test_tasks_of_a_table_without_a_name_for_its_texts(tmp_path):
    """As pandas stores an index that has none; LeRobot before 0.6."""
    path = odd.write(tmp_path / "d", tasks=["a"] * 12 + ["b"] * 8)
    pq.write_table(pa.table({"task_index": [1, 0], "__index_level_0__": ["b", "a"]}), path / "meta/tasks.parquet")
    assert [episode.instruction for episode in Dataset(path).episodes] == ["a", "b"]


def test_actions_are_sorted_by_their_names(tmp_path):
    actions = [np.array([2, 0, 1], np.float32)] * 20  # of c, a, b
    changes = {"action": {"dtype": "float32", "shape": [3], "names": ["c.pos", "a.pos", "b.pos"]}}
    dataset = Dataset(odd.write(tmp_path / "d", info=changes, columns={"action": actions}))
    assert dataset.joint_names == dataset.action_names == ("a", "b", "c")
    assert dataset.actions[3].tolist() == [0, 1, 2] and dataset.statistics["action"]["mean"].tolist() == [0, 1, 2]
    actions[4] = np.array([0, np.nan, 0], np.float32)
    with pytest.raises(InputError, match="episode 0, frame 4: action of joint a is nan"):
        Dataset(odd.write(tmp_path / "nan", info=changes, columns={"action": actions}))


@pytest.mark.parametrize(("state", "action", "expected"), [
    (["a.pos", "b.pos", "x.vel"], None, (("a", "b", "x.vel"),) * 2),
    (None, {"motors": ["a", "b", "c"]}, (("a", "b", "c"),) * 2),
    ({"x": 1, "y": 0, "z": 2}, None, (("y", "x", "z"),) * 2),
    (["a.pos", "a", "b"], None, (("a.pos", "a", "b"),) * 2),
    (["x", "g", "g"], None, (("x", "g", "g"),) * 2),
    (None, None, (("joint_0", "joint_1", "joint_2"),) * 2),
    (["a", "b", "c"], ["a", "b", "d"], (("a", "b", "c"), ("a", "b", "d"))),
    ({"right": ["r.pos", "s.pos"], "left": ["l.pos"]}, {"left": ["l"], "right": ["r", "s"]}, (("r", "s", "l"),) * 2),
    ({"arm": {"motors": {"b": 1, "a": 0}}, "hand": {"g": 0}}, None, (("a", "b", "g"),) * 2),
    (["state"], {"motors": ["a", "b", "c"], "more": None}, (("a", "b", "c"),) * 2),
    (["state"], ["action"], (("joint_0", "joint_1", "joint_2"),) * 2),
    ({"motors": ["motors"]}, {"motors": 0}, (("joint_0", "joint_1", "joint_2"),) * 2),
    ([], {}, (("joint_0", "joint_1", "joint_2"),) * 2),
])  # fmt: skip
def test_names(tmp_path, state, action, expected):
    vector = {"dtype": "float32", "shape": [3]}
    changes = {"observation.state": vector | {"names": state}, "action": vector | {"names": action}}
    dataset = Dataset(odd.write(tmp_path / "d", info=changes))
    assert (dataset.joint_names, dataset.action_names) == expected


@pytest.mark.parametrize("names", [
    ["a", "b"], {"right": ["a", "b"], "left": ["c", "d"]}, {"motors": ["a", "b"]}, {"a": 0, "b": 1},
    {"a": 0, "b": 0, "c": 1}, {"right": {"a": 1, "b": 2}, "left": {"c": 0}}, {"a": 0, "b": ["c", "d"]},
    "abc", 3, {"a": 0.5},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("key", ["observation.state", "action"])
def test_names_that_do_not_fit(tmp_path, key, names):
    vector = {"dtype": "float32", "shape": [3], "names": ["a", "b", "c"]}
    changes = {"observation.state": vector, "action": vector, key: vector | {"names": names}}
    said = re.escape(f"{key}: names {shown(names)} of shape [3], expected 3 names, or null; correct meta/info.json")
    with pytest.raises(InputError, match=said):
        Dataset(odd.write(tmp_path / "d", info=changes))


def test_one_joint_is_a_plain_number(tmp_path, capsys):
    vector = {"dtype": "float32", "shape": [1], "names": ["slide"]}
    values = np.arange(20, dtype=np.float32)
    path = odd.write(tmp_path / "d", info={"observation.state": vector, "action": vector},
                     columns={"observation.state": values, "action": values + 1})
    dataset = Dataset(path)
    assert np.array_equal(dataset.states, values[:, None]) and np.array_equal(dataset.actions, values[:, None] + 1)


def test_states_and_actions_of_other_sizes(tmp_path):
    """Read as they are; for training each action is of a joint of the states."""
    state = {"dtype": "float32", "shape": [4], "names": ["x", "y", "gripper", "gripper"]}
    action = {"dtype": "float32", "shape": [3], "names": ["x", "y", "gripper"]}
    columns = {"observation.state": [np.arange(4, dtype=np.float32) + k for k in range(20)]}
    path = odd.write(tmp_path / "d", info={"observation.state": state, "action": action}, columns=columns)
    dataset = Dataset(path)
    assert dataset.states.shape == (20, 4) and dataset.actions.shape == (20, 3)
    assert dataset.statistics["observation.state"]["q50"].shape == (4,)
    refused = re.escape("observation.state: the names ['gripper'] are there more than once in ['x', 'y', 'gripper'")
    with pytest.raises(InputError, match=refused):
        Samples(dataset, dataset.episodes, Reader())
    with pytest.raises(InputError, match=refused):
        Trainer(TrainConfig.load("config/train/act_tiny.yaml", dataset=str(path), output=str(tmp_path / "run")))


@pytest.mark.parametrize(("columns", "words"), [
    ({"frame_index": np.r_[0:12, 0:7, 6]}, "episode 1 has no row 7, 1 of 20 are missing"),
    ({"frame_index": np.r_[0:12, 0:8] + 1}, "more rows than the table"),
    ({"episode_index": np.repeat([0, 3], [12, 8])}, r"rows of episodes \[3\], which the table of episodes lacks"),
    ({"timestamp": None}, r"no column \['timestamp'\]"),
    ({"timestamp": ["0"] * 20}, "timestamp: values of string, expected 'float64'"),
    ({"timestamp": np.r_[0:19, np.nan].astype(np.float32)}, "episode 1, frame 7: timestamp of value .* is nan"),
    ({"task_index": [None] * 20}, "task_index: 20 of 20 values are null"),
    ({"task_index": [0.5] * 20}, "task_index: values of double that are not 'int64'"),
])  # fmt: skip
def test_rows_that_do_not_fit(tmp_path, columns, words):
    with pytest.raises(InputError, match=words):
        Dataset(odd.write(tmp_path / "d", columns=columns))


def test_a_row_twice(tmp_path):
    path = odd.write(tmp_path / "d")
    file = next((path / "data").rglob("*.parquet"))
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table, table.slice(14, 1)]), file)
    with pytest.raises(InputError, match="episode 1 has more than one row 2, 21 in all, expected 20"):
        Dataset(path)


def test_what_other_programs_add(tmp_path):
    """Fields and columns that no policy here reads: tools, subtasks, language of LeRobot 0.6."""
    rows = pa.array([[{"role": "user", "content": "go", "style": "subtask"}]] * 20)
    changes = {"language_persistent": {"dtype": "language", "shape": [1], "names": None},
               "subtask_index": {"dtype": "int64", "shape": [1], "names": None}}  # fmt: skip
    path = odd.write(tmp_path / "d", info=changes, columns={"language_persistent": rows, "subtask_index": [0] * 20})
    file = path / "meta/info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tools": [{"name": "x"}], "unknown": {"a": 1}}))
    assert not Dataset(path).streams
    assert not [finding for finding in check(Dataset(path)) if finding.kind != "units"]


def test_depth_in_another_unit(tmp_path):
    feature = {"dtype": "image", "shape": [32, 32, 1], "names": ["height", "width", "channels"],
               "info": {"is_depth_map": True, "depth_unit": "m"}}  # fmt: skip
    dataset = Dataset(odd.write(tmp_path / "d", info={odd.KEY: feature}))
    assert dataset.unreadable == {"front": "depth as images in 'm', expected mm"}
