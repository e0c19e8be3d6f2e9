"""The launcher itself: transitions, refusals in the node's own words, and nothing left running."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from vla_ros.graph.processes import Graph, GraphError

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


PROGRAM = """
import sys, time
from vla_ros.graph.processes import Graph
with Graph(sys.argv[1], domain=int(sys.argv[2])) as graph:
    graph.start("example", "example_node")
    graph.bring_up("example")
    print(graph.processes["example"].popen.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
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
