"""A sensor that may be missing: with it, without it, on a robot that has none, and one that must be there."""

from dataclasses import replace

import families
import numpy as np
import pytest
import torch
from messages.test_observation import JOINT_STATES, ROBOT, SECOND, image, joints, stamped
from policies.modular.test_modular import SMALL

from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.core.robot import RobotSpec
from vla_ros.core.stream import Stream
from vla_ros.messages.observation import NotReady, ObservationBuilder
from vla_ros.policies import load, registry, save
from vla_ros.runtime.history import example_sample, make_sample, observe
from vla_ros.runtime.serving import check_robot

DATA = replace(families.data(), streams={"lidar": (12, 3), "imu": (4,)})
VALUES = {"lidar": np.random.default_rng(0).normal(size=(1, 12, 3)), "lidar_count": np.array([7]),
          "imu": np.ones((1, 4))}  # fmt: skip


def build(**changes):
    torch.manual_seed(0)
    parts = {"encoders": {"lidar": {"kind": "points", "queries": 4}, "imu": "numbers"}, "missing": {"lidar": 0.5}}
    loaded = registry.build("modular", SMALL | parts | changes, DATA)
    loaded.policy.eval()
    return loaded


def batch_of(loaded, *samples):
    one = replace(families.sample(loaded.processor), values=VALUES)
    without = {name: value for name, value in VALUES.items() if not name.startswith("lidar")}
    return loaded.processor.inputs([replace(one, values=VALUES if there else without) for there in samples])


def test_a_policy_without_its_sensor_answers_as_it_has_learned_to(tmp_path):
    loaded = build()
    assert loaded.processor.optional == ("lidar",) and loaded.processor.streams == ("lidar", "imu")
    both = loaded.policy.predict(batch_of(loaded, True, False))
    for row, there in enumerate((True, False)):  # in a batch as alone
        alone = loaded.policy.predict(batch_of(loaded, there))
        torch.testing.assert_close(both[row], alone[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(both[0], both[1], atol=1e-5)
    with torch.no_grad():
        loaded.policy.absent["lidar"] += 0.5
    moved = loaded.policy.predict(batch_of(loaded, True, False))
    torch.testing.assert_close(moved[0], both[0])
    assert not torch.allclose(moved[1], both[1], atol=1e-5)
    save(tmp_path / "x", loaded)
    again = load(tmp_path / "x")
    again.policy.eval()
    torch.testing.assert_close(again.policy.predict(batch_of(again, True, False)), moved)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_training_leaves_it_out_now_and_then(share):
    loaded = build(missing={"lidar": share})
    there, tokens = torch.ones(400, 2, dtype=torch.bool), torch.zeros(800, 4, 32)
    with torch.no_grad():
        loaded.policy.absent["lidar"].fill_(1.0)
        assert not loaded.policy._known("lidar", tokens, there).any()
        loaded.policy.train()
        gone = loaded.policy._known("lidar", tokens, there)[:, 0, 0].unflatten(0, (400, 2))
    assert (gone[:, 0] == gone[:, 1]).all()  # from all steps of a sample, or from none
    assert abs(float(gone.mean()) - share) < 0.1


def test_on_the_robot_it_may_come_go_or_never_be():
    lidar = Stream("lidar", "lidar", "std_msgs/msg/Float32MultiArray", shape=(12, 3), paces=True, max_age=0.2)
    robot = replace(ROBOT, cameras=ROBOT.cameras, streams=(lidar,))
    names = ("front", "wrist", JOINT_STATES, "lidar")

    def build_at(robot: RobotSpec, second: float, scans=()):
        builder = ObservationBuilder(robot, names=names, optional=("lidar",))
        for camera in ("front", "wrist"):
            builder.add(camera, image(camera, second, 1))
        builder.add(JOINT_STATES, joints(second, 0.1))
        for at, numbers in scans:
            builder.add("lidar", stamped(at, data=np.full(numbers, at)), round(at * SECOND))
        assert "lidar" not in builder.paced and not builder.problems(round(second * SECOND))
        return builder.build(round(second * SECOND))

    assert build_at(robot, 1.0, [(0.9, 36)]).values["lidar"].shape == (12, 3)
    assert build_at(robot, 1.5, [(0.9, 36)]).values == {}  # too old
    assert build_at(ROBOT, 1.0).values == {}  # the robot has none
    with pytest.raises(NotReady, match=r"lidar: shape \[35\]"):  # one that sends rubbish is not missing
        build_at(robot, 1.0, [(0.9, 35)])
    with pytest.raises(InputError, match="no stream 'lidar'"):
        ObservationBuilder(ROBOT, names=names)


def test_a_robot_without_it_is_served_and_one_without_the_other_is_refused():
    processor = build().processor
    imu = Stream("imu", "imu", "std_msgs/msg/Float32MultiArray", shape=(4,))
    robot = replace(RobotSpec.load("so101"), streams=(imu,))
    check_robot(processor, robot)
    sample = example_sample(robot, processor)
    assert set(sample.values) == {"imu"} and set(processor.inputs([sample])) >= {"there lidar", "count lidar"}
    with pytest.raises(InputError, match="the policy reads stream 'imu', robot so101 has"):
        check_robot(processor, replace(robot, streams=()))
    images = {camera: sample.images[camera][0] for camera in processor.cameras}
    seen = Observation(0, images, sample.state[0], values={"imu": np.ones(4)})
    assert set(make_sample(observe(lambda stamp, names: seen, 0, processor), processor, "go").values) == {"imu"}


def test_what_has_no_encoder_cannot_be_missing():
    with pytest.raises(InputError, match=r"missing: 'radar', expected some of the streams with an encoder: \['imu'"):
        build(missing={"radar": 0.1})
    with pytest.raises(InputError, match="missing"):
        build(missing={"lidar": 0.95})
