"""A simulation takes a ROS domain that nobody on this machine uses."""

import os
import socket
import subprocess
import sys

import pytest

from vla_ros.graph import domains
from vla_ros.graph.domains import private_domain, reserve


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """One that is free, where the next search begins."""
    found = private_domain()
    domains._reserved.pop().close()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(found))
    return found


@pytest.mark.parametrize("participant", [0, 1, 37])
def test_a_participant_is_seen_whichever_number_it_has(participant: int, domain: int):
    """The first ones of a domain may have ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("", 7400 + 250 * domain + 10 + 2 * participant))
        assert private_domain() != domain
    assert private_domain() == domain


def test_two_that_look_before_either_has_a_participant_find_different_ones(domain: int):
    assert reserve(domain) and not reserve(domain)
    program = "from vla_ros.graph.domains import private_domain; print(private_domain())"
    said = subprocess.run([sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True)
    assert int(said.stdout) != domain
    for _ in range(domains._reserved.maxlen):  # whoever reserved it has a participant by now, or will have none
        private_domain()
    assert reserve(domain)
