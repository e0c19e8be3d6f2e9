"""`vla-ros serve`: what it refuses before it loads anything, and what it says of who can reach it."""

import pytest

from vla_ros.cli.main import main
from vla_ros.cli.serve import exposure


@pytest.mark.parametrize("words, expected", [
    (["--port", "70000"], "--port 70000, expected 0 to 65535"), (["--clients", "0"], "--clients 0, expected 1"),
    (["--key", "k"], "--key k without --certificate"), (["--token-file", "none"], "token file none: "),
    (["--keys", "none.yaml"], "keys none.yaml: "), (["--certificate", "none.pem"], "--certificate none.pem"),
])  # fmt: skip
def test_what_is_wrong_is_named_in_one_line(words, expected, capsys):
    assert main(["serve", "nowhere", *words]) == 2
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1


def test_a_server_is_no_checkpoint(capsys):
    assert main(["serve", "ws://127.0.0.1:1"]) == 2
    assert "ws://127.0.0.1:1: a server, expected a checkpoint" in capsys.readouterr().err


def test_who_can_reach_it():
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert exposure(host, "", False) == []
    assert len(exposure("0.0.0.0", "", False)) == 2
    assert exposure("0.0.0.0", "token", True) == [] and len(exposure("robot.local", "token", False)) == 1
    assert "everybody" in exposure("::", "", True)[0]
