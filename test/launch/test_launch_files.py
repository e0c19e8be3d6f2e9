"""The launch files: their arguments are documented; run for real where a workspace with launch is sourced.

Such a workspace is a full ROS 2, or the wheels of requirements/ros.txt with `launch`, `launch_ros` and what they need
built from their sources. The package itself has to be built with colcon: a launch file starts what is installed.
"""

import ast
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))


def arguments_of(path: Path) -> dict[str, str]:
    """Argument -> what it is, read without launch."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "ARGUMENTS":
            table = zip(statement.value.keys, statement.value.values, strict=True)
            return {ast.literal_eval(key): ast.literal_eval(value.elts[1]) for key, value in table}
    raise AssertionError(f"{path}: no ARGUMENTS")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_arguments_are_documented_word_for_word(path):
    page = (ROOT / "docs" / "runtime.md").read_text()
    section = page[page.index(f"### {path.name}") :]
    rows = section[: section.find("\n#", 1)].splitlines()
    documented = {row.split("|")[1].strip(" `"): row.split("|")[2].strip() for row in rows if row.startswith("| `")}
    assert documented == arguments_of(path)


RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
service = LaunchService()
given = [argument.split(":=", 1) for argument in sys.argv[2:]]
source = AnyLaunchDescriptionSource(sys.argv[1])
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=given)]))
sys.exit(service.run())
"""  # what `ros2 launch` does


def workspace() -> Path:
    """The share folder of the installed package; skips where there is no launch to run it."""
    for package in ("launch", "launch_ros"):
        if find_spec(package) is None or find_spec(package).origin is None:
            pytest.skip(f"{package} is not installed: it comes with a full ROS 2, or is built from source")
    from ament_index_python.packages import get_package_prefix

    prefix = Path(get_package_prefix("vla_ros"))
    if not (prefix / "lib" / "vla_ros" / "policy_node").is_file():
        pytest.skip(f"vla_ros is not built as a package: {prefix} has its messages alone (colcon build)")
    return prefix / "share" / "vla_ros" / "launch"


def launch(file: Path, folder: Path, domain: int, *arguments: str, **options) -> subprocess.Popen:
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "ROS_LOG_DIR": str(folder / "log")}
    return subprocess.Popen([sys.executable, "-c", RUN, file, *arguments], cwd=folder, env=environment, **options)


def test_a_refused_node_ends_the_launch_with_its_words(tmp_path):
    from system.support import free_domain

    process = launch(
        workspace() / "vla.launch.py", tmp_path, free_domain(), "robot:=so101", f"policy:={tmp_path}/none",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    last = [line for line in output.splitlines() if "[launch]: Caught exception" in line]
    assert len(last) == 1 and f"policy_node: configure refused: checkpoint {tmp_path}/none: no such" in last[0], output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_demo_follows_an_instruction_and_its_nodes_end_with_the_launch(number, tmp_path):
    """Under a namespace, in simulated time; the parameter file's word stands where no argument speaks."""
    folder = workspace()
    from std_msgs.msg import String
    from system.support import Probe, free_domain

    from vla_ros.graph.processes import Graph
    from vla_ros.msg import ActionChunk, ExecutorStatus
    from vla_ros.nodes.qos import COMMAND_QOS, STATUS_QOS

    (tmp_path / "executor.yaml").write_text("/**:\n  ros__parameters:\n    dry_run: true\n    ensemble_m: -1.0\n")
    domain = free_domain()
    arguments = (f"executor_params:={tmp_path}/executor.yaml", "namespace:=left", "use_sim_time:=true", "mode:=latest",
                 "output:=bag", "log_level:=debug")  # fmt: skip
    with (
        Graph(tmp_path / "graph", domain=domain, namespace="left") as graph,
        (tmp_path / "output").open("w") as output,
        launch(folder / "demo.launch.py", tmp_path, domain, *arguments, stdout=output, stderr=output) as process,
    ):
        try:
            probe = Probe(graph)
            probe.record("executor_node/status", ExecutorStatus, STATUS_QOS)
            probe.record("action_chunk", ActionChunk, COMMAND_QOS)

            def state() -> int:
                status = probe.last("executor_node/status")
                return status.state if status is not None else ExecutorStatus.UNCONFIGURED

            probe.wait_for(lambda: state() == ExecutorStatus.HOLDING, "the executor", 240.0)
            assert probe.last("executor_node/status").dry_run
            probe.publisher("instruction", String, readers=4).publish(String(data="touch the red cube"))
            probe.wait_message("executor_node/status", lambda s: s.state == ExecutorStatus.EXECUTING, "EXECUTING")
            nodes = psutil.Process(process.pid).children(recursive=True)
            assert len(nodes) == 5
            process.send_signal(number)
            gone, alive = psutil.wait_procs(nodes, timeout=120)
            assert not alive, alive
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=120)
    assert list(tmp_path.glob("bag/*.mcap"))
    assert "Traceback" not in (tmp_path / "output").read_text()
