"""The launch files, where a full ROS 2 installation has the launch system."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "launch"

launch = pytest.importorskip("launch", reason="launch is not installed: it comes with a full ROS 2 installation only")
pytest.importorskip("launch_ros", reason="launch_ros is not installed: it comes with a full ROS 2 installation only")


def description_of(name: str):
    spec = spec_from_file_location(name.split(".")[0], FOLDER / name)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@pytest.mark.parametrize(
    ("name", "arguments", "nodes"),
    [
        ("vla.launch.py", {"robot", "policy", "device", "autostart", "use_sim_time", "policy_params"}, 3),
        ("demo.launch.py", {"robot", "policy", "device", "autostart", "seed", "policy_params", "executor_params"}, 2),
    ],
)
@pytest.mark.parametrize("device", ["", "cpu"])
def test_a_launch_file_declares_its_arguments_and_nodes(name, arguments, nodes, device):
    from launch.actions import LogInfo, OpaqueFunction
    from launch_ros.actions import Node

    description = description_of(name)
    assert arguments | {"namespace", "enclaves"} <= {argument.name for argument in description.get_launch_arguments()}
    context = launch.LaunchContext()
    context.launch_configurations["device"] = device
    entities = []
    for entity in description.entities:
        entities += entity.execute(context) if isinstance(entity, OpaqueFunction) else [entity]
    assert sum(isinstance(entity, Node) for entity in entities) == nodes
    if name == "vla.launch.py":  # the demo includes it
        assert any(isinstance(entity, LogInfo) for entity in entities)
