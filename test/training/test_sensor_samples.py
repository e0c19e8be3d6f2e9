"""Further sensors from a bag to a training batch: the same bytes as a policy sees when it serves."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import sensors
import torch
from bags.factory import NS, START, TYPES, raw
from bags.factory import write_bag as write_bag_of
from sensing_family import STREAMS, Reader, Sensing

from vla_ros.bags.build import build_dataset, plan_bag
from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.frames import read_frames
from vla_ros.bags.reader import Bag
from vla_ros.core.errors import InputError
from vla_ros.datasets.lerobot import Dataset
from vla_ros.datasets.writer import DatasetWriter
from vla_ros.messages.observation import ObservationBuilder, message_stamp
from vla_ros.runtime.history import history_length, make_sample, observe, observed_streams
from vla_ros.training.samples import Samples

OPTIONS = CutOptions(fps=10.0)
@pytest.fixture
def robot(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(sensors.install_decoder(tmp_path / "site")))
    for topic, typename in sensors.TYPES.items():
        monkeypatch.setitem(TYPES, topic, typename)
    return sensors.robot()


def without(rows, topic, begin, end):
    return [row for row in rows if not (row[0] == topic and START + begin * NS <= row[1] < START + end * NS)]


def test_from_a_bag_to_a_batch(robot, tmp_path):
    path = write_bag_of(tmp_path / "bag", sensors.messages(3.0))
    index, episodes, problems = plan_bag(path, robot, OPTIONS)
    assert not problems
    with Bag(path) as bag:
        frames = list(read_frames(bag, robot, index, episodes))
        live = ObservationBuilder(robot, None, history_length(Reader()) + 60.0, observed_streams(Reader()))
        topics = {}
        for name, stream in live.streams.items():
            topics.setdefault(f"/{stream.topic}", []).append(name)
        for record in bag.records(topics):
            for name in topics[record.topic]:
                message = bag.decode(record)
                live.add(name, message, message_stamp(robot.stream(name), message, record.log_ns))
    # as it was seen
    assert (frames[0].episode.times[0] - START) == 80_000_000  # the window of 5 at 50 Hz is full, the depth there
    for frame in frames:
        seen, t = frame.observation.values, (int(frame.episode.times[frame.index]) - START) // 20_000_000
        assert seen["imu"].tolist() == [np.float32(t / 3), np.float32(-9.81), np.float32(t / 7)]
        assert seen["shake"][:, 0].tolist() == [np.float32(k / 3) for k in range(t - 4, t + 1)]
        assert np.array_equal(seen["depth"], sensors.distances((t * 20 - 3) // 100))
        assert frame.observation.stamps_ns["depth"] - frame.observation.stamps_ns["front"] == 3_000_000
        assert seen["markers_count"].tolist() == [min(t // 5 % 5, 3)]
        assert seen["mode"].tolist() == ["m" * (t // 5 * 5 // 50)]
    # as it was stored
    build_dataset([path], tmp_path / "data", robot, OPTIONS)
    dataset = Dataset(tmp_path / "data")
    assert set(dataset.streams) == set(sensors.READINGS) and not dataset.unreadable
    for name in sensors.READINGS:
        stored, seen = dataset.values(name), np.stack([frame.observation.values[name] for frame in frames])
        assert stored.dtype == seen.dtype and np.array_equal(stored, seen), name
    # as it is trained on, and as it is served
    processor = Reader()
    samples = Samples(dataset, dataset.episodes, processor)
    policy, stored_as_float32 = Sensing(), ("joint_states", "command/arm")
    for k in (0, 1, 7, len(frames) - 1):
        (trained,) = samples.get(np.array([k]))
        served = make_sample(observe(lambda t, names: live.build(t, "wave", names),
                                     int(frames[k].episode.times[k]), processor), processor, "wave")  # fmt: skip
        replayed = make_sample([frame.observation for frame in frames[max(k - 2, 0) : k + 1]], processor, "wave")
        for other in (served, replayed) if k >= 2 else (replayed,):
            one, two = processor.inputs([trained]), processor.inputs([other])
            assert set(one) == set(two) == {"front", "joint_states", *STREAMS, "markers_count"}
            for name in set(one) - {"front"}:  # colour is stored as video
                assert one[name].dtype == two[name].dtype and one[name].shape == two[name].shape
                assert np.array_equal(one[name], two[name].float() if name in stored_as_float32 else two[name])
            pictures = {"front": torch.zeros(1, 1, 24, 32, 3)}
            assert torch.equal(policy.predict(one | pictures), policy.predict(two | pictures))
    first, later = samples.get(np.array([0, 7]))
    assert first.values["command/arm"].tolist() == [[dataset.states[0, 0]]]  # there was none
    assert later.values["command/arm"].tolist() == [[dataset.actions[6, 0]]]
    assert later.values["imu"].shape == (2, 3) and later.values["depth"].shape == (2, 24, 32, 1)


def test_what_a_dataset_says_of_its_sensors(robot, tmp_path):
    path = write_bag_of(tmp_path / "bag", sensors.messages(3.0))
    build_dataset([path], tmp_path / "data", robot, OPTIONS)
    dataset = Dataset(tmp_path / "data")
    features = json.loads((tmp_path / "data/meta/info.json").read_text())["features"]
    assert features["observation.images.depth"]["dtype"] == "image"
    assert features["observation.images.depth"]["shape"] == [24, 32, 1]
    assert features["observation.shake"]["shape"] == [5, 1]
    assert features["observation.imu"]["info"] == {"unit": "m/s²", "frame": "base"}
    assert "observation.mass" not in features and dataset.values("mass").shape == (len(dataset), 2)
    rows = dataset.values("imu").astype(float)
    np.testing.assert_allclose(dataset.statistics["observation.imu"]["mean"], rows.mean(0))
    np.testing.assert_allclose(dataset.statistics["observation.imu"]["q99"], np.quantile(rows, 0.99, axis=0))
    depth = dataset.statistics["observation.images.depth"]
    assert depth["mean"].shape == (1, 1, 1) and depth["mean"] == pytest.approx(dataset.values("depth").mean())
    count, points = dataset.values("markers_count")[:, 0], dataset.values("markers")
    real = np.concatenate([rows[:n] for rows, n in zip(points, count, strict=True)])
    np.testing.assert_allclose(dataset.statistics["observation.markers"]["mean"], real.mean(0), rtol=1e-6)
    table = pq.read_table(dataset.episodes[0].data)
    assert table["observation.pressed"].type == "bool" and table["observation.mode"].type == "string"
    with pytest.raises(InputError, match="no camera or stream 'sonar', expected one of"):
        dataset.values("sonar")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: without(rows, "/imu", 1.0, 2.0), "topic /imu: nothing after .* expected at most 0.5 s"),
        (lambda rows: without(rows, "/depth", 1.0, 1.9), "topic /.*: nothing after .* expected at most 0.5 s"),
        (lambda rows: without(rows, "/mass", -1.0, 9.0), r"topic /mass \(mass\) is missing"),
        (lambda rows: [(t, n, raw(sensors.imu(n, 1, "arm")) if t == "/imu" and n == START + 1_080_000_000 else d)
                       for t, n, d in rows],
         "topic /imu: t=1.580 s .*frame 'arm', the robot file says 'base'"),
    ],
)  # fmt: skip
def test_a_bag_without_a_good_value_is_refused_by_name(robot, tmp_path, change, said):
    path = write_bag_of(tmp_path / "bag", change(sensors.messages(3.0)))
    with pytest.raises(InputError, match=f"(?s){said}"):
        build_dataset([path], tmp_path / "data", robot, OPTIONS)
    assert not (tmp_path / "data").exists()


def test_the_writer_takes_all_sensors_and_one_value_of_what_is_said_once(robot, tmp_path):
    robot = replace(robot, streams=(robot.stream("mass"), robot.stream("pressed")))
    frames = np.zeros((4, 24, 32, 3), np.uint8)
    parts = {"front": frames}, np.zeros((4, 2)), np.zeros((4, 2)), "wave"
    mass, pressed = np.full((4, 2), 0.5, np.float32), np.zeros((4, 1), bool)
    writer = DatasetWriter(tmp_path / "d", robot, 10)
    writer.add_episode(*parts, {"mass": mass, "pressed": pressed})
    for values, said in (
        (None, r"values of \[\], the robot file has \['mass', 'pressed'\]"),
        ({"mass": mass, "pressed": pressed.astype(int)}, r"pressed: int64 \(4, 1\), expected bool \(4, 1\)"),
        ({"mass": mass[:3], "pressed": pressed}, r"mass: float32 \(3, 2\), expected float32 \(4, 2\)"),
        ({"mass": 2 * mass, "pressed": pressed}, "mass is published once, but has changed"),
    ):
        with pytest.raises(InputError, match=said):
            writer.add_episode(*parts, values)
    writer.finish()
    assert len(Dataset(tmp_path / "d")) == 4
