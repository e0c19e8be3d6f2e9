"""Parameters need no ROS: types, ranges and the table come from the dataclass."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from vla_ros.control.settings import Settings
from vla_ros.core.errors import InputError
from vla_ros.nodes.executor.parameters import ExecutorParameters
from vla_ros.nodes.parameter_files import sections
from vla_ros.nodes.parameters import NodeParameters, build, parameter, table
from vla_ros.nodes.policy_parameters import PolicyParameters


@dataclass(frozen=True)
class Example(NodeParameters):
    rate: float = parameter(100.0, "commands published", unit="Hz", low=1.0, high=1000.0)
    steps: int = parameter(10, "denoising steps", low=1)
    mode: str = parameter("ensemble", "blending", choices=("ensemble", "latest"), live=True)
    names: tuple[str, ...] = parameter((), "topics")


def test_defaults_and_values():
    assert build(Example, {}) == Example()
    built = build(Example, {"rate": 50, "names": ["a", "b"], "mode": "latest"})
    assert built.rate == 50.0 and isinstance(built.rate, float)
    assert built.names == ("a", "b")


@pytest.mark.parametrize(
    "values, words",
    [
        ({"rate": 0.5}, "parameter rate: 0.5 Hz, expected 1 to 1000 Hz"),
        ({"rate": float("nan")}, "parameter rate: nan, expected a finite number"),
        ({"rate": "fast"}, "parameter rate: 'fast', expected a number"),
        ({"rate": True}, "expected a number"),
        ({"steps": 2.5}, "parameter steps: 2.5, expected an integer"),
        ({"steps": 0}, "expected at least 1"),
        ({"mode": "best"}, "parameter mode: 'best', expected one of ensemble, latest"),
        ({"names": "a"}, "parameter names: 'a', expected a list, each a string"),
        ({"names": [1]}, "parameter names[0]: 1, expected a string"),
        ({"speed": 1}, "parameter speed: unknown"),
    ],
)
def test_bad_values_are_named(values, words):
    with pytest.raises(InputError) as error:
        build(Example, values)
    assert words in str(error.value)


def test_the_documentation_and_the_example_file_say_what_the_node_has():
    root = Path(__file__).parents[2]
    assert table(PolicyParameters) in (root / "docs" / "runtime.md").read_text()
    for name, kind in (("policy", PolicyParameters), ("executor", ExecutorParameters)):
        values = sections(root / "config" / f"{name}.yaml")[f"/**/{name}_node"]
        assert build(kind, values) == kind()


def test_the_executor_has_one_set_of_defaults():
    assert ExecutorParameters().settings() == Settings()


def test_table_has_a_row_for_each():
    text = table(Example)
    for item in fields(Example):
        assert f"`{item.name}`" in text
    assert "| `rate` | `100.0` | Hz | 1 to 1000 | commands published |" in text
    assert "blending (any time)" in text
