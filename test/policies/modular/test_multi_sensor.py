"""config/train/multi_sensor_tiny.yaml: many sensors in, a path of the base out; trained, saved, served, driven."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import yaml
from control.test_base_path import Ground

from vla_ros.control.admission import Refusal
from vla_ros.core.chunk import PATH, Space
from vla_ros.core.errors import InputError
from vla_ros.core.resources import config_file
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import Stream
from vla_ros.datasets.lerobot import Dataset
from vla_ros.datasets.writer import DatasetWriter
from vla_ros.policies import describe, load
from vla_ros.policies.server_file import ServerFile
from vla_ros.runtime.history import example_sample
from vla_ros.runtime.rolling import require_rolling
from vla_ros.runtime.serving import check_robot, open_session
from vla_ros.runtime.session import PolicySession, SessionOptions
from vla_ros.training.config import TrainConfig
from vla_ros.training.trainer import Trainer, open_policy

RADAR = Stream("radar", "radar", "sensor_msgs/msg/PointCloud2", points=8, select=("x", "y", "z", "velocity", "rcs"))
AXES = {"x": "x.vel", "y": "y.vel", "yaw": "theta.vel"}


@cache
def robot() -> RobotSpec:
    """With a radar, too, and without what shows the arm."""
    known = RobotSpec.load("lekiwi_sim")
    cameras = tuple(camera for camera in known.cameras if camera.name != "wrist")
    streams = tuple(one for one in known.streams if one.name != "place")
    return replace(known, cameras=cameras, streams=(*streams, RADAR))


def write(path):
    """Episodes that drive along arcs, in one speed each."""
    rng, writer = np.random.default_rng(0), DatasetWriter(path, robot(), fps=10)
    for k in range(3):
        states, actions = np.zeros((20, 9)), np.zeros((20, 9))
        states[:, 6:] = actions[:, 6:] = [0.2 - 0.1 * k, 0.05 * k, 0.5 * (k - 1)]
        actions[:, 0] = 0.1 * k
        images = {name: np.full((20, 16, 16, 3), 50 * k, np.uint8) for name in robot().camera_names}
        values = {
            "lidar": rng.normal(size=(20, 360, 3)), "lidar_count": np.full((20, 1), 200), "imu": np.ones((20, 6)),
            "front_depth": np.full((20, 60, 80, 1), 900, np.uint16), "radar": rng.normal(size=(20, 8, 5)),
            "radar_count": np.full((20, 1), k),
        }  # fmt: skip
        values = {name: value.astype(np.float32) if value.dtype == float else value for name, value in values.items()}
        writer.add_episode(images, states, actions, "drive to the red post", values=values)
    writer.finish()
    return path


def settings(folder, **changes):
    row = yaml.safe_load(config_file("train/multi_sensor_tiny.yaml").read_text())
    policy = row["policy"]
    policy["vision"] |= {"image": 24, "width": 32}
    policy["encoders"] = policy["encoders"] | {"radar": {"kind": "radar_points", "queries": 2, "heads": 2}}
    policy["encoders"]["lidar"] |= {"cells": [16, 16, 2]}
    policy["missing"] |= {"radar": 0.1}
    policy["language"] |= {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32}
    policy["head"] |= {"hidden": 32, "layers": 1, "mlp": 32, "num_steps": 2}
    policy["fusion"] |= {"layers": 1}
    policy["horizon"] = 12
    small = {"steps": 3, "batch_size": 4, "save_every": 3, "held_out": 0.3, "evaluate_samples": 4}
    places = {"dataset": str(folder / "data"), "output": str(folder / "run")}
    return TrainConfig.from_dict(row | small | places | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sensors")
    write(path / "data")
    Trainer(settings(path)).run()
    return path


def test_what_it_reads_and_answers(folder):
    rows = describe(folder / "run/checkpoints/last")
    assert rows["actions"].startswith("9 dimensions, a path of the base (x, y, yaw), absolute")
    for name, kind in (
        ("lidar", "bev: 16"), ("front_depth", "rgbd: 16"), ("imu", "numbers: 1"), ("radar", "radar_points: 2")
    ):
        assert rows[f"encoder of {name}"].startswith(f"{kind} tokens of 32")
    assert "4 x" in rows["vision"]
    loaded = load(folder / "run/checkpoints/last", robot=robot())
    statistics = loaded.processor.actions.statistics
    assert statistics["max"][0] == pytest.approx(0.4 * np.sin(0.6))  # 12 rows of 0.1 s at 0.2 m/s and 0.5 rad/s
    assert statistics["max"][2] == -statistics["min"][2] == pytest.approx(0.6)
    check_robot(loaded.processor, robot())


def test_a_path_of_what_is_no_base_is_not_trained(folder):
    data = Dataset(folder / "data")
    assert data.base == AXES
    for path, base, said in (
        ({"x": "y.vel", "y": "x.vel", "yaw": "theta.vel"}, AXES, "'y': 'y.vel'"),
        (AXES, {}, "no base that follows a path"),
    ):
        data.info["features"]["action"]["info"]["base"] = base
        with pytest.raises(InputError, match=f"path: velocities .* has .*{said}.*; expected the same"):
            open_policy(settings(folder, path=path), data)
    del data.info["features"]["action"]["info"]["base"]  # another program's
    assert open_policy(settings(folder), data).processor.path


def test_what_it_answers_is_driven(folder):
    session = open_session(folder / "run/checkpoints/last", robot(), "cpu")
    seen = example_sample(robot(), session.processor)
    values = {name: value for name, value in seen.values.items() if "radar" not in name}  # which may be missing
    (answer,) = session.infer([replace(seen, values=values, instruction="drive to the red post")])
    arm, path = answer.targets.parts
    assert arm.names == robot().joint_names[:6] and (path.names, path.space) == (PATH, Space.BASE_PATH)
    ground = Ground(robot()).activate()
    start = ground.pose.copy()
    small = replace(answer.targets, parts=(arm, replace(path, data=path.data / np.abs(path.data).max() / 5)))
    assert not isinstance(ground.send(step_dt=0.1, targets=small), Refusal)
    ground.tick(60)
    assert np.abs(ground.seen_from(start)).max() > 0.02


def test_from_another_machine_it_answers_the_same(folder):
    from remote_servers import LONG, same, serving  # skips where what it takes is not installed

    loaded = load(folder / "run/checkpoints/last", robot=robot())
    one = example_sample(robot(), loaded.processor)
    with serving(loaded, robot=robot()) as port:
        remote = open_session(f"ws://127.0.0.1:{port}", robot())
        remote.file = ServerFile(remote.file.server, deadline=LONG)
        assert remote.processor.path and not remote.processor.tool
        same(remote.infer([one])[0], PolicySession(loaded).infer([one])[0])
        remote.close()


def test_what_a_path_excludes_is_refused(folder):
    checkpoint = folder / "run/checkpoints/last"
    with pytest.raises(InputError, match="rtc: true, and the policy answers a path of the base"):
        open_session(checkpoint, robot(), "cpu", options=SessionOptions(guided=True))
    processor = load(checkpoint, robot=robot()).processor
    with pytest.raises(InputError, match="roll_state: true, and the actions are a path of the base"):
        require_rolling(processor, False, False)
    *others, base = robot().groups
    bases = (replace(base, joints=base.joints[:2], axes=("x", "y")),
             replace(base, name="turn", topic="turn", joints=base.joints[2:], axes=("yaw",)))
    straight = replace(robot(), groups=(*others, *bases))
    with pytest.raises(InputError, match="a path of the base, robot lekiwi_sim has no base that drives forwards"):
        check_robot(processor, straight)
    swapped = replace(robot(), groups=(*others, replace(base, joints=[base.joints[k] for k in (1, 0, 2)])))
    with pytest.raises(InputError, match="path: velocities .*, robot lekiwi_sim has .*; expected the same"):
        check_robot(processor, swapped)
    for changes, said in (
        ({"path": AXES | {"y": "y"}}, "path: 'y', expected velocities of the base that have actions"),
        ({"policy": settings(folder).policy | {"temporal": "lstm"}}, "path: the actions of a sample begin 7 steps"),
    ):
        config = settings(folder, **changes)
        with pytest.raises(InputError, match=said):
            open_policy(config, Dataset(folder / "data"))
