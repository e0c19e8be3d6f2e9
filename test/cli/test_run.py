"""What `vla-ros run` tells its nodes: what was given, and nothing that would override a parameter file unasked."""

import argparse

import pytest

from vla_ros.cli.run import arguments, asks_for_dry_run, node_parameters
from vla_ros.core.resources import resolve_robot

OWN = {"robot": str(resolve_robot("so101")), "autostart": False}  # it starts them itself


def parameters(*given: str, dry_run: bool = False) -> dict:
    parser = argparse.ArgumentParser()
    arguments(parser)
    return node_parameters(parser.parse_args(["--policy", "/", "--robot", "so101", *given]), dry_run)


def test_no_default_is_passed_on():
    policy = OWN | {"policy": "/"}
    assert parameters() == {"policy_node": policy, "executor_node": OWN, "task_node": OWN}


@pytest.mark.parametrize(
    ("given", "policy", "executor"),
    [
        (["--device", "cpu"], {"device": "cpu"}, {}),
        (["--dtype", "float32", "--num-steps", "0"], {"dtype": "float32", "num_steps": 0}, {}),
        (["--engine", "auto"], {"engine": "auto"}, {}),
        (["--mode", "rtc"], {"rtc": True}, {"mode": "rtc"}),
        (["--mode", "latest"], {"rtc": False}, {"mode": "latest"}),
        (["--dry-run"], {}, {"dry_run": True}),
        (["--use-sim-time"], {"use_sim_time": True}, {"use_sim_time": True}),
    ],
)
def test_what_is_given_is(given, policy, executor):
    found = parameters(*given)
    assert found["policy_node"] == OWN | {"policy": "/"} | policy
    assert found["executor_node"] == OWN | executor


def test_a_dry_run_that_any_file_asks_for_is_one(tmp_path):
    files = [tmp_path / f"{k}.yaml" for k in range(3)]
    texts = ("/**: {ros__parameters: {dry_run: true}}", "executor_node: {ros__parameters: {dry_run: false}}", "{}")
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    assert asks_for_dry_run(files, "/executor_node") and asks_for_dry_run(files, "/left/executor_node")
    assert not asks_for_dry_run(files[1:], "/executor_node")
    assert parameters(dry_run=True)["executor_node"] == OWN | {"dry_run": True}
