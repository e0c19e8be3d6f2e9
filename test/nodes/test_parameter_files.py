"""Which nodes a parameter file means, by the rules of ROS, and that nothing in it is ignored in silence."""

from pathlib import Path

import pytest

from vla_ros.core.errors import InputError
from vla_ros.nodes.parameter_files import NODES, check_parameters, check_sections, means, sections

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize(
    ("section", "names"),
    [("/a_node", {"/a_node"}), ("/left/a_node", {"/left/a_node"}), ("/**", {"/a_node", "/left/a_node", "/l/m/a_node"}),
     ("/**/a_node", {"/a_node", "/left/a_node", "/l/m/a_node"}), ("/*", {"/a_node"}), ("/*/a_node", {"/left/a_node"}),
     ("/**/b_node", set()), ("/left/*", {"/left/a_node"})],
)  # fmt: skip
def test_wildcards(section, names):
    assert {name for name in ("/a_node", "/left/a_node", "/l/m/a_node") if means(section, name)} == names


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_nested_names_and_parameters_are_joined(tmp_path):
    text = "left: {a_node: {ros__parameters: {x: {y: 1}, z: 2}}}\n/left/a_node: {ros__parameters: {z: 3}}\nb_node: 4"
    assert sections(write(tmp_path / "f.yaml", text)) == {"/left/a_node": {"x.y": 1, "z": 3}}


def test_a_file_that_sets_nothing_is_refused(tmp_path):
    file = write(tmp_path / "f.yaml", "executor_node: {ros__parameters: {dry_run: true}}")
    check_sections(file, ["/executor_node", "/policy_node"])
    words = "sets nothing on /left/executor_node, .* is about /executor_node, expected /\\*\\*/executor_node or"
    with pytest.raises(InputError, match=words):
        check_sections(file, ["/left/executor_node", "/left/policy_node"])
    check_sections(file, ["/left/task_node"], others=["executor_node"])  # each node of a graph gets every file


KNOWN = ("dry_run", "mode", "use_sim_time")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("executor_node: {ros__parameters: {dry_run: true, use_sim_time: true}}", ""),
        ("executor_node: {ros__parameters: {dry_rum: true}}", "/executor_node: dry_rum: no .*expected dry_run"),
        ("executor_node: {ros__parameters: {max_age: 1.0}}", "max_age: no parameter of /executor_node"),
        ("/**: {ros__parameters: {max_age: 1.0}}", ""),  # the policy's
        ("/**: {ros__parameters: {dry_rum: true}}", "dry_rum: no parameter"),
        ("/**: {ros__parameters: {qos_overrides: {/x: {subscription: {depth: 1}}}}}", ""),
        ("policy_node: {ros__parameters: {anything: 1}}", ""),
        ("camera_driver: {ros__parameters: {rate: 1}}", "sets nothing on /executor_node"),
    ],
)
def test_what_a_node_does_not_have_is_refused(tmp_path, text, words):
    file = write(tmp_path / "f.yaml", text)

    def check():
        given = {name for key, values in sections(file).items() if means(key, "/executor_node") for name in values}
        check_parameters("/executor_node", "executor_node", KNOWN, given, [str(file)])

    if words:
        with pytest.raises(InputError, match=words):
            check()
    else:
        check()


def test_an_argument_that_no_node_knows_is_refused():
    check_parameters("/executor_node", "executor_node", KNOWN, ["mode", "max_age"], [])
    with pytest.raises(InputError, match="parameter: dry_rum: no parameter of /executor_node, expected dry_run"):
        check_parameters("/executor_node", "executor_node", KNOWN, ["dry_rum"], [])


def test_every_node_with_parameters_is_known():
    programs = {path.stem for path in (CONFIG.parent / "vla_ros" / "nodes").glob("*_node.py")}
    assert programs - {"replay_node"} == set(NODES)  # it is no program of its own


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_files_hold_in_every_namespace(file):
    assert all(section.startswith("/**/") and section.removeprefix("/**/") in NODES for section in sections(file))
