"""A folder of data runs no code: no program of ours searches the folder it is started in for modules.

Programs are started for real in a folder where the modules that they would import lie in wait.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="the nodes need ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from vla_ros import without_working_directory
from vla_ros.cli.main import COMMANDS
from vla_ros.graph.process import node_command

ROOT = Path(__file__).parents[1]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
NODES = sorted(name for name in SCRIPTS if name != "vla-ros")
MODULES = ("numpy", "yaml", "torch", "cv2", "rich", "PIL", "mujoco", "rclpy", "argparse", "pickle", "multiprocessing",
           "transformers", "safetensors", "sitecustomize", "matplotlib", "lerobot", "rerun")  # fmt: skip


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The executables of `ros2 run`, which those of pip resemble."""
    folder = tmp_path_factory.mktemp("programs")
    subprocess.run([sys.executable, ROOT / "scripts/make_executables.py", ROOT / "pyproject.toml", folder], check=True)
    return folder


def lay_trap(folder: Path, ran: Path) -> Path:
    """Modules that say so in the file `ran` when they are imported."""
    for name in (*MODULES, "vla_ros"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(
            f"open({str(ran)!r}, 'a').write({name!r} + ' in ' + ' '.join(__import__('sys').orig_argv))\n"
        )
    return folder


@pytest.fixture
def trap(tmp_path) -> Path:
    return lay_trap(tmp_path / "downloaded", tmp_path / "RAN")


def start(trap: Path, commands: dict[str, list], **environment: str) -> dict[str, tuple[int, str]]:
    """name -> (status, what it said), all at once."""
    running = {
        name: subprocess.Popen(command, cwd=trap, env=os.environ | environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for name, command in commands.items()
    }  # fmt: skip
    said = {name: popen.communicate(timeout=300)[0] for name, popen in running.items()}
    ran = trap.parent / "RAN"
    assert not ran.exists(), ran.read_text()
    return {name: (popen.returncode, said[name]) for name, popen in running.items()}


def test_the_trap_works(trap):
    with pytest.raises(AssertionError, match="numpy in"):
        start(trap, {"python": [sys.executable, "-c", "import numpy"]})


EVERY = """
import importlib, runpy, sys
program, *commands = sys.argv[1:]
sys.path[0] = program.rpartition("/")[0]  # as Python has it for a program that it is given
for command in commands:
    sys.argv = [program, command, "--help"]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        assert not end.code, command
for module in %r:
    importlib.import_module(module)
"""
POOL = """
from multiprocessing import get_context
import vla_ros

if __name__ == "__main__":
    with get_context("spawn").Pool(1) as pool:
        print(pool.map(len, ["four"]))
"""


def test_every_program_and_the_processes_of_each(trap, programs, tmp_path):
    """Those that import much are imported by one process; a node ends once it meets a name that ROS refuses."""
    (tmp_path / "every.py").write_text(EVERY % [SCRIPTS[node].split(":")[0] for node in NODES])
    (tmp_path / "vla-ros").write_text(POOL)
    name = ["--ros-args", "-r", "__node:=1bad"]
    results = start(trap, {
        "every": [sys.executable, tmp_path / "every.py", programs / "vla-ros", *COMMANDS],
        "pool": [sys.executable, tmp_path / "vla-ros"],
        "graph": node_command("1bad", "vla_ros.nodes.recorder_node", "", []),
        "ros2 run": [sys.executable, programs / "recorder_node", *name],
    })  # fmt: skip
    assert results["every"][0] == 0 and results["every"][1].count("usage: vla-ros ") == len(COMMANDS), results["every"]
    assert results["pool"] == (0, "[4]\n")
    assert all(results[node][0] and "1bad" in results[node][1] for node in ("graph", "ros2 run")), results


@pytest.mark.parametrize("path", ["{}", ":{}::"])
def test_an_empty_element_of_the_search_path_and_python_with_m(trap, path):
    """An empty element means the working directory; `python -m` puts that first, so its vla_ros would win."""
    for name in ("vla_ros", "argparse", "pickle", "multiprocessing", "sitecustomize"):  # imported before any of ours
        (trap / name / "__init__.py").unlink()
        (trap / name).rmdir()
    commands = {
        "-m": [sys.executable, "-m", "vla_ros.nodes.recorder_node", "--ros-args", "-r", "__node:=1bad"],
        "command": [sys.executable, "-m", "vla_ros.cli.main", "info", ROOT / "config/robots/so101.yaml"],
    }
    results = start(trap, commands, PYTHONPATH=path.format(os.environ["PYTHONPATH"]))
    assert "1bad" in results["-m"][1] and results["command"][0] == 0, results


def test_children_get_the_same():
    made = without_working_directory({"PYTHONPATH": ":/a::/b:", "HOME": "/h"})
    assert made == {"PYTHONPATH": "/a:/b", "HOME": "/h", "PYTHONSAFEPATH": "1", "SKIP_DEFAULT_XML_FILE": "1"}


def test_the_programs_are_known_by_their_names():
    """vla_ros/__init__.py tells them from programs that use the package by these."""
    assert all(name == "vla-ros" or name.endswith("_node") for name in SCRIPTS)
