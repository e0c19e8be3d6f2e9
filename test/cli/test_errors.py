"""A command that is given something wrong says so in one line, by its own name, and leaves nothing behind."""

import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="some commands need ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make setup")

from vla_ros.cli import main as command
from vla_ros.cli.main import COMMANDS
from vla_ros.control import remedies
from vla_ros.core.errors import InputError
from vla_ros.graph.domains import private_domain

ROBOT = r"robot 'no': no such file, expected a path or one of aloha, "
CASES = [
    ("demo --robot no", ROBOT),
    ("demo --time-limit nan", "--time-limit nan s, expected more than 0 and at most 3600"),
    ("demo --seed -5", "--seed -5, expected 0 to 2147483647"),
    ("demo --policy no", "policy no: no such file or folder, expected a checkpoint folder, a policy file, or ws:"),
    ("demo --lockstep --policy ws://127.0.0.1:9", "^vla-ros demo: server ws://127.0.0.1:9: Connection refused"),
    ("run --policy server.yaml --robot so101", "^vla-ros run: server ws://127.0.0.1:9: Connection refused"),
    ("eval --policy ws://127.0.0.1:9", "^vla-ros eval: server ws://127.0.0.1:9: Connection refused"),
    ("run --policy no --robot no", ROBOT),
    ("run --policy file --robot so101 --namespace 1st", "namespace '1st': '1st', expected letters"),
    ("run --policy file --robot so101 --params no.yaml", "parameter file .*no.yaml: No such file"),
    ("run --policy file --robot so101 --params other", "parameter file .*other: sets nothing on .* about /camera"),
    ("run --policy no --robot so101", "policy no: no such file or folder"),
    ("run --policy no/one --robot so101", "policy no/one: .*; a model of .*: hf download no/one --local-dir one"),
    ("run --policy file --robot so101", "node policy_node did not configure: policy file .*file: expected a mapping"),
    ("task x --namespace 1st", "namespace '1st'"),
    ("task x --wait 0.1", "action run_instruction: no server"),
    ("say", "instruction '', --stop not given: expected one of the two"),
    ("e-stop --namespace a-b", "namespace 'a-b'"),
    ("takeover --namespace a-b", "namespace 'a-b'"),
    ("takeover --base --robot lekiwi", "--robot without --keyboard and --joy, expected one of these"),
    ("takeover --end --topic /leader/joint_states", "--topic without --keyboard and --joy"),
    ("lifecycle --namespace a-b", "namespace 'a-b'"),
    ("top --namespace a-b", "namespace 'a-b'"),
    ("console --robot so101 --namespace a-b", "namespace 'a-b'"),
    ("doctor --robot so101 --namespace a-b", "namespace 'a-b'"),
    ("eval --policy no --robot no", ROBOT),
    ("eval --policy no --robot so101 --videos v", "policy no: no such file or folder"),
    ("eval --policy file --robot so101 --layouts 1", "policy_node did not configure: policy file .*file: expected a"),
    ("eval --policy file --robot so101 --params other", "parameter file other: sets nothing on .* about /camera"),
    ("eval --control expert --output no/results.json", "--output no/results.json: folder no cannot be written to"),
    ("demos file/x --episodes 1", "dataset file/x: cannot be written"),
    ("train --config no", "training config no: No such file"),
    ("record --robot no", ROBOT),
    ("record --robot so101 --namespace 1st", "namespace '1st'"),
    ("replay no", "bag no: no such file or folder"),
    ("replay no --output report", "--output without --policy, expected both or neither"),
    ("replay no --policy no --robot so101 --commands", "--commands with --policy, expected only one of them"),
    ("replay no --policy no --robot no", ROBOT),
    ("imagine no --policy no --robot no", ROBOT),
    ("bag show no", "bag no: no such file or folder"),
    ("bag repair no", "bag no: no such file or folder"),
    ("dataset build no -o out --robot no", ROBOT),
    ("dataset show no", "dataset no: no such folder"),
    ("info no", f"no: neither a checkpoint folder nor a policy file; {ROBOT}"),
    ("info no/one", r"no/one: neither a checkpoint .*a model .*: hf download no/one --local-dir one"),
    ("info file", "file file: expected a mapping at the top, got str"),
    ("bench --policy no", "checkpoint no: no such folder"),
    ("bench --policy no --cameras 3", "--cameras with --policy no, expected none: it is for random weights, of pi0, "),
    ("info ws://localhost:1", "ws://localhost:1: a server, expected a file or folder; vla-ros bench --policy ws:"),
    ("export no --to lerobot --output out", "checkpoint no: no such folder"),
    ("convert no --output out", "checkpoint no: No such file"),
    ("convert file --output out", "checkpoint file: begins with 74657874, expected a file that torch.save wrote"),
    ("robot new --urdf no", "URDF no: No such file"),
    ("bench --policy act --device gpu9", "device 'gpu9'"),
    ("serve no", "checkpoint no: no such folder"),
    ("rerun --robot no", f"{ROBOT}|rerun-sdk is not installed"),
]  # fmt: skip
SECTIONS = {remedies.section(key) for kinds in remedies.PARTS.values() for kind in kinds for key in kind}


def test_every_command_is_tried():
    assert {line.split()[0] for line, _ in CASES} == set(COMMANDS)


@pytest.mark.parametrize(("line", "words"), CASES, ids=[line for line, _ in CASES])
def test_one_line(line, words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(private_domain()))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setattr("vla_ros.graph.processes.discovery_time", lambda: 0.0)  # nobody is there to be discovered
    Path("file").write_text("text")
    Path("other").write_text("camera: {ros__parameters: {rate: 1}}")
    Path("server.yaml").write_text("server: ws://127.0.0.1:9")
    assert command.main(line.split()) == 2
    said = capfd.readouterr().err.strip()
    assert "\n" not in said and "Traceback" not in said
    assert said.endswith(")") and said[:-1].rpartition(" (")[2] in SECTIONS
    assert said.startswith(f"vla-ros {line.split()[0]}: ")
    assert re.search(words, said), said
    assert not {path.name for path in tmp_path.iterdir()} - {"file", "other", "server.yaml", "runs"}


def test_a_file_that_the_system_refuses_is_named(monkeypatch, capsys):
    def fail(args):
        raise PermissionError(13, "Permission denied", "/some/where")

    monkeypatch.setattr("vla_ros.cli.bag.main", fail)
    assert command.main(["bag", "show", "x"]) == 2
    assert capsys.readouterr().err == "vla-ros bag: /some/where: Permission denied (docs/troubleshooting.md#files)\n"


def test_an_error_that_names_the_command_does_not_make_it_appear_twice(monkeypatch, capsys):
    def fail(args):
        raise InputError("export: no statistics of the state")

    monkeypatch.setattr("vla_ros.cli.export.main", fail)
    assert command.main(["export", "x", "--to", "lerobot", "--output", "out"]) == 2
    assert capsys.readouterr().err.startswith("vla-ros export: no statistics of the state (")


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    def fail(args):
        raise OSError("no file is to blame")

    monkeypatch.setattr("vla_ros.cli.bag.main", fail)
    with pytest.raises(OSError, match="no file is to blame"):
        command.main(["bag", "show", "x"])
