"""Every family behind our server, asked by our client: the numbers are those of a session here."""

import families
import pytest
import real_families
from remote_servers import LONG, ROBOT, client, same, serving

from vla_ros.policies.registry import load
from vla_ros.policies.server_file import ServerFile
from vla_ros.runtime.serving import open_session
from vla_ros.runtime.session import PolicySession

STEP = 100_000_000  # ns


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_served_policy_answers_as_it_does_here(family):
    """Every family, its history and its memory included: the same numbers over the wire and without it."""
    policy = families.fresh(family)
    local = PolicySession(policy)
    with serving(policy) as port:
        remote = client(port)
        assert remote.processor.steps() == policy.processor.steps() and remote.traits.paced == local.traits.paced
        remote.warm_up(families.sample(policy.processor))
        for episode in range(2):
            for k in range(3):
                one = families.sample(policy.processor, 10 * episode + k, families.INSTRUCTIONS[episode], k * STEP)
                (result,), (expected,) = remote.infer([one]), local.infer([one])
                same(result, expected)
                assert 0 < result.flight_time < result.total_time and not result.stale
                assert result.encode_time > 0 and result.act_time > 0
            remote.begin()
            local.begin()
        remote.seed(7)
        local.seed(7)
        same(remote.infer([one])[0], local.infer([one])[0])
        remote.close()


@pytest.mark.parametrize("family", ("act", "groot", "openvla"))
def test_published_folders_are_served(family, tmp_path):
    """Folders as their origin writes them, with joints that the embodiment maps."""
    policy = load(real_families.make(tmp_path / "policy", family), robot=ROBOT)
    one = real_families.sample(policy)
    with serving(policy) as port:
        remote = open_session(f"ws://127.0.0.1:{port}", ROBOT)
        remote.file = ServerFile(remote.file.server, deadline=LONG)
        same(remote.infer([one])[0], PolicySession(policy).infer([one])[0])
        remote.close()
