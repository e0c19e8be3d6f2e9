"""What a graph says of a node that failed, and what it refuses to start."""

from pathlib import Path

import pytest

from vla_ros.core.errors import InputError
from vla_ros.graph.process import Process, check_namespace, node_command

ERROR = "[ERROR] [1795857579.619230900] [policy_node]: configure refused: checkpoint x: no such folder"


def errors(folder: Path, *lines: str) -> str:
    (folder / "log").write_text("\n".join(lines) + "\n")
    return Process("policy_node", None, folder / "log", None).errors()


def test_one_error_is_one_line_without_the_loggers_words(tmp_path):
    assert errors(tmp_path, "[INFO] [1.2] [a]: hello", ERROR, ERROR) == "checkpoint x: no such folder"
    assert errors(tmp_path, "[ERROR] parameter rate: 'x'") == "parameter rate: 'x'"


def test_several_errors_and_a_log_without_any(tmp_path):
    other = ERROR.replace("folder", "file").replace("[policy_node]", "[left.policy_node]")
    assert errors(tmp_path, ERROR, other) == "\ncheckpoint x: no such folder\ncheckpoint x: no such file"
    lines = [f"line {k}" for k in range(20)]
    assert errors(tmp_path, *lines) == "\n" + "\n".join(lines[12:])


@pytest.mark.parametrize("namespace", ["", "left", "/left/arm_2/", "_x"])
def test_namespaces(namespace):
    check_namespace(namespace)


@pytest.mark.parametrize("namespace", ["1left", "left arm", "left//arm", "a-b", "ä", "a__b"])
def test_namespaces_that_ros_refuses(namespace):
    with pytest.raises(InputError, match="namespace .*expected letters, digits and _"):
        check_namespace(namespace)


def test_a_parameter_file_is_looked_at_before_the_node_is_started(tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("a_node: {ros__parameters: {x: 1}}")
    bad.write_text("a: [")
    command = node_command("a_node", "some.module", "/left/", [good])
    assert command[1:] == ["-P", "-m", "some.module", "--ros-args", "--enclave", "/vla_ros/a_node", "-r",
                           "__node:=a_node", "-r", "__ns:=/left", "--params-file", str(good)]  # fmt: skip
    for path, words in ((bad, "bad.yaml: not YAML"), (tmp_path / "none", "none: No such file")):
        with pytest.raises(InputError, match=f"parameter file .*{words}"):
            node_command("a_node", "some.module", "", [path])
