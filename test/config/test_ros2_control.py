"""The example for ros2_control speaks of the same robot as its robot file."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import yaml

from vla_ros.control.limits import Limits
from vla_ros.control.urdf import load_urdf
from vla_ros.core.robot import RobotSpec

FOLDER = Path(__file__).parents[2] / "config" / "ros2_control"
ROBOT = RobotSpec.load("so101")


def test_the_controllers_are_those_of_the_robot_file():
    controllers = yaml.safe_load((FOLDER / "so101_controllers.yaml").read_text())
    manager = controllers.pop("controller_manager")["ros__parameters"]
    assert manager.pop("update_rate") >= ROBOT.control_rate
    kinds = {name: entry["type"] for name, entry in manager.items()}
    assert kinds.pop("joint_state_broadcaster") == "joint_state_broadcaster/JointStateBroadcaster"
    assert controllers.keys() == kinds.keys()
    assert set(kinds.values()) == {"joint_trajectory_controller/JointTrajectoryController"}
    groups = {group.topic: group for group in ROBOT.groups}
    assert groups.keys() == {f"{name}/joint_trajectory" for name in controllers}
    for name, entry in controllers.items():
        group, settings = groups[f"{name}/joint_trajectory"], entry["ros__parameters"]
        assert tuple(settings["joints"]) == group.joints
        assert (group.interface, group.stamp) == ("joint_trajectory", "")
        assert settings["interpolate_from_desired_state"] and not settings["constraints"]["goal_time"]
    launched = (FOLDER / "so101_mock.launch.py").read_text()
    assert all(f'"{name}"' in launched for name in ("joint_state_broadcaster", *controllers))


def test_the_urdf_has_the_joints_and_limits_of_the_robot_file():
    path = FOLDER / "so101.urdf"
    merged, own = Limits.merge(ROBOT, load_urdf(path)), Limits.merge(ROBOT)
    assert load_urdf(path).keys() == set(ROBOT.joint_names)
    for field in ("lower", "upper", "velocity"):
        assert np.array_equal(getattr(merged, field), getattr(own, field))
    control = ElementTree.parse(path).find("ros2_control")
    assert control.find("hardware/plugin").text == "mock_components/GenericSystem"
    assert [joint.get("name") for joint in control.iterfind("joint")] == list(ROBOT.joint_names)
    for joint in control.iterfind("joint"):
        assert [e.get("name") for e in joint.iterfind("command_interface")] == ["position"]
        assert [e.get("name") for e in joint.iterfind("state_interface")] == ["position", "velocity"]
