"""Whatever is wrong in the files of a dataset: it is read, or refused in one line that a person can read."""

import json
import shutil

import cv2
import numpy as np
import odd_datasets as odd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_hostile_files import change

from vla_ros.cli.main import main
from vla_ros.core.errors import LONGEST_TEXT, InputError
from vla_ros.datasets.check import check
from vla_ros.datasets.contact_sheet import contact_sheet
from vla_ros.datasets.lerobot import Dataset

TYPES = (
    pa.null(), pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.string(), pa.large_string(),
    pa.binary(), pa.decimal128(20, 3), pa.timestamp("us"), pa.list_(pa.float32()), pa.list_(pa.int64(), 3),
    pa.list_(pa.list_(pa.string())), pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    pa.dictionary(pa.int8(), pa.string()),
)  # fmt: skip
CONTENTS = (
    None, True, 0, 1, -1, 7, 2**31, 2**63 - 1, 0.5, 1e308, float("nan"), float("inf"), "", "x", b"\x89PNG\r\n",
    [], [0.0] * 3, [None] * 3, [1.0, 2.0], [[]], [["x"]], {}, {"bytes": b"x"}, {"bytes": None, "path": None},
)  # fmt: skip
SENSOR = {"subtask_index": {"dtype": "int64", "shape": [1], "names": None},
          "observation.imu": {"dtype": "float32", "shape": [2, 3], "names": None},
          "observation.said": {"dtype": "string", "shape": [1], "names": None},
          "observation.images.depth": {"dtype": "image", "shape": [32, 32, 1], "names": ["height", "width", "channels"],
                                       "info": {"is_depth_map": True}}}  # fmt: skip


def everything(path, tmp_path):
    """All that commands do with a dataset."""
    dataset = Dataset(path)
    for camera in dataset.camera_names:
        dataset.image_size(camera)
        for episode in dataset.episodes:
            dataset.episode_frames(episode, camera)
    for name in dataset.streams:
        dataset.values(name, cache=tmp_path / "cache")
    assert len(dict(dataset.statistics)) >= 2
    check(dataset)
    if dataset.has_subtasks:
        Dataset(path, "subtask")
    contact_sheet(dataset, tmp_path / "sheet.png")


@pytest.fixture(scope="module", params=["v2.1", "v3.0", "sensors"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    if request.param != "sensors":
        path = odd.write(folder / "d", lengths=(3, 2), version=request.param)
    else:
        depth = cv2.imencode(".png", np.full((32, 32), 500, np.uint16))[1].tobytes()
        columns = {"observation.imu": [[[1.0, 2, 3]] * 2] * 5, "observation.said": ["hello"] * 5,
                   "observation.images.depth": [{"bytes": depth, "path": None}] * 5,
                   "subtask_index": [0, 0, 1, 0, 1]}  # fmt: skip
        path = odd.write(folder / "d", lengths=(3, 2), info=SENSOR, columns=columns)
        subtasks = pa.table({"subtask_index": [0, 1], "subtask": ["reach", "lift"]})
        pq.write_table(subtasks, path / "meta/subtasks.parquet")
    statistics = {key: {"mean": [1.0] * 3, "q01": [0.0] * 3, "count": [5]} for key in ("observation.state", "action")}
    (path / "meta/stats.json").write_text(json.dumps(statistics))
    everything(path, folder)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return path


def other_table(file, draw):
    """A table of which one column is spoilt, or its rows."""
    table = pq.read_table(file)
    name = draw(st.sampled_from(table.column_names))
    place, values = table.column_names.index(name), table[name].to_pylist()
    what = draw(st.sampled_from(["drop", "rename", "twice", "rows", "type", "value", "value", "whole column"]))
    if what == "drop":
        return table.drop_columns([name])
    if what == "rename":
        names = list(table.column_names)
        names[place] = draw(st.sampled_from(["x", "action", "episode_index", "", "a.b"]))
        return table.rename_columns(names)
    if what == "twice":
        return table.append_column(name, table[draw(st.sampled_from(table.column_names))])
    if what == "rows":
        return table.take(draw(st.lists(st.integers(0, len(table) - 1), max_size=8)))
    try:
        if what == "type":
            column = table[name].cast(draw(st.sampled_from(TYPES)), safe=False)
        else:
            kind = draw(st.sampled_from([None, table[name].type, *TYPES]))
            value = draw(st.sampled_from(CONTENTS))
            if what == "whole column":
                values = [value] * len(values)
            else:
                values[draw(st.integers(0, len(values) - 1))] = value
            column = pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError, AttributeError):
        assume(False)
    return table.set_column(place, name, column)


def rewrite(file, draw):
    data = file.read_bytes()
    if draw(st.integers(0, 9)) == 0 or file.suffix == ".mp4":
        spoilt = bytearray(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)
        for _ in range(draw(st.integers(0, 20)) if spoilt else 0):
            spoilt[draw(st.integers(0, len(spoilt) - 1))] = draw(st.integers(0, 255))
        file.write_bytes(spoilt)
    elif file.suffix == ".parquet":
        try:
            pq.write_table(other_table(file, draw), file)
        except pa.ArrowException:
            assume(False)
    else:
        content = [json.loads(line) for line in data.splitlines()] if file.suffix == ".jsonl" else json.loads(data)
        change(content, draw)
        lines = map(json.dumps, content) if file.suffix == ".jsonl" else [json.dumps(content)]
        file.write_text("\n".join(lines))


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_it_is_read_or_refused_in_one_line(made, tmp_path_factory, data):
    file = data.draw(st.sampled_from(sorted(made.rglob("*.*"))).filter(lambda file: file.is_file()))
    right, scratch = file.read_bytes(), tmp_path_factory.mktemp("scratch")
    try:
        rewrite(file, data.draw)
        everything(made, scratch)
    except InputError as error:
        assert 0 < len(str(error)) <= LONGEST_TEXT + 10 and "\n" not in str(error)
    finally:
        file.write_bytes(right)
        shutil.rmtree(scratch)


def test_the_commands_refuse_in_one_line(made, capsys):
    file = next((made / "data").rglob("*.parquet"))
    right = file.read_bytes()
    try:
        file.write_bytes(right[:100])
        assert main(["dataset", "check", str(made), "--json"]) == 1
        out = json.loads(capsys.readouterr().out)
        assert [finding["kind"] for finding in out["findings"]] == ["unreadable"]
        assert main(["dataset", "show", str(made), "-o", ""]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    finally:
        file.write_bytes(right)
