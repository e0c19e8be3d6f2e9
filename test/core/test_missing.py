"""A package that is not installed is named in one line, with the file that installs it."""

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from vla_ros.core.missing import MODULES, what_to_install

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
# Program: its module, a package that it cannot do without, and the file that has it.
PROGRAMS = {
    "policy_node": ("vla_ros.nodes.policy_node", "torch", "base.txt"),
    "executor_node": ("vla_ros.nodes.executor_node", "numpy", "base.txt"),
    "sim_node": ("vla_ros.nodes.sim_node", "mujoco", "sim.txt"),
    "recorder_node": ("vla_ros.nodes.recorder_node", "rosbags", "bags.txt"),
    "task_node": ("vla_ros.nodes.task_node", "rclpy", "setup.bash"),
    "vla-ros": ("vla_ros.cli.main", "yaml", "base.txt"),
}


def pinned(name: str) -> dict[str, str]:
    """Package -> the version of a requirements file."""
    lines = (line.split("#")[0].strip() for line in (REQUIREMENTS / f"{name}.txt").read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


def test_every_program_names_what_is_missing(tmp_path):
    running = {}
    for name, (module, missing, _) in PROGRAMS.items():
        (tmp_path / name).write_text(
            f"import sys\nsys.modules[{missing!r}] = None\nfrom {module} import main\nmain(['info', 'so101'])\n"
        )
        running[name] = subprocess.Popen(
            [sys.executable, tmp_path / name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    for name, (_, missing, file) in PROGRAMS.items():
        _, errors = running[name].communicate(timeout=300)
        lines = errors.splitlines()
        assert running[name].returncode == 1, name
        assert len(lines) == 1 and lines[0].startswith(f"[ERROR] {missing} ") and file in lines[0], (name, errors)


def test_every_package_of_a_requirements_file_is_known():
    brought = packages_distributions()
    for name, modules in MODULES.items():
        packages = {package.lower() for module in modules for package in brought.get(module, ())}
        # One is optional; what cmeel built keeps its modules in a folder of its own.
        assert name in ("view", "tool") or {package.lower() for package in pinned(name)} <= packages, name


def test_a_workspace_gets_the_same_versions():
    everything = {package: version for name in MODULES for package, version in pinned(name).items()}
    assert pinned("workspace").items() <= everything.items()
    # What is left out is in package.xml.
    left_out = set(pinned("base") | pinned("bags") | pinned("sim")) - set(pinned("workspace"))
    assert left_out == {"numpy", "opencv-python-headless", "pillow", "pyyaml", "rich", "matplotlib"}


def test_the_workspace_file_is_named_where_a_distribution_is_sourced(monkeypatch):
    error = ModuleNotFoundError("No module named 'mujoco'", name="mujoco")
    assert str(REQUIREMENTS / "sim.txt") in what_to_install(error)
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert str(REQUIREMENTS / "workspace.txt") in what_to_install(error)
    # What is left out of it comes from the distribution.
    said = what_to_install(ModuleNotFoundError("No module named 'cv2'", name="cv2"))
    assert "rosdep install" in said and "workspace.txt" not in said


def test_other_errors_keep_their_traceback():
    assert what_to_install(ModuleNotFoundError("x", name="vla_ros.nodes.nothing")) == ""
    assert what_to_install(ImportError("cannot import name 'x' from 'torch'", name="torch")) == ""
    assert what_to_install(ValueError("torch")) == ""
