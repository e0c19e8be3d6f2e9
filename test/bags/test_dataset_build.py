"""Bags to episodes to datasets and back."""

import json
import struct
import subprocess
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from bags.factory import (
    ARM,
    HAND,
    IMAGE,
    JOINTS,
    NS,
    ROBOT,
    START,
    TEXT,
    TYPES,
    arm,
    header,
    image,
    joint_state,
    joints,
    kind,
    messages,
    pixels,
    raw,
    stamp,
    text,
    write_bag,
    write_robot,
)  # fmt: skip

from vla_ros.bags.build import build_dataset, plan_bag
from vla_ros.bags.compress import COMPRESSED_IMAGE, SUFFIX, compressor
from vla_ros.bags.definitions import deserialized, standard_store
from vla_ros.bags.episodes import CutOptions
from vla_ros.bags.frames import read_frames
from vla_ros.bags.reader import Bag
from vla_ros.bags.repair import repair
from vla_ros.bags.writer import BagWriter
from vla_ros.cli.main import main
from vla_ros.core.errors import InputError
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import Stream
from vla_ros.datasets.lerobot import Dataset
from vla_ros.messages.observation import JOINT_STATES, ObservationBuilder

OPTIONS = CutOptions(fps=10.0)


def two_episodes():
    """'wave' for 2 s, 1 s of nothing to do, 'point' for 3 s; the robot's topics never stop."""
    rows = [row for row in messages(6.0) if row[0] != TEXT]
    marks = [(0.0, "wave"), (0.5, "wave"), (2.0, ""), (3.0, "point"), (6.0, "")]
    rows += [(TEXT, START + int(at * NS), text(value)) for at, value in marks]
    return sorted(rows, key=lambda row: row[1])


def all_frames(path, robot=ROBOT, options=OPTIONS):
    index, episodes, problems = plan_bag(path, robot, options)
    assert not problems
    with Bag(path) as bag:
        return episodes, list(read_frames(bag, robot, index, episodes))


def test_frames_are_the_last_values_not_after_t(tmp_path):
    path = write_bag(tmp_path / "bag", two_episodes(), max_file_bytes=50_000)
    episodes, frames = all_frames(path, options=replace(OPTIONS, fps=20.0))
    assert [episode.cut.instruction for episode in episodes] == ["wave", "point"]
    assert [(e.times[0] - START, len(e.times)) for e in episodes] == [(0, 40), (3 * NS, 60)]
    assert [frame.index for frame in frames] == [*range(40), *range(60)]
    # The same observations as a live node that was asked at these instants
    live = ObservationBuilder(ROBOT, max_age=None, history=60.0)
    commands = []
    with Bag(path) as bag:
        for record in bag.records():
            if record.topic == IMAGE:
                live.add("front", bag.decode(record))
            elif record.topic == JOINTS:
                live.add(JOINT_STATES, bag.decode(record))
            elif record.topic == ARM:
                commands.append((bag.header_ns(record), bag.decode(record).points[0].positions[0]))
    for frame in frames:
        t = int(frame.episode.times[frame.index])
        expected = live.build(t, frame.episode.cut.instruction)
        got = frame.observation
        assert (got.stamp_ns, got.instruction) == (expected.stamp_ns, expected.instruction)
        assert {**got.stamps_ns, **expected.stamps_ns} == got.stamps_ns  # and those of the commands
        assert got.state.tobytes() == expected.state.tobytes()
        assert got.images["front"].tobytes() == expected.images["front"].tobytes()
        seconds = (t - START) / NS
        assert frame.action[0] == [value for at, value in commands if at <= t][-1]
        assert frame.action[1] == float(seconds >= 1.0)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_that_image_transport_compressed(tmp_path, monkeypatch, encoding):
    """Beside a camera of colour; of floating-point depth the PNG holds A / depth + B."""
    topic, a, b = "/depth/compressedDepth", 30_000.0, -3.0
    depth = Stream("depth", "depth", "sensor_msgs/msg/Image", dtype="uint16", shape=(24, 32, 1))
    rows, sent = messages(2.0), {}
    for k in range(21):
        ns = START + k * NS // 10
        sent[ns] = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) + np.uint16(100 * k + 500)  # mm
        stored = sent[ns] if encoding == "16UC1" else np.rint(a / (sent[ns] / 1000) + b)
        data = struct.pack("<iff", 0, a, b) + cv2.imencode(".png", stored.astype(np.uint16))[1].tobytes()
        message = kind(COMPRESSED_IMAGE)(
            header=header(ns), format=f"{encoding}; compressedDepth png", data=np.frombuffer(data, np.uint8)
        )
        rows.append((topic, ns, raw(message)))
    rows.sort(key=lambda row: row[1])
    monkeypatch.setitem(TYPES, topic, COMPRESSED_IMAGE)
    path = write_bag(tmp_path / "bag", rows)
    frames = all_frames(path, replace(ROBOT, streams=(depth,)))[1]
    assert len(frames) == 21
    for frame in frames:
        got, seen = frame.observation.values["depth"], sent[int(frame.episode.times[frame.index])][..., None]
        assert got.dtype == np.uint16 and abs(got.astype(int) - seen).max() <= (0 if encoding == "16UC1" else 1)


def test_joint_states_of_several_publishers(tmp_path):
    """Each joint in messages of its own, beside wheels; a does not stamp, b is late and out of order now and then."""
    rows = [row for row in two_episodes() if row[0] != JOINTS]
    measured = {"a": [], "b": []}
    for k in range(301):
        ns = START + k * 20_000_000
        measured["a"].append((ns + 2_000_000, k / 100))
        rows.append((JOINTS, ns + 2_000_000, joint_state(0, ["wheel", "a"], [9.0, k / 100])))
        measured["b"].append((ns, -k / 100))
        late = 50_000_000 if k % 3 else 0
        rows.append((JOINTS, ns + late, joint_state(ns, ["b"], [-k / 100])))
        rows.append((JOINTS, ns, joint_state(ns, ["wheel"], [k])))
        rows.append((JOINTS, ns, joint_state(ns, ["a", "b"], [])))  # velocities alone, say
    path = write_bag(tmp_path / "bag", sorted(rows, key=lambda row: row[1]))
    _, frames = all_frames(path)
    for frame in frames:
        t, seen = int(frame.episode.times[frame.index]), frame.observation
        newest = [[sample for sample in measured[joint] if sample[0] <= t][-1] for joint in ("a", "b")]
        assert seen.state.tolist() == [value for _, value in newest]
        assert seen.stamps_ns[JOINT_STATES] == min(at for at, _ in newest)
    build_dataset([path], tmp_path / "data", ROBOT, OPTIONS)
    states = np.stack([frame.observation.state for frame in frames])
    assert len(frames) == 50 and np.array_equal(Dataset(tmp_path / "data").states, states.astype(np.float32))


def test_two_drivers_that_name_their_joints_alike(tmp_path, monkeypatch):
    """Each arm has one joint, which its driver calls a, in joint states and commands."""
    joint = {"lower": -2.0, "upper": 2.0, "velocity": 1.0, "acceleration": 5.0}
    robot = RobotSpec.from_dict(
        {
            "name": "two",
            "joint_state_topic": ["left/joints", "right/joints"],
            "joint_prefix": ["left_", "right_"],
            "cameras": [{"name": "front", "topic": "camera/image_raw", "width": 32, "height": 24, "rate": 10.0}],
            "joints": [joint | {"name": "left_a"}, joint | {"name": "right_a", "discrete": True}],
            "groups": [
                {"name": name, "topic": topic, "interface": kind, "joints": [f"{prefix}a"], "prefix": prefix}
                for name, topic, kind, prefix in (
                    ("arm", "arm/command", "joint_trajectory", "left_"),
                    ("hand", "hand/command", "float64_multi_array", "right_"),
                )
            ],
        }
    )
    rows = []
    for topic, ns, data in two_episodes():
        if topic == JOINTS:
            message = deserialized(standard_store(), "sensor_msgs/msg/JointState", data)
            for side, name in (("left", "a"), ("right", "b")):
                monkeypatch.setitem(TYPES, f"/{side}/joints", "sensor_msgs/msg/JointState")
                value = message.position[message.name.index(name)]
                rows.append((f"/{side}/joints", ns, joint_state(ns, ["a"], [value])))
        else:
            rows.append((topic, ns, data))
    plain, alike = write_bag(tmp_path / "plain", two_episodes()), write_bag(tmp_path / "alike", rows)
    for one, two in zip(all_frames(plain)[1], all_frames(alike, robot)[1], strict=True):
        assert one.observation.state.tobytes() == two.observation.state.tobytes()
        assert one.action.tobytes() == two.action.tobytes()


def test_round_trip_to_a_dataset(tmp_path):
    path = write_bag(tmp_path / "bag", two_episodes())
    report = build_dataset([path], tmp_path / "data", ROBOT, OPTIONS)
    assert (report.episodes, report.frames, report.problems) == (2, 50, [])
    _, frames = all_frames(path)
    dataset = Dataset(tmp_path / "data")
    assert dataset.joint_names == ("a", "b") and dataset.fps == 10.0
    assert [(e.instruction, e.length) for e in dataset.episodes] == [("wave", 20), ("point", 30)]
    states = np.stack([frame.observation.state for frame in frames]).astype(np.float32)
    assert np.array_equal(dataset.states, states)
    assert np.array_equal(dataset.actions, np.stack([frame.action for frame in frames]).astype(np.float32))
    for episode in dataset.episodes:
        stored = dataset.episode_frames(episode, "front").astype(int)
        seen = np.stack([f.observation.images["front"] for f in frames[episode.start : episode.stop]]).astype(int)
        assert np.abs(stored - seen).mean() < 6  # the video codec's loss
        order = [np.abs(seen - image).mean(axis=(1, 2, 3)).argmin() for image in stored]
        assert order == list(range(episode.length))  # but never another frame
    assert set(dataset.statistics["action"]) >= {"mean", "std", "min", "max", "q01", "q99"}
    sources = json.loads((tmp_path / "data/meta/vla_ros_sources.json").read_text())["episodes"]
    assert sources[1] == {"bag": str(path), "episode": 1, "start_ns": START + 3 * NS, "frames": 30, "outcome": "",
                          "by": "", "message": ""}  # fmt: skip


def test_compressed_cameras_and_a_namespace(tmp_path):
    compress = compressor(ROBOT.cameras[0], "png")
    writer = BagWriter(tmp_path / "bag")
    for topic, typename in TYPES.items():
        packed = topic == IMAGE
        writer.add_topic("/left" + topic + (SUFFIX if packed else ""), COMPRESSED_IMAGE if packed else typename)
    for topic, ns, data in two_episodes():
        packed = topic == IMAGE
        writer.write("/left" + topic + (SUFFIX if packed else ""), ns, compress(data) if packed else data)
    writer.close()
    index, episodes, problems = plan_bag(tmp_path / "bag", ROBOT, OPTIONS, "/left")
    assert not problems
    with Bag(tmp_path / "bag") as bag:
        frames = list(read_frames(bag, ROBOT, index, episodes))
    assert np.array_equal(frames[3].observation.images["front"], pixels(3))
    with pytest.raises(InputError, match=r"topic /camera/image_raw \(front\) is missing.*It has /left/arm/command"):
        plan_bag(tmp_path / "bag", ROBOT, OPTIONS)


def status(ns, code, goal=0):
    goal = kind("action_msgs/msg/GoalInfo")(
        goal_id=kind("unique_identifier_msgs/msg/UUID")(uuid=np.full(16, goal, np.uint8)), stamp=stamp(ns)
    )
    one = kind("action_msgs/msg/GoalStatus")(goal_info=goal, status=code)
    return raw(kind("action_msgs/msg/GoalStatusArray")(status_list=[one]))


def test_cut_by_task_marker_or_not_at_all(tmp_path, monkeypatch):
    rows = [row for row in messages(6.0, instruction="wave")]
    goal, mark = "/task_node/run_instruction/_action/status", "/recording"
    monkeypatch.setitem(TYPES, goal, "action_msgs/msg/GoalStatusArray")
    monkeypatch.setitem(TYPES, mark, "std_msgs/msg/Bool")
    for at, code in ((1.0, 1), (1.1, 2), (2.5, 2), (3.1, 4)):
        rows.append((goal, START + int(at * NS), status(START, code)))
    for at, value in ((4.0, True), (5.5, False)):
        rows.append((mark, START + int(at * NS), raw(kind("std_msgs/msg/Bool")(data=value))))
    path = write_bag(tmp_path / "bag", sorted(rows, key=lambda row: row[1]))

    def spans(**options):
        _, episodes, problems = plan_bag(path, ROBOT, replace(OPTIONS, **options))
        assert not problems
        return [((e.times[0] - START) / NS, len(e.times), e.cut.instruction) for e in episodes]

    assert spans(by="task") == spans(by="task", succeeded=True) == [(1.1, 20, "wave")]
    assert spans(by="marker", marker=mark) == [(4.0, 15, "wave")]
    assert spans(by="whole") == [(0.0, 61, "wave")]
    assert spans(by="whole", instruction="hello") == [(0.0, 61, "hello")]
    with pytest.raises(InputError, match="marker topic /nothing is missing"):
        plan_bag(path, ROBOT, replace(OPTIONS, by="marker", marker="nothing"))
    with pytest.raises(InputError, match="expected one of"):
        CutOptions(by="luck")


def test_a_run_has_its_own_instruction_also_when_a_newer_one_takes_over(tmp_path, monkeypatch):
    """As task_node publishes: the text, then EXECUTING; at the end the next text or an empty one, then the outcome."""
    rows = [row for row in messages(6.0) if row[0] != TEXT]
    rows += [(TEXT, START + int(at * NS), text(value)) for at, value in
             ((0.5, "wave"), (2.49, "point"), (4.49, ""), (4.9, "rest"))]  # fmt: skip
    goal = "/run_instruction/_action/status"
    monkeypatch.setitem(TYPES, goal, "action_msgs/msg/GoalStatusArray")
    refused = ((0.1, 0, 2), (0.11, 0, 6))  # ended before it began
    for at, number, code in (*refused, (0.51, 1, 2), (2.5, 2, 2), (2.52, 1, 6), (4.5, 2, 4)):
        rows.append((goal, START + int(at * NS), status(START, code, number)))
    path = write_bag(tmp_path / "bag", sorted(rows, key=lambda row: row[1]))
    _, episodes, _ = plan_bag(path, ROBOT, replace(OPTIONS, by="task"))
    assert [(e.cut.instruction, (e.cut.stop_ns - START) / NS) for e in episodes] == [("wave", 2.49), ("point", 4.49)]
    _, episodes, _ = plan_bag(path, ROBOT, replace(OPTIONS, by="task", succeeded=True))
    assert [e.cut.instruction for e in episodes] == ["point"]


def test_simulated_time_on_a_wall_clock_recording(tmp_path, monkeypatch):
    monkeypatch.setitem(TYPES, "/clock", "rosgraph_msgs/msg/Clock")
    shift = START - 5 * NS  # stamps begin at 5 s

    def simulated(rows):
        out = []
        for topic, ns, data in rows:
            now = ns - shift
            k = round((ns - START) / 20_000_000)
            if topic == IMAGE:
                data = image(now, k // 5)
            elif topic == JOINTS:
                data = joints(now, (k / 50, 0.0))
            elif topic == ARM:
                data = arm(now, k / 50)
            out.append((topic, ns, data))
        return out

    rows = simulated(two_episodes())
    without = write_bag(tmp_path / "without", rows)
    with pytest.raises(InputError, match=r"/joint_states: t=.*not use the system clock: if there is simulated time"):
        plan_bag(without, ROBOT, OPTIONS)
    clock = kind("rosgraph_msgs/msg/Clock")
    ticks = [START + k * 20_000_000 for k in range(301)]
    clocks = [("/clock", ns, raw(clock(clock=stamp(ns - shift)))) for ns in ticks]
    path = write_bag(tmp_path / "bag", sorted(clocks + rows, key=lambda row: row[1]))
    episodes, frames = all_frames(path)
    assert [(e.times[0], len(e.times)) for e in episodes] == [(5 * NS, 20), (8 * NS, 30)]
    assert frames[7].action[1] == 0.0 and frames[10].action[1] == 1.0  # stamped by /clock


def damaged(name):
    rows = two_episodes()
    at = START + 4 * NS
    if name == "gap":
        return [row for row in rows if not (row[0] == IMAGE and at - NS // 2 < row[1] < at + NS // 2)]
    if name == "backwards":
        rows.append((JOINTS, at + 1, joints(at - NS, (0, 0))))
    elif name in ("nan", "missing joint", "nobody's", "lengths", "twice"):
        begin, length, names, position = {
            "nan": (at, 0.6, ["b", "a"], [0.0, float("nan")]),
            "missing joint": (at, 0.6, ["b"], [0.0]),
            "nobody's": (START + 3 * NS, 9.0, ["b", "left_a"], [0.0, 0.0]),
            "lengths": (at, 0.001, ["b", "a"], [0.0]),
            "twice": (at, 0.001, ["b", "b"], [0.0, 0.0]),
        }[name]
        for k, (topic, ns, _) in enumerate(rows):
            if topic == JOINTS and begin <= ns < begin + length * NS:
                rows[k] = topic, ns, joint_state(ns, names, position)
    elif name == "encoding":
        rows = [(t, ns, image(ns, 1, "yuv9") if t == IMAGE and ns == at else d) for t, ns, d in rows]
    elif name == "command":
        rows = [(t, ns, arm(ns, float("inf")) if t == ARM and ns == at else d) for t, ns, d in rows]
    elif name == "garbage":
        rows = [(t, ns, d[:40] if t == IMAGE and ns == at else d) for t, ns, d in rows]
    return sorted(rows, key=lambda row: row[1])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gap", r"topic /camera/image_raw: nothing after t=3.500 s .*for 1.000 s, expected at most 0.5 s"),
        ("backwards", r"topic /joint_states: stamps go backwards at t=4.000 s .*1.000 s older"),
        ("nan", r"topic /joint_states: joint a: nothing after t=3.980 s .*for 0.620 s, expected at most 0.5 s"),
        ("encoding", r"topic /camera/image_raw: t=4.000 s .*front: image: encoding 'yuv9'"),
        ("missing joint", r"topic /joint_states: joint a: nothing after t=3.980 s .*for 0.620 s"),
        ("nobody's", r"topic /joint_states: joint a: nothing from t=3.000 s .* to t=6.000 s"),
        ("lengths", r"topic /joint_states: t=4.000 s .*: 2 names and 1 positions, expected as many"),
        ("twice", r"topic /joint_states: t=4.000 s .*: joint 'b' is duplicated"),
        ("command", r"topic /arm/command: t=4.000 s .*command for arm: .*inf"),
        ("garbage", r"topic /camera/image_raw: t=4.000 s .*not a sensor_msgs/msg/Image"),
    ],
)
def test_bad_episodes_are_refused_with_place_and_skipped_only_when_asked(tmp_path, name, said):
    path = write_bag(tmp_path / "bag", damaged(name))
    with pytest.raises(InputError, match=rf"(?s)bag .*bag: episode 1 \('point'\): {said}.*"):
        build_dataset([path], tmp_path / "data", ROBOT, OPTIONS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bag"]
    report = build_dataset([path], tmp_path / "data", ROBOT, OPTIONS, skip_bad=True)
    assert report.episodes == 1 and len(report.problems) == 1
    assert [e.instruction for e in Dataset(tmp_path / "data").episodes] == ["wave"]


def test_bags_that_are_no_use(tmp_path, monkeypatch):
    def refuse(path, said, **options):
        with pytest.raises(InputError, match=said):
            build_dataset([path], tmp_path / "data", ROBOT, replace(OPTIONS, **options), skip_bad=True)
        assert not (tmp_path / "data").exists()

    rows = two_episodes()
    refuse(write_bag(tmp_path / "a", [r for r in rows if r[0] != TEXT]), "a: no episodes: no instruction between")
    refuse(write_bag(tmp_path / "b", [r for r in rows if r[0] != HAND]), r"/hand/command \(command/hand\) is missing")
    monkeypatch.setitem(TYPES, HAND, "std_msgs/msg/String")
    refuse(write_bag(tmp_path / "c", [(t, n, text("x")) if t == HAND else (t, n, d) for t, n, d in rows]),
           "/hand/command .* is a std_msgs/msg/String, expected std_msgs/msg/Float64MultiArray")  # fmt: skip
    monkeypatch.undo()
    path = write_bag(tmp_path / "d", rows)
    refuse(path, "(?s)no episode can be used.*frames from .*expected at least 9", min_seconds=9.0)
    refuse(path, "no episodes: no run of RunInstruction", by="task")
    with pytest.raises(InputError, match="exists already"):
        build_dataset([path], path, ROBOT, OPTIONS)
    file = path / "d_0.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    refuse(path, "d: cannot be read.*vla-ros bag repair")


def test_a_full_disk(tmp_path, small_disk):
    rows = [(t, ns, image(ns, ns % 251) if t == IMAGE else d) for t, ns, d in messages(30.0)]
    path = write_bag(tmp_path / "bag", rows)
    (small_disk / "mine").write_bytes(b"x" * 580_000)
    with pytest.raises(InputError, match=r"dataset .*data: cannot be written: .*[Nn]o space"):
        build_dataset([path], small_disk / "data", ROBOT, OPTIONS)
    assert [p.name for p in small_disk.iterdir()] == ["mine"]
    with pytest.raises(InputError, match=r"repaired: cannot be written: No space left"):
        repair(path, small_disk / "repaired")
    assert [p.name for p in small_disk.iterdir()] == ["mine"]


def test_a_read_only_folder(tmp_path, small_disk):
    path = write_bag(tmp_path / "bag", two_episodes())
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(InputError, match=r"data.*Read-only file system"):
        build_dataset([path], small_disk / "data", ROBOT, OPTIONS)
    with pytest.raises(InputError, match=r"new: Read-only file system"):
        BagWriter(small_disk / "new")


def test_the_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    path = write_bag(tmp_path / "bag", two_episodes())
    robot = write_robot(tmp_path / "robot.yaml")
    data = tmp_path / "data"
    command = ["dataset", "build", str(path), str(path), "-o", str(data), "--robot", str(robot), "--image-size", "16"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "4 episodes, 100 frames (10.0 s)" in said
    assert said.startswith("10 frames a second (the default, the robot file's cameras: front ")
    assert "; --fps sets another); step_dt of a policy trained on them is 0.1 s\n" in said
    assert main([*command, "--fps", "0"]) == 2 and "fps 0.0, expected above 0" in capsys.readouterr().err
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    before = sorted(data.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(["dataset", "show", "data"]) == 0
    shown = capsys.readouterr().out
    assert "camera front: 16x12" in shown and "point" in shown
    sheet = cv2.imread(str(tmp_path / "data_contact_sheet.png"))
    assert sheet.shape[1] > 900 and sheet.std() > 10
    assert main(["dataset", "show", "data", "--output", "other.png"]) == 0 and (tmp_path / "other.png").exists()
    assert sorted(data.rglob("*")) == before  # it stays as it is


def test_a_camera_with_a_clock_of_its_own(tmp_path):
    """Refused with the option that helps; with it, the frames are those of a camera on the robot's clock."""
    boot = START - 500 * NS
    rows = [(topic, ns, image(ns - boot, round((ns - START) / 1e8)) if topic == IMAGE else data)
            for topic, ns, data in messages(2.0)]  # fmt: skip
    foreign = write_bag(tmp_path / "foreign", rows)
    with pytest.raises(InputError, match=r"camera/image_raw: t=0.000 .*this camera does not use the system clock: set"):
        plan_bag(foreign, ROBOT, OPTIONS)
    robot = replace(ROBOT, cameras=(replace(ROBOT.cameras[0], stamps="arrival"),))
    right = write_bag(tmp_path / "right", messages(2.0))
    index, (one,), _ = plan_bag(right, ROBOT, OPTIONS)
    other_index, (other,), _ = plan_bag(foreign, robot, OPTIONS)
    assert (one.times == other.times).all() and len(one.times) > 10
    with Bag(right) as bag, Bag(foreign) as other_bag:
        for a, b in zip(read_frames(bag, ROBOT, index, [one]), read_frames(other_bag, robot, other_index, [other]),
                        strict=True):  # fmt: skip
            assert a.observation.images["front"].tobytes() == b.observation.images["front"].tobytes()


def test_one_stamp_of_another_clock_costs_its_episode(tmp_path):
    rows, first = two_episodes(), True
    for k, (topic, ns, _) in enumerate(rows):
        if topic == IMAGE and first and ns > START + NS:
            rows[k], first = (topic, ns, image(ns + 60 * NS, 0)), False
    _, (other,), (said,) = plan_bag(write_bag(tmp_path / "bag", rows), ROBOT, OPTIONS)
    assert other.number == 1 and "this camera does not use the system clock" in str(said)


def test_what_is_published_once_may_be_older_than_the_bag(tmp_path, monkeypatch):
    """As old as the program that published it; it is no clock of its own."""
    name = "geometry_msgs/msg/PointStamped"
    monkeypatch.setitem(TYPES, "/base", name)
    point = kind(name)(header(START - 600 * NS), kind("geometry_msgs/msg/Point")(1.0, 2.0, 3.0))
    bag = write_bag(tmp_path / "bag", [("/base", START, raw(point)), *messages(2.0)])
    base = Stream("base", "base", name, select=("point.x",), max_age=None)
    index, (one,), problems = plan_bag(bag, replace(ROBOT, streams=(base,)), OPTIONS)
    assert len(one.times) > 10 and not problems
    with pytest.raises(InputError, match="/base: .*these stamps do not use the system clock"):
        plan_bag(bag, replace(ROBOT, streams=(replace(base, max_age=0.5),)), OPTIONS)


def test_images_of_another_size_are_said_and_of_two_sizes_refused(tmp_path):
    half = kind("sensor_msgs/msg/Image")(header(START), 12, 16, "rgb8", 0, 48, pixels(0)[::2, ::2].reshape(-1))

    def smaller(ns):
        half.header.stamp.sec, half.header.stamp.nanosec = divmod(ns, NS)
        return raw(half)

    all_of_it = [(t, ns, smaller(ns) if t == IMAGE else data) for t, ns, data in messages(2.0)]
    report = build_dataset([write_bag(tmp_path / "a", all_of_it)], tmp_path / "da", ROBOT, OPTIONS)
    (said,) = report.notes
    assert "camera front: images of 16x12 pixels, the robot file says 32x24" in said
    assert Dataset(tmp_path / "da").image_size("front") == (12, 16)
    from_one_on = [(t, ns, smaller(ns) if t == IMAGE and ns > START + NS else d) for t, ns, d in messages(2.0)]
    with pytest.raises(InputError, match="camera front: from frame 11 on images of 16x12 pixels, before of 32x24"):
        build_dataset([write_bag(tmp_path / "b", from_one_on)], tmp_path / "db", ROBOT, OPTIONS)
    assert not (tmp_path / "db").exists()


def test_an_instruction_that_cannot_be_read_ends_the_episode(tmp_path):
    """What follows would be taken for the instruction before it; the note says so, once."""
    bad = [(TEXT, START + 2 * NS + k, b"garbage") for k in range(2)]
    rows = sorted([*messages(4.0), *bad], key=lambda row: row[1])
    report = build_dataset([write_bag(tmp_path / "bag", rows)], tmp_path / "data", ROBOT, OPTIONS)
    assert (report.episodes, report.frames) == (1, 20)
    (note,) = report.notes
    assert "/instruction: t=2.000 s" in note and "not CDR" in note


def test_frames_of_a_takeover_are_marked(tmp_path, capsys, monkeypatch):
    """By the stamps of the executor's statuses, whatever it says between them."""
    monkeypatch.setitem(TYPES, "/executor_node/status", "vla_ros/msg/ExecutorStatus")
    monkeypatch.setitem(TYPES, "/outcome", "vla_ros/msg/Outcome")

    def said(seconds, state):
        ns, made = START + round(seconds * NS), kind("vla_ros/msg/ExecutorStatus")
        none = {"str": "", "list[str]": [], "int": 0, "float": 0.0, "bool": False}
        values = {f.name: none.get(f.type, np.zeros(0)) for f in fields(made) if "ClassVar" not in f.type}
        values["refusal_counts"] = np.zeros(0, np.uint64)
        message = made(**(values | {"header": header(ns), "state": state, "chunk_stamp": stamp(0)}))
        return "/executor_node/status", ns + 90_000_000, raw(message)  # heard late

    states = [(0.0, 3), (0.45, 7), (0.5, 7), (0.95, 4), (1.2, 3), (3.5, 7), (5.8, 4)]
    outcome = kind("vla_ros/msg/Outcome")(
        header=header(0), outcome=2, by="operator", message="slipped", instruction="", goal_id=np.zeros(16, np.uint8),
        time_limit=0.0, success_topic="", elapsed=0.0,
    )  # fmt: skip
    rows = [*two_episodes(), *(said(*state) for state in states), ("/outcome", START + 2 * NS, raw(outcome))]
    bag = write_bag(tmp_path / "bag", sorted(rows, key=lambda row: row[1]))
    build_dataset([bag], tmp_path / "data", ROBOT, OPTIONS)
    dataset = Dataset(tmp_path / "data")
    first, second = dataset.episodes
    assert np.flatnonzero(dataset.by_person[: first.stop]).tolist() == list(range(5, 10))  # 0.5 to 0.9 s
    assert np.flatnonzero(dataset.by_person[second.start :]).tolist() == list(range(5, 28))
    assert "next.success" not in dataset.info["features"]  # of one episode nobody said
    outcome = kind("vla_ros/msg/Outcome")(**(vars(outcome) | {"outcome": 1}))
    rows.append(("/outcome", START + 6 * NS, raw(outcome)))
    bag = write_bag(tmp_path / "judged", sorted(rows, key=lambda row: row[1]))
    build_dataset([bag], tmp_path / "both", ROBOT, OPTIONS)
    dataset = Dataset(tmp_path / "both")
    done, success = (dataset._columns({f"next.{k}": ((1,), "bool")})[f"next.{k}"] for k in ("done", "success"))
    ends = [episode.stop - 1 for episode in dataset.episodes]
    assert main(["dataset", "check", str(tmp_path / "both"), "--rows-only"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "outcomes: 1 failure, 1 success; commanded by a person: 28 frames (56%) of 2 episodes" in said
    assert np.flatnonzero(done).tolist() == ends and np.flatnonzero(success).tolist() == ends[1:]


def test_outcomes_are_in_the_dataset(tmp_path, capsys, monkeypatch):
    """The last one said of an episode counts; of an instruction by name also when the next one has begun."""
    monkeypatch.setitem(TYPES, "/outcome", "vla_ros/msg/Outcome")

    def said(seconds, outcome, by, instruction=""):
        message = kind("vla_ros/msg/Outcome")(
            header=header(0), outcome=outcome, by=by, message="", instruction=instruction,
            goal_id=np.zeros(16, np.uint8), time_limit=0.0, success_topic="", elapsed=0.0,
        )  # fmt: skip
        return "/outcome", START + round(seconds * NS), raw(message)

    rows = [*two_episodes(), said(2.1, 2, "time_limit", "wave"), said(2.5, 1, "operator"), said(4.0, 3, "client"),
            said(5.0, 2, "nobody", "something else"), ("/outcome", START + 6 * NS, b"\0\1\0\0junk")]  # fmt: skip
    bag = write_bag(tmp_path / "bag", sorted(rows, key=lambda row: row[1]))
    robot = write_robot(tmp_path / "robot.yaml")
    build = ["dataset", "build", str(bag), "--robot", str(robot), "-o"]
    assert main([*build, str(tmp_path / "data")]) == 0
    episodes = Dataset(tmp_path / "data").episodes
    assert [(e.instruction, e.outcome) for e in episodes] == [("wave", "success"), ("point", "aborted")]
    sources = json.loads((tmp_path / "data" / "meta" / "vla_ros_sources.json").read_text())["episodes"]
    assert [(row["outcome"], row["by"]) for row in sources] == [("success", "operator"), ("aborted", "client")]
    monkeypatch.setenv("COLUMNS", "200")
    capsys.readouterr()
    assert main(["dataset", "show", str(tmp_path / "data"), "-o", ""]) == 0
    assert "1 success" in capsys.readouterr().out
    assert main(["bag", "show", str(bag)]) == 0
    shown = capsys.readouterr().out
    assert "t=2.500 s: the instruction in force: success (operator)" in shown and "left out: " in shown
    assert main([*build, str(tmp_path / "good"), "--succeeded"]) == 0
    assert [e.instruction for e in Dataset(tmp_path / "good").episodes] == ["wave"]
