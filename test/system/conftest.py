"""Fixtures of the whole-graph tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="whole-graph tests need ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from system.support import Lasting, Probe, free_domain

from vla_ros.graph.processes import Graph

# Files that take longest, longest first: of two workers neither shall begin one of them when the other has finished.
LONG = (
    "test_readme", "test_demo", "test_loop", "test_faults", "test_executor", "test_operator", "test_eval",
    "test_policy_node", "test_instructions", "test_soak", "test_remote_policy", "test_replay", "test_run",
)  # fmt: skip


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    """A graph on a domain of its own; every process it starts is gone afterwards."""
    with Graph(tmp_path / "graph", domain=free_domain()) as made:
        yield made


@pytest.fixture
def probe(graph: Graph) -> Probe:
    return Probe(graph)


@pytest.fixture(scope="module")
def lasting() -> Iterator[Lasting]:
    with Lasting() as made:
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A whole graph over DDS gets a second chance, which the summary shows as RERUN.

    Discovery between processes has no order that a test could wait for in every case; ROS 2's own CI does the same
    (`colcon test --retest-until-pass`). `-p no:rerunfailures` turns it off, for looking for rare failures.
    """
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed:
        if lasting := item.funcargs.get("lasting"):
            lasting.broken = True
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Why a test got its second chance."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.write_sep("_", f"first try of {report.nodeid}")
        terminalreporter.write_line(report.longreprtext[-4000:])
