"""A simulation takes a ROS domain that nobody on this machine uses."""

import socket

import pytest

pytest.importorskip("rclpy", reason="graphs need ROS 2")
pytest.importorskip("vla_ros.msg", reason="the messages are not built: make build")

from vla_ros.graph.simulated import private_domain


@pytest.mark.parametrize("participant", [0, 1, 37])
def test_a_participant_is_seen_whichever_number_it_has(participant: int, monkeypatch):
    """The first ones of a domain may have ended."""
    domain = private_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("", 7400 + 250 * domain + 10 + 2 * participant))
        assert private_domain() != domain
    assert private_domain() == domain
