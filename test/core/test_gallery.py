"""The shipped robot files: each one loads, can be held by the limiter, and says where its numbers come from."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from vla_ros.cli.main import main
from vla_ros.control.limits import Limits
from vla_ros.core.resources import resolve_robot
from vla_ros.core.robot import RobotSpec

CONFIG = Path(__file__).parents[2] / "config"
ROBOTS = sorted(file.stem for file in (CONFIG / "robots").glob("*.yaml"))


def test_the_gallery_has_the_robots_that_the_readme_names():
    assert {"so100", "so101", "koch", "aloha", "fr3", "ur5e", "xarm6", "lekiwi", "widowx", "droid"} <= set(ROBOTS)


@pytest.mark.parametrize("name", ROBOTS)
def test_a_shipped_robot_file(name, capsys):
    robot = RobotSpec.load(name)
    assert robot.name == name
    limits = Limits.merge(robot)  # refuses limits that commands at the control rate cannot hold
    for values in (limits.lower, limits.upper, limits.velocity, limits.acceleration):
        assert np.isfinite(values).all()
    # From one end to the other within a minute, and from rest to full speed within five seconds: wrong units would not.
    assert (limits.range / limits.velocity < 60).all() and (limits.velocity / limits.acceleration < 5).all()
    angles = np.array([joint.unit == "rad" for joint in robot.joints])
    assert (np.abs(np.stack([limits.lower, limits.upper]))[:, angles] <= 2 * np.pi + 1e-4).all()
    topics = [*robot.joint_state_topics, *(s.topic for s in (*robot.cameras, *robot.groups))]
    assert not any(topic.startswith("/") for topic in topics)  # they follow a namespace
    assert main(["info", name]) == 0 and f"robot {name}: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ROBOTS)
def test_a_robot_file_says_where_its_numbers_come_from(name):
    head = resolve_robot(name).read_text(encoding="utf-8").split("name:")[0]
    if "--env " in head:  # of somebody else's simulator
        assert "github.com/" in head and "its own rules" in " ".join(head.replace("#", "").split())
        return
    assert "Topics" in head and (".yaml" in head or "publish no" in head)
    assert any(kind in head for kind in (".urdf", "joint_limits.yaml", ".xml"))


def test_the_policy_file_for_aloha_fits_the_robot_file():
    policy = yaml.safe_load((CONFIG / "policies" / "pi0_aloha.yaml").read_text(encoding="utf-8"))
    robot = RobotSpec.load("aloha")
    assert {row["joint"] for key in ("state", "actions") for row in policy[key]} == set(robot.joint_names)
    assert set(policy["cameras"].values()) <= set(robot.camera_names)
