"""benchmarks/soak.py for some seconds: the graph lives through faults, and a peer finds no command outside a limit."""

from pathlib import Path

from soak import failed, soak
from system.support import free_domain

FAULTS = ["e-stop pressed for 100 ms", "garbage chunks", "executor paused", "joint states frozen"]


def test_the_graph_lives_through_faults(tmp_path: Path):
    report = soak(tmp_path, 8.0, faults=FAULTS, pause=1.0, domain=free_domain())
    assert not failed(report), report
    assert report["e_stops_sent"] >= 1 and report["moving"] > 100
    assert set(report["faults"]) == set(FAULTS)
    assert sum(report["refused_chunks"].values()) > 50
    assert {"policy_node", "executor_node"} <= set(report["memory"])
