"""A demo that does not keep up with real time is run again in simulated time."""

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="the demo needs ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from remote_servers import scripted

from vla_ros.cli import demo
from vla_ros.cli.main import main
from vla_ros.graph.demo import DemoGraph, TooSlow
from vla_ros.graph.keeping_up import KeepingUp
from vla_ros.msg import ExecutorStatus, PolicyStatus
from vla_ros.runtime.remote.wire import pack
from vla_ros.sim.worlds import SCENES

SLOW = "this machine is too slow: control rate 41 Hz of 100"


@pytest.mark.parametrize("real_time", [False, True])
def test_what_is_slow_ends_the_run_in_real_time_or_is_said(real_time: bool, capsys, monkeypatch):
    moments = iter([0.0, 3.5, 4.0])
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    graph = DemoGraph.__new__(DemoGraph)  # without its processes
    graph.keeping_up, graph.args = KeepingUp(10.0, 100.0), SimpleNamespace(real_time=real_time)
    graph.console = SimpleNamespace(print=lambda words, **options: print(words))
    graph.watch = SimpleNamespace(policy=PolicyStatus(state=PolicyStatus.RUNNING, chunks=50, rate=9.8),
                                  executor=ExecutorStatus(state=ExecutorStatus.EXECUTING, control_rate=41.0))
    graph._look_for_slowness()
    if real_time:
        graph._look_for_slowness()
        graph._look_for_slowness()
        assert capsys.readouterr().out.startswith(f"{SLOW}; --lockstep") and next(moments, None) is None
    else:
        with pytest.raises(TooSlow, match=SLOW):
            graph._look_for_slowness()


def test_it_runs_again_in_lockstep_without_the_first_bag(tmp_path: Path, monkeypatch, capsys):
    runs = []

    def run(args, folder, console):
        (folder / "bag").mkdir(parents=True)  # the recorder refuses one that is there
        runs.append(args.lockstep)
        if not args.lockstep:
            raise TooSlow(SLOW)
        return 0

    monkeypatch.setattr(demo, "_run", run)
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    assert runs == [False, True] and f"{SLOW}; starting again with --lockstep" in capsys.readouterr().out


def test_the_nodes_get_a_policys_url_as_it_is_and_a_path_that_they_find(tmp_path: Path, monkeypatch):
    given = []
    monkeypatch.setattr(demo, "_run", lambda args, folder, console: given.append(args.policy) or 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy").mkdir()
    with scripted(lambda connection: connection.send(pack({}))) as port:
        for number, policy in enumerate((url := f"ws://127.0.0.1:{port}", "policy")):
            assert main(["demo", "--policy", policy, "-o", str(tmp_path / str(number))]) == 0
    assert given == [url, str(tmp_path.resolve() / "policy")]


def test_each_scene_has_sentences_of_its_own(tmp_path: Path, monkeypatch):
    given = []
    assert set(demo.INSTRUCTIONS) == set(SCENES)
    monkeypatch.setattr(demo, "_run", lambda args, folder, console: given.append(args.instructions) or 0)
    assert main(["demo", "--robot", "lekiwi_sim", "--policy", str(tmp_path), "-o", str(tmp_path / "demo")]) == 0
    assert given == [["drive to the red post", "drive to the blue post", "drive to the green post"]]


@pytest.mark.parametrize("arguments, why", [
    (["--scene", "bench", "--robot", "lekiwi_sim"], "scene bench: robot lekiwi_sim has room"),
    (["--scene", "kitchen"], "scene kitchen: robot so101 has cubes, bench ("),
    (["--instructions", "open the drawer"],
     "'open the drawer': a sentence of --scene bench, expected in scene cubes one like 'touch the {colour} cube', "),
    (["--instructions", "pick up the purple cube"], "'pick up the purple cube': a sentence of --scene bench, "),
    (["--instructions", "drive to the red post"], "'drive to the red post': a sentence of scene room of another robot"),
    (["--instructions", "touch the cube"], "'touch the cube': expected exactly one of the colours red, green, blue ("),
    (["--robot", "lekiwi_sim"], "--policy is missing: none is shipped for scene room of robot lekiwi_sim, expected"),
    (["--robot", "lekiwi_sim", "--instructions", "touch the red cube"], "a sentence of scene cubes of another robot"),
    (["--scene", "bench", "--instructions", "fly to the moon"], "instruction 'fly to the moon'"),
    (["--scene", "bench", "--instructions", "pick up the purple cube"], "no purple cube in this layout, expected "),
])  # fmt: skip
def test_what_the_simulator_lacks_is_refused_before_a_node_starts(tmp_path, monkeypatch, capsys, arguments, why):
    monkeypatch.setattr(demo, "_run", lambda *_: pytest.fail("started"))
    assert main(["demo", *arguments, "-o", str(tmp_path / "demo")]) == 2
    assert why in capsys.readouterr().err
