"""Small datasets of both versions, written by hand so that everything in them can be odd on purpose.

Joint j of frame t of an episode that begins at `first` is `first + t + j / 10`; its picture is grey, of a mean
level that says which it is: `LEVEL * (first + t)`.
"""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LEVEL = 6
KEY = "observation.images.front"
NAMES = ["a", "b", "c"]
PATHS = {
    "v3.0": ("data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
             "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"),
    "v2.1": ("data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
             "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"),
}  # fmt: skip


def video(path: Path, levels, rate=10, times=None, codec="libx264", **options):
    """Grey frames of these levels in the mean; `times`: of each in units of 1 / rate, 0, 1, 2, ... by default."""
    halves = np.repeat([[[-4]], [[4]]], 16, axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options={"bf": "0", "crf": "1"} | options)
        stream.width = stream.height = 32
        stream.codec_context.time_base = Fraction(1, rate)
        for k, level in enumerate(levels):
            picture = np.broadcast_to(np.clip(level + halves, 0, 255).astype(np.uint8), (32, 32, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = k if times is None else times[k], Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def levels(dataset, episode) -> list[int]:
    """Which frame each row got: the number that its picture's level stands for."""
    return [round(float(frame.mean()) / LEVEL) for frame in dataset.episode_frames(episode, "front")]


def write(path: Path, lengths=(12, 8), version="v3.0", tasks=None, info=None, columns=None, film=video) -> Path:
    """A dataset at 10 Hz.

    Args:
        tasks: instruction of each frame of the dataset.
        info: changes of info.json's `features`, key -> value, None to remove one.
        columns: columns of all rows to change, add or (None) remove.
        film: writes a video file of levels, as `video`.
    """
    total, v3 = sum(lengths), version == "v3.0"
    starts = np.cumsum([0, *lengths])
    tasks = tasks or ["go"] * total
    texts = list(dict.fromkeys(tasks))
    rows = np.arange(total)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    values = (rows[:, None] + np.arange(len(NAMES)) / 10).astype(np.float32)
    table = {
        "observation.state": list(values), "action": list(values + np.float32(0.05)),
        "timestamp": ((rows - starts[episode]) / 10).astype(np.float32), "frame_index": rows - starts[episode],
        "episode_index": episode, "index": rows, "task_index": [texts.index(text) for text in tasks],
    } | (columns or {})  # fmt: skip
    table = pa.table({name: column for name, column in table.items() if column is not None})
    meta = path / "meta"
    meta.mkdir(parents=True)
    listed = [
        {"episode_index": k, "length": length, "tasks": list(dict.fromkeys(tasks[starts[k] : starts[k + 1]]))}
        for k, length in enumerate(lengths)
    ]
    parts = [(0, slice(0, total))] if v3 else [(k, slice(*starts[k : k + 2])) for k in range(len(lengths))]
    for k, part in parts:
        place = {"chunk_index": 0, "file_index": 0, "episode_chunk": 0, "episode_index": k, "video_key": KEY}
        data, clip = (path / name.format(**place) for name in PATHS[version])
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(part.start, part.stop - part.start), data)
        film(clip, LEVEL * rows[part])
    if v3:
        for k, row in enumerate(listed):
            row |= {"dataset_from_index": starts[k], "dataset_to_index": starts[k + 1]}
            row |= {f"{what}/{name}_index": 0 for what in ("data", f"videos/{KEY}") for name in ("chunk", "file")}
            row |= {f"videos/{KEY}/from_timestamp": starts[k] / 10, f"videos/{KEY}/to_timestamp": starts[k + 1] / 10}
        (meta / "episodes/chunk-000").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(listed), meta / "episodes/chunk-000/file-000.parquet")
        pq.write_table(pa.table({"task_index": range(len(texts)), "task": texts}), meta / "tasks.parquet")
    else:
        rows_of = {"episodes": listed, "tasks": [{"task_index": k, "task": text} for k, text in enumerate(texts)]}
        for name, lines in rows_of.items():
            (meta / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    vector = {"dtype": "float32", "shape": [len(NAMES)], "names": NAMES}
    features = {"observation.state": vector, "action": vector, KEY: {
        "dtype": "video", "shape": [32, 32, 3], "names": ["height", "width", "channels"],
    }} | (info or {})  # fmt: skip
    data_path, video_path = PATHS[version]
    (meta / "info.json").write_text(json.dumps({
        "codebase_version": version, "fps": 10, "robot_type": "odd", "total_episodes": len(lengths),
        "total_frames": total, "total_tasks": len(texts), "data_path": data_path, "video_path": video_path,
        "features": {key: feature for key, feature in features.items() if feature is not None},
    }))  # fmt: skip
    return path
