"""The LeRobot format: what is written is read back, and damage is named."""

import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vla_ros.cli.main import main
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.datasets.lerobot import Dataset
from vla_ros.datasets.writer import DatasetWriter

ROBOT = RobotSpec.load("config/robots/so101.yaml")


def scene(length: int, seed: int, size: int = 96) -> np.ndarray:
    """(T, size, size, 3) frames with a small coloured square moving over a shaded ground."""
    rng = np.random.default_rng(seed)
    ground = np.linspace(90, 160, size)[:, None, None] * np.ones((1, size, 3))
    colour = np.eye(3)[seed % 3] * 180 + 30
    frames = np.empty((length, size, size, 3), np.uint8)
    x, y = rng.integers(10, size - 20, 2)
    for t in range(length):
        image = ground.copy()
        image[y : y + 9, x + t % 8 : x + t % 8 + 9] = colour
        frames[t] = cv2.GaussianBlur(image, (3, 3), 0)
    return frames


def episode(length: int, seed: int):
    rng = np.random.default_rng(seed)
    images = {"front": scene(length, seed), "wrist": scene(length, seed + 1)}
    return images, rng.normal(size=(length, 6)), rng.normal(size=(length, 6)), f"touch the cube {seed % 2}"


def write(path, lengths=(12, 7, 20)):
    writer = DatasetWriter(path, ROBOT, fps=10)
    episodes = [episode(length, seed) for seed, length in enumerate(lengths)]
    for parts in episodes:
        writer.add_episode(*parts)
    writer.finish()
    return episodes


def test_written_episodes_are_read_back(tmp_path):
    written = write(tmp_path / "d")
    dataset = Dataset(tmp_path / "d")
    assert dataset.fps == 10 and dataset.robot_type == "so101"
    assert dataset.joint_names == ROBOT.joint_names and dataset.camera_names == ("front", "wrist")
    assert [e.length for e in dataset.episodes] == [12, 7, 20] and len(dataset) == 39
    for meta, (images, states, actions, instruction) in zip(dataset.episodes, written, strict=True):
        assert meta.instruction == instruction
        np.testing.assert_array_equal(dataset.states[meta.start : meta.stop], states.astype(np.float32))
        np.testing.assert_array_equal(dataset.actions[meta.start : meta.stop], actions.astype(np.float32))
        for camera in images:
            decoded = dataset.episode_frames(meta, camera)
            error = np.abs(decoded.astype(int) - images[camera].astype(int))
            assert error.mean() < 1.5  # the codec's loss; a frame of another instant or episode is far above
            cached = dataset.frames(camera)[meta.start : meta.stop]
            np.testing.assert_array_equal(cached, decoded)


def test_statistics_are_those_of_the_values(tmp_path):
    written = write(tmp_path / "d")
    statistics = Dataset(tmp_path / "d").statistics
    actions = np.concatenate([parts[2] for parts in written]).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(statistics["action"]["mean"], actions.mean(0))
    np.testing.assert_allclose(statistics["action"]["q99"], np.quantile(actions, 0.99, axis=0))
    pixels = np.concatenate([parts[0]["front"] for parts in written]).reshape(-1, 3) / 255
    image = statistics["observation.images.front"]
    assert image["mean"].shape == (3, 1, 1) and image["count"].tolist() == [39]
    np.testing.assert_allclose(image["std"].ravel(), pixels.std(0))
    np.testing.assert_allclose(image["q01"].ravel(), np.quantile(pixels, 0.01, axis=0, method="inverted_cdf"))


def test_large_files_are_followed_by_new_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("vla_ros.datasets.writer.DATA_FILE_MB", 0)
    monkeypatch.setattr("vla_ros.datasets.writer.VIDEO_FILE_MB", 0)
    written = write(tmp_path / "d", lengths=(60, 60, 60))  # longer than the encoder looks ahead
    dataset = Dataset(tmp_path / "d")
    assert len({e.data for e in dataset.episodes}) == 3
    assert len({e.videos["observation.images.front"][0] for e in dataset.episodes}) == 3
    np.testing.assert_array_equal(dataset.states[60:120], written[1][1].astype(np.float32))
    assert dataset.frames("front").shape[0] == 180


def test_an_unfinished_dataset_is_recognised(tmp_path):
    writer = DatasetWriter(tmp_path / "d", ROBOT, fps=10)
    writer.add_episode(*episode(5, 0))
    with pytest.raises(InputError, match="incomplete"):
        Dataset(tmp_path / "d")


def test_an_existing_folder_is_left_alone(tmp_path):
    write(tmp_path / "d")
    before = {p: p.read_bytes() for p in (tmp_path / "d").rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="not empty"):
        DatasetWriter(tmp_path / "d", ROBOT, fps=10)
    assert before == {p: p.read_bytes() for p in (tmp_path / "d").rglob("*") if p.is_file()}


def test_bad_episodes_are_refused_and_the_rest_is_kept(tmp_path):
    writer = DatasetWriter(tmp_path / "d", ROBOT, fps=10)
    images, states, actions, instruction = episode(5, 0)
    writer.add_episode(images, states, actions, instruction)
    spoilt = states.copy()
    spoilt[3, 2] = np.nan
    with pytest.raises(InputError, match="elbow_flex at frame 3"):
        writer.add_episode(images, spoilt, actions, instruction)
    with pytest.raises(InputError, match="expected \\(T, 6\\)"):
        writer.add_episode(images, states, actions[:, :5], instruction)
    with pytest.raises(InputError, match="camera 'top'"):
        writer.add_episode({"top": images["front"]}, states, actions, instruction)
    with pytest.raises(InputError, match="those of the episodes before"):
        writer.add_episode({"front": images["front"]}, states, actions, instruction)
    with pytest.raises(InputError, match="4 actions for 5 states"):
        writer.add_episode(images, states, actions[:4], instruction)
    writer.finish()
    assert len(Dataset(tmp_path / "d")) == 5


def test_no_episodes(tmp_path):
    with pytest.raises(InputError, match="no episodes"):
        DatasetWriter(tmp_path / "d", ROBOT, fps=10).finish()


def test_nan_in_the_rows_names_episode_frame_and_joint(tmp_path):
    write(tmp_path / "d")
    file = tmp_path / "d" / "data" / "chunk-000" / "file-000.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[14]["action"][5] = float("nan")
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(InputError, match="episode 1, frame 2: action of joint gripper"):
        Dataset(tmp_path / "d")


def test_a_cut_file_is_named(tmp_path):
    write(tmp_path / "d")
    file = tmp_path / "d" / "data" / "chunk-000" / "file-000.parquet"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="file-000.parquet"):
        Dataset(tmp_path / "d")


def test_a_missing_video_is_named(tmp_path):
    write(tmp_path / "d")
    dataset = Dataset(tmp_path / "d")
    (tmp_path / "d/videos/observation.images.front/chunk-000/file-000.mp4").unlink()
    with pytest.raises(InputError, match="file-000.mp4"):
        dataset.frames("front")
    assert not list((tmp_path / "d" / ".cache").iterdir())


def test_version_2_1_is_read(tmp_path):
    """The older layout: one parquet and one mp4 an episode, metadata in JSON lines."""
    written = write(tmp_path / "v3", lengths=(6, 4))
    new, old = Dataset(tmp_path / "v3"), tmp_path / "v2"
    (old / "meta").mkdir(parents=True)
    info = new.info | {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    info["features"]["observation.state"]["names"] = {"motors": list(ROBOT.joint_names)}
    (old / "meta/info.json").write_text(json.dumps(info))
    episodes, statistics = [], []
    for k, (images, states, actions, instruction) in enumerate(written):
        writer = DatasetWriter(tmp_path / f"e{k}", ROBOT, fps=10)
        writer.add_episode(images, states, actions, instruction)
        writer.finish()
        single = Dataset(tmp_path / f"e{k}")
        table = pq.read_table(single.episodes[0].data)
        for column in ("episode_index", "task_index"):
            table = table.set_column(table.schema.get_field_index(column), column, pa.array([k] * len(single)))
        data = old / f"data/chunk-000/episode_{k:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, data)
        for key, clip in single.episodes[0].videos.items():
            target = old / f"videos/chunk-000/{key}/episode_{k:06d}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(clip.file.read_bytes())
        episodes.append({"episode_index": k, "tasks": [instruction], "length": len(states)})
        part = {key: {n: v.tolist() for n, v in stats.items() if not n.startswith("q")}
                for key, stats in single.statistics.items()}
        statistics.append({"episode_index": k, "stats": part})
    tasks = [{"task_index": k, "task": parts[3]} for k, parts in enumerate(written)]
    for name, rows in (("episodes", episodes), ("episodes_stats", statistics), ("tasks", tasks)):
        (old / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = Dataset(old)
    assert dataset.joint_names == ROBOT.joint_names
    np.testing.assert_array_equal(dataset.actions, new.actions)
    assert [e.instruction for e in dataset.episodes] == [e.instruction for e in new.episodes]
    assert np.abs(dataset.frames("wrist").astype(int) - new.frames("wrist")).mean() < 1.5
    for key in ("action", "observation.images.front"):
        for name in ("mean", "std", "min", "max"):
            np.testing.assert_allclose(dataset.statistics[key][name], new.statistics[key][name], rtol=1e-6, atol=1e-9)


def test_the_table_of_tasks_is_one_for_pandas(tmp_path):
    """LeRobot reads it with pandas: the metadata must describe every column, the index among them."""
    write(tmp_path / "data")
    table = pq.read_table(tmp_path / "data/meta/tasks.parquet")
    pandas = json.loads(table.schema.metadata[b"pandas"])
    assert pandas["index_columns"] == ["task"]
    assert {column["field_name"] for column in pandas["columns"]} == set(table.column_names)
    assert table.to_pydict() == {"task_index": [0, 1], "task": ["touch the cube 0", "touch the cube 1"]}


def test_a_shared_cache_knows_whose_frames_it_holds(tmp_path):
    """Datasets of the same names, sizes and lengths; and one whose video is replaced in place."""
    for name, seed in (("a", 0), ("b", 7)):
        writer = DatasetWriter(tmp_path / name, ROBOT, fps=10)
        writer.add_episode(*episode(12, seed)[:3], "touch the cube")
        writer.finish()
    one, other = Dataset(tmp_path / "a"), Dataset(tmp_path / "b")
    right = [dataset.episode_frames(dataset.episodes[0], "front") for dataset in (one, other)]
    assert not np.array_equal(*right)
    for dataset, frames in zip((one, other), right, strict=True):
        assert np.array_equal(dataset.frames("front", cache=tmp_path / "cache"), frames)
    files = sorted((tmp_path / "cache").iterdir())
    assert np.array_equal(Dataset(tmp_path / "a").frames("front", cache=tmp_path / "cache"), right[0])
    assert sorted((tmp_path / "cache").iterdir()) == files  # decoded once
    video = one.episodes[0].videos["observation.images.front"][0]
    video.write_bytes(other.episodes[0].videos["observation.images.front"][0].read_bytes())
    assert np.array_equal(Dataset(tmp_path / "a").frames("front", cache=tmp_path / "cache"), right[1])


@pytest.mark.parametrize(
    "said", [{"info": {"is_depth_map": True}}, {"video_info": {"video.is_depth_map": True}},
             {"info": {"video.pix_fmt": "gray12le"}}]
)  # fmt: skip
def test_depth_as_video_is_no_colour(tmp_path, capsys, said):
    write(tmp_path / "d", lengths=(12,))
    file = tmp_path / "d/meta/info.json"
    info = json.loads(file.read_text())
    info["features"]["observation.images.wrist"] |= {"info": {}, **said}
    file.write_text(json.dumps(info))
    dataset = Dataset(tmp_path / "d")
    assert dataset.camera_names == ("front",) and not dataset.streams
    for read in (dataset.values, dataset.frames):
        with pytest.raises(InputError, match="d: wrist: depth as video"):
            read("wrist")
    assert main(["dataset", "show", str(tmp_path / "d"), "-o", ""]) == 0
    assert "not read: wrist: depth as video" in capsys.readouterr().out
