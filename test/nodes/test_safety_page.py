"""docs/safety.md names every cause and refusal, and the parameters as the node declares them."""

from dataclasses import fields
from pathlib import Path

import pytest

from vla_ros.control.admission import AdmissionRules, Reason
from vla_ros.control.settings import Settings
from vla_ros.control.supervisor import Cause, State
from vla_ros.nodes.executor.parameters import ExecutorParameters
from vla_ros.nodes.parameters import build, table

PAGE = (Path(__file__).parents[2] / "docs" / "safety.md").read_text(encoding="utf-8")


def test_nothing_is_left_out():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for name in [*State.__members__, *Cause.__members__]:
        assert name in ("UNCONFIGURED", "NONE") or any(name in row for row in rows), name
    for reason in Reason:
        assert any(f"`{reason}`" in row for row in rows), reason


def test_the_table_of_parameters_is_the_nodes_own():
    assert table(ExecutorParameters) in PAGE


CHANGED = {"mode": "rtc", "interpolation": "cubic", "on_reversals": "hold", "resume": "confirm"}


@pytest.mark.parametrize("kind", [Settings, AdmissionRules])
def test_every_setting_is_a_parameter(kind):
    for item in fields(kind):
        if item.name != "admission":
            default = getattr(ExecutorParameters(), item.name)
            value = CHANGED.get(item.name) or type(default)(default / 2 if default > 1 else default + 0.5)
            settings = build(ExecutorParameters, {item.name: value}).settings()
            assert getattr(settings if kind is Settings else settings.admission, item.name) == value != default
