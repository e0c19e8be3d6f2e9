"""The launcher itself: transitions, refusals in the node's own words, and nothing left running."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python

from vla_ros.core.resources import config_file
from vla_ros.graph.processes import Graph, GraphError
from vla_ros.nodes.parameter_files import sections

NODE = """
from dataclasses import dataclass
import sys
from vla_ros.core.errors import InputError
from vla_ros.nodes.base import ManagedNode, spin_node
from vla_ros.nodes.parameters import NodeParameters, parameter

@dataclass(frozen=True)
class Parameters(NodeParameters):
    color: str = parameter("red", "a colour")

class Node(ManagedNode):
    def __init__(self):
        super().__init__("example", Parameters)
    def configure(self):
        if self.parameters.color != "red":
            raise InputError(f"color {self.parameters.color!r}, expected red")

sys.exit(spin_node(Node))
"""


@pytest.fixture
def module(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "example_node.py").write_text(NODE)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}


def test_transitions_refusals_and_ends(graph: Graph, module):
    graph.start("good", "example_node", environment=module, parameters={"color": "red"})
    graph.start("bad", "example_node", environment=module, parameters={"color": "blue"})
    graph.bring_up("good")
    assert graph.state("good") == 3
    with pytest.raises(GraphError, match="color 'blue', expected red"):
        graph.configure("bad")
    assert graph.state("bad") == 1
    pids = [process.popen.pid for process in graph.processes.values()]
    graph.kill("good", signal.SIGKILL)
    graph.processes["bad"].popen.kill()
    with pytest.raises(GraphError, match="node bad ended with status -9"):
        graph.wait_for(lambda: False, "nothing")
    graph.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_callback_that_fails_is_said(graph: Graph):
    graph.node.create_timer(0.0, lambda: {}["x"])
    with pytest.raises(GraphError, match="messages are no longer received: KeyError"):
        graph.wait_for(lambda: False, "nothing")


def test_a_graph_moves_nobody_elses_nodes(graph: Graph, module, tmp_path: Path, monkeypatch):
    graph.start("example", "example_node", environment=module)
    graph.configure("example")
    with Graph(tmp_path / "other", domain=graph.domain) as other:
        other.wait_for(lambda: other._named("example"), "the discovery of the first one")
        with pytest.raises(GraphError, match="node /example: another program has a node of this name"):
            other.start("example", "example_node", environment=module)
        assert not other.processes
        # Nor where it does not know of it: what is started at the same moment is discovered later.
        monkeypatch.setattr(other, "_refuse_others", lambda name: None)
        other.start("example", "example_node", environment=module, parameters={"color": "red"})
        other.bring_up("example")
        assert (other.state("example"), graph.state("example")) == (3, 2)
        graph.wait_for(lambda: len(graph._named("example")) == 2, "the discovery of the second one")
        with pytest.raises(GraphError, match="another program has a node of this name"):
            graph.activate("example")


def test_parameter_files_hold_in_a_namespace_and_what_is_given_wins(graph: Graph, tmp_path: Path):
    """Each shipped file, changed so that it differs from the defaults; the values are those that the graph is told."""
    changes = {"executor.yaml": ("dry_run: false", "dry_run: true"), "executor_demo.yaml": ("automatic", "confirm"),
               "policy.yaml": ("max_age: 0.5", "max_age: 0.25")}  # fmt: skip
    files, expected = {"executor_node": [], "policy_node": []}, {"executor_node": {}, "policy_node": {}}
    for name, (old, new) in changes.items():
        text = config_file(name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new))
        node = name.split("_")[0].split(".")[0] + "_node"
        files[node].append(tmp_path / name)
        expected[node] |= sections(tmp_path / name)[f"/**/{node}"]
    # ROS lets the section win that appeared last, wherever it is set again: what is given must not lose to that.
    everybody, own = tmp_path / "everybody.yaml", tmp_path / "own.yaml"
    everybody.write_text("/**: {ros__parameters: {reliable_sensors: true, robot: everybodys}}")
    own.write_text("/left/executor_node: {ros__parameters: {robot: a file's, mode: latest}}")
    given = {"executor_node": {"robot": "so101"}, "policy_node": {}}
    with Graph(tmp_path / "left", domain=graph.domain, namespace="left") as left:
        left.start("executor_node", parameters=given["executor_node"], defaults={"jump_limit": 9.0, "urdf": "default"},
                   files=[*files["executor_node"], everybody, own])  # fmt: skip
        left.start("policy_node", files=[*files["policy_node"], everybody])
        expected["executor_node"] |= {"robot": "so101", "mode": "latest", "urdf": "default"}
        expected["policy_node"] |= {"robot": "everybodys"}
        for node, values in expected.items():
            values["reliable_sensors"] = True
            client = left.node.create_client(GetParameters, f"/left/{node}/get_parameters")
            answer = left.call(client, GetParameters.Request(names=list(values)))
            found = [parameter_value_to_python(value) for value in answer.values]
            assert dict(zip(values, found, strict=True)) == values


PROGRAM = """
import sys, time
from vla_ros.graph.processes import Graph
with Graph(sys.argv[1], domain=int(sys.argv[2])) as graph:
    graph.start("example", "example_node")
    graph.bring_up("example")
    print(graph.processes["example"].popen.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_process(tmp_path: Path, module, number):
    from system.support import DEADLINE, free_domain

    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "graph"), str(free_domain())],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | module,
    )
    try:
        child = psutil.Process(int(program.stdout.readline()))
        program.send_signal(number)
        program.wait(timeout=DEADLINE)
        try:
            child.wait(timeout=DEADLINE)
        except psutil.NoSuchProcess:
            pass  # gone before we looked
        assert not child.is_running()
    finally:
        program.kill()
        program.communicate()


def test_a_node_that_nobody_can_reach_any_more_says_so_and_ends(graph: Graph, module):
    graph.start("good", "example_node", environment=module)
    graph.bring_up("good")
    threads = Path(f"/proc/{graph.processes['good'].popen.pid}/task").glob("*/comm")
    names = [name.read_text().strip() for name in threads]
    port = next(name for name in names if name.startswith("dds.shm.") and name[8:].isdigit())[8:]
    Path(f"/dev/shm/fastdds_port{port}").unlink()
    with pytest.raises(GraphError, match=f"node good ended with status 3: .*shared-memory port {port}"):
        graph.wait_for(lambda: False, "its end")


HANGING = """
import sys, threading
from vla_ros.graph.processes import Graph
from vla_ros.nodes import base
base.ENDING = 0.1
with Graph(sys.argv[1], domain=int(sys.argv[2])) as graph:
    graph.node.destroy_node = threading.Event().wait
    print("a result", end="")
"""


def test_a_middleware_that_hangs_at_the_end_ends_the_process(tmp_path: Path):
    from system.support import DEADLINE, free_domain

    command = [sys.executable, "-c", HANGING, str(tmp_path), str(free_domain())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout) == (1, "a result")
    assert "destroy_node" in done.stderr or "__exit__" in done.stderr


BRAKING = NODE.replace("sys.exit", """
import os, time
def deactivate(self):
    open(FILE + ".brakes", "w").close()
    while not os.path.exists(FILE + ".rest"):
        time.sleep(0.01)
    open(FILE + ".stopped", "w").close()
Node.deactivate, FILE = deactivate, os.environ["BRAKING"]
sys.exit""")


@pytest.mark.parametrize("third", [False, True])
def test_a_further_signal_lets_the_nodes_brake_and_a_third_does_not(tmp_path: Path, module, third):
    from system.support import DEADLINE, free_domain

    (tmp_path / "example_node.py").write_text(BRAKING)
    file = tmp_path / "file"
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "graph"), str(free_domain())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | module | {"BRAKING": str(file)},
    )

    def insist(word: str) -> None:
        while not select.select([program.stderr], [], [], 0.1)[0]:
            program.send_signal(signal.SIGINT)
        line = program.stderr.readline()
        assert word in line, line

    try:
        child = psutil.Process(int(program.stdout.readline()))
        program.send_signal(signal.SIGINT)
        while not file.with_suffix(".brakes").exists():
            assert program.poll() is None
            time.sleep(0.01)
        insist("[WARN] SIGINT again")
        program.send_signal(signal.SIGTERM)
        if third:
            insist("[FATAL] third SIGINT")
        else:
            file.with_suffix(".rest").touch()
        program.wait(timeout=DEADLINE)
        assert not child.is_running()
        assert file.with_suffix(".stopped").exists() != third
    finally:
        program.kill()
        program.communicate()
