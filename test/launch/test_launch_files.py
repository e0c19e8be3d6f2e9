"""The launch files, where a full ROS 2 installation has the launch system."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "launch"

launch = pytest.importorskip("launch", reason="launch is not installed: it comes with a full ROS 2 installation only")
pytest.importorskip("launch_ros", reason="launch_ros is not installed: it comes with a full ROS 2 installation only")


@pytest.mark.parametrize(
    ("name", "arguments", "nodes"),
    [
        ("vla.launch.py", {"robot", "policy", "device", "autostart", "use_sim_time"}, 3),
        ("demo.launch.py", {"robot", "policy", "device", "autostart", "seed"}, 2),
    ],
)
def test_a_launch_file_declares_its_arguments_and_nodes(name, arguments, nodes):
    from launch_ros.actions import LifecycleNode

    spec = spec_from_file_location(name.split(".")[0], FOLDER / name)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    assert arguments <= {argument.name for argument in description.get_launch_arguments()}
    assert sum(isinstance(entity, LifecycleNode) for entity in description.entities) == nodes
