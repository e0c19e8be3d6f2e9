"""Datasets whose files say more than they hold, or lead elsewhere."""

import json
import os
import resource
import zipfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training_data import write_dataset

from vla_ros.core.errors import InputError
from vla_ros.datasets import parquet, values
from vla_ros.datasets.lerobot import Dataset
from vla_ros.datasets.parquet import read_rows
from vla_ros.datasets.values import ONCE_FILE


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset") / "d", episodes=2)


@pytest.fixture
def dataset(written, tmp_path):
    """A copy whose files are those of the first but for what a test replaces."""
    for file in written.rglob("*"):
        if file.is_file():
            target = tmp_path / file.relative_to(written)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, target)
    return tmp_path


def replace(file, text):
    file.unlink(missing_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(("field", "value", "words"), [
    ("data_path", "{chunk_index.__class__}", "expected fields of"),
    ("data_path", "{0}", r"'\{0\}', expected fields of"),
    ("data_path", "{chunk_index:999999999}", "expected fields of"),
    ("data_path", "{chunk_index!r}", "expected fields of"),
    ("data_path", "{nope}", "expected fields of"),
    ("data_path", "../data", "'../data', expected a path inside"),
    ("data_path", "/etc/passwd", "expected a path inside"),
    ("video_path", "{video_key:03d}/x", "expected fields of"),
    ("video_path", None, "video_path: None, expected a string"),
    ("fps", 0, "fps: 0.0, expected 0.001 to 10000"),
    ("fps", float("nan"), "expected a finite number"),
    ("features", [1], r"features: \[1\], expected a mapping"),
])
def test_what_info_says(dataset, field, value, words):
    info = json.loads((dataset / "meta/info.json").read_text())
    replace(dataset / "meta/info.json", json.dumps(info | {field: value}))
    with pytest.raises(InputError, match=words) as error:
        Dataset(dataset)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("key", "changes", "words"), [
    ("observation.images.../../../x", {}, "expected a path inside"),
    ("observation.images.front", {"shape": [10**9, 10**9, 3]}, "expected 1 to 10000000"),
    ("observation.images.front", {"shape": [10**6, 10**6, 3]}, "expected at most"),
    ("action", {"shape": "x"}, "'x', expected a list"),
    ("action", {"shape": []}, "expected one size"),
])
def test_what_features_say(dataset, key, changes, words):
    info = json.loads((dataset / "meta/info.json").read_text())
    row = info["features"].get(key, info["features"]["observation.images.front"])
    info["features"][key] = row | changes
    replace(dataset / "meta/info.json", json.dumps(info))
    with pytest.raises(InputError, match=words):
        Dataset(dataset)


@pytest.mark.parametrize(("changes", "words"), [
    ({"length": 10**8}, "rows, .* are missing"), ({"length": -4}, "length: -4, expected 1 to"),
    ({"length": "x"}, "length: '12', expected an integer"),
    ({"dataset_from_index": 5}, "begins at frame 5, expected 12"),
    ({"data/file_index": -1}, "data/file_index: -1, expected 0 to"),
])  # fmt: skip
def test_what_the_table_of_episodes_says(dataset, changes, words):
    file = dataset / "meta/episodes/chunk-000/file-000.parquet"
    *rows, last = pq.read_table(file).to_pylist()
    file.unlink()
    last = last | changes
    columns = {name: [row[name] for row in (*rows, last)] for name in last}
    if isinstance(last["length"], str):
        columns["length"] = list(map(str, columns["length"]))
    pq.write_table(pa.table(columns), file)
    with pytest.raises(InputError, match=words):
        Dataset(dataset)


def test_a_date_that_no_calendar_has(dataset):
    file = dataset / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    file.unlink()
    dates = pa.array([2**63 - 1] * len(table), pa.timestamp("us"))
    pq.write_table(table.set_column(table.column_names.index("length"), "length", dates), file)
    with pytest.raises(InputError, match="file-000.parquet: cannot be read as parquet: date value out of range"):
        Dataset(dataset)


def test_a_few_bytes_of_very_many_rows(dataset, monkeypatch):
    monkeypatch.setattr(parquet, "MOST_VALUES", 1 << 21)
    file = next((dataset / "data").rglob("*.parquet"))
    file.unlink()
    zeros = pa.array(np.zeros(1 << 20, np.int64))
    with pq.ParquetWriter(file, pa.schema({"episode_index": pa.int64()})) as writer:
        for _ in range(3):
            writer.write_table(pa.table({"episode_index": zeros}))
    assert file.stat().st_size < 1e5
    with pytest.raises(InputError, match="3145728 rows, .* expected at most 2097152"):
        Dataset(dataset)


def test_an_archive_that_unpacks_to_very_much(dataset, monkeypatch):
    monkeypatch.setattr(values, "MOST_ONCE", 1 << 20)
    with zipfile.ZipFile(dataset / "meta" / ONCE_FILE, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as member:
            member.write(bytes(1 << 21))
    with pytest.raises(InputError, match="2097152 bytes unpacked, expected at most"):
        Dataset(dataset)


@pytest.mark.parametrize("name", ["meta/info.json", "meta/stats.json", "meta/episodes/chunk-000/file-000.parquet"])
def test_a_pipe_blocks_nobody(dataset, name):
    (dataset / name).unlink()
    os.mkfifo(dataset / name)
    with pytest.raises(InputError, match="not a regular file|incomplete"):
        Dataset(dataset)


def repeated(value: bytes, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


def write_compressed(file, table):
    """In a few kB, with each value that rows repeat in it once."""
    file.unlink(missing_ok=True)
    pq.write_table(table, file, compression="zstd", store_schema=False, dictionary_pagesize_limit=1 << 30)
    assert file.stat().st_size < 100_000


def test_one_large_image_in_very_many_rows(tmp_path):
    """It is in memory once, and decoded as often as it is asked for."""
    png = cv2.imencode(".png", np.full((4, 6, 3), 7, np.uint8))[1].tobytes() + bytes(32 << 20)
    image = pa.StructArray.from_arrays([repeated(png, 2000), pa.nulls(2000, pa.string())], ["bytes", "path"])
    numbers = {"episode_index": [0] * 1000 + [1] * 1000, "frame_index": range(2000)}
    write_compressed(tmp_path / "x.parquet", pa.table({"image": image} | numbers))
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), hard))
    try:
        rows = list(islice(read_rows(tmp_path / "x.parquet", "image", 1), 3))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert [(frame, row["bytes"]) for frame, row in rows] == [(1000 + k, png) for k in range(3)]


def test_one_long_text_in_very_many_rows(dataset):
    file = dataset / "meta/episodes/chunk-000/file-000.parquet"
    tasks = pa.ListArray.from_arrays(pa.array(range(201), pa.int32()), repeated(bytes(4 << 20), 200))
    write_compressed(file, pa.table({"episode_index": range(200), "tasks": tasks}))
    with pytest.raises(InputError, match="tasks: 838860800 bytes of text, expected at most"):
        Dataset(dataset)


@pytest.mark.parametrize("names", [["height", "width", []], [0, 1, 2], {"height": 0}, "height", ["height", "width"]])
def test_names_of_a_picture_s_sides(dataset, names):
    info = json.loads((dataset / "meta/info.json").read_text())
    info["features"]["observation.images.front"]["names"] = names
    replace(dataset / "meta/info.json", json.dumps(info))
    with pytest.raises(InputError, match="front: names"):
        Dataset(dataset).image_size("front")


def test_a_video_of_no_codec(dataset):
    file = next((dataset / "videos").rglob("*.mp4"))
    data = file.read_bytes()
    kind = data[data.index(b"stsd") + 16 :][:4]  # of the first entry of the table of samples
    replace(file, data.replace(kind, b"none"))
    found = Dataset(dataset)
    with pytest.raises(InputError, match="unknown codec"):
        found.episode_frames(found.episodes[0], file.relative_to(dataset / "videos").parts[0].rpartition(".")[2])
