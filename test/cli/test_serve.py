"""`vla-ros serve`: what it refuses before it loads anything, and what it says of who can reach it."""

import families
import numpy as np
import pytest
from remote_servers import LONG, ROBOT, client, serving

from vla_ros.bags.measures import JointMeasure
from vla_ros.cli.main import main
from vla_ros.cli.replay import SessionPredictor
from vla_ros.cli.serve import exposure
from vla_ros.core.errors import InputError
from vla_ros.core.observation import Observation
from vla_ros.runtime.session import PolicySession


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
    assert "everyone" in exposure("::", "", True)[0]


def test_bench_and_replay_of_a_policy_elsewhere(capsys, tmp_path):
    policy = families.fresh("pi0")
    file = tmp_path / "server.yaml"
    with serving(policy) as port:
        file.write_text(f"server: ws://127.0.0.1:{port}\ndeadline: {LONG}\n")
        assert main(["bench", "--policy", str(file), "--robot", "so101", "--runs", "2"]) == 0
        said = capsys.readouterr().out
        assert f"pi0 at ws://127.0.0.1:{port}" in said and all(word in said for word in ("encode", "flight", "total"))
        assert main(["bench", "--policy", str(file), "--num-steps", "3"]) == 2
        assert "num_steps 3: server ws://" in capsys.readouterr().err
        # What `vla-ros replay` asks: each chunk with draws of its own, whatever came before.
        remote = client(port)
        sessions, measure = (remote, PolicySession(policy)), JointMeasure(ROBOT)
        predictors = [SessionPredictor("a", session, measure) for session in sessions]
        one = families.sample(policy.processor)
        seen = Observation(0, {name: image[0] for name, image in one.images.items()}, one.state[0], one.instruction)
        for seed in (3, 1, 3):
            there, here = (predictor.predict([seen], seed) for predictor in predictors)
            np.testing.assert_array_equal(there, here)
        remote.close()
        with pytest.raises(InputError, match="was closed"):
            remote.infer([one])
