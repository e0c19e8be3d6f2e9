"""Real-time chunking that was trained: the rows that are executed already are given to the network as they are."""

from dataclasses import replace

import families
import numpy as np
import pytest
import torch

from vla_ros.core.errors import InputError
from vla_ros.policies.flow import continuing
from vla_ros.policies.formats.lerobot_rtc import untold, write_guidance
from vla_ros.policies.policy import Steer
from vla_ros.policies.registry import load, save
from vla_ros.runtime.session import PolicySession, SessionOptions
from vla_ros.training.distill import distilling

FAMILIES = ("pi0", "pi05", "smolvla")
ROWS = 4  # given at most, of 6


def trained(family):
    loaded = families.fresh(family)
    continuing(loaded.policy, ROWS)
    return loaded


def batch_of(loaded, size=2):
    processor = loaded.processor
    samples = []
    for seed in range(size):
        actions = np.random.default_rng(seed).uniform(-0.3, 0.3, (processor.horizon, len(families.JOINTS)))
        one = families.sample(processor, seed)
        samples.append(replace(one, actions=actions, action_is_pad=np.zeros(processor.horizon, dtype=bool)))
    return processor.inputs(samples)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_are_given_stay_as_they_are_and_lead_the_others(family):
    policy = trained(family).policy
    batch = batch_of(trained(family))
    shape = policy.draws(2)["noise"]
    noise, target = {"noise": torch.randn(shape)}, torch.randn(shape)

    def answer(frozen, actions=target, overlap=6):
        steer = Steer(actions, *(torch.tensor(rows) for rows in (frozen, [overlap] * 2)))
        return policy.predict(batch, noise, steer)

    plain = policy.predict(batch, noise)
    torch.testing.assert_close(answer([0, 0]), plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(answer([3, 3], overlap=0), plain, rtol=0, atol=1e-6)
    found = answer([2, 6])
    assert torch.equal(found[0, :2], target[0, :2])
    assert torch.equal(found[1, :ROWS], target[1, :ROWS])  # no more than training has shown
    assert (found[0, 2:] - plain[0, 2:]).abs().max() > 1e-4 and (found[1, ROWS:] - target[1, ROWS:]).abs().max() > 1e-4
    # The rows of the running chunk that are not executed yet count nothing.
    ended = torch.cat([target[:, :ROWS], torch.zeros_like(target[:, ROWS:])], dim=1)
    torch.testing.assert_close(answer([2, 6], ended), found)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_the_other_rows_at_their_time(family):
    loaded = trained(family)
    policy, batch = loaded.policy, batch_of(loaded)
    noise, time = torch.randn_like(batch["actions"]), torch.tensor([0.3, 0.8])
    given = torch.tensor([0, 3])
    error = policy.element_loss(batch, noise, time, given)
    rows = torch.tensor([[0.3] * 6, [0.0] * 3 + [0.8] * 3])
    noisy = rows[..., None] * noise + (1 - rows[..., None]) * batch["actions"]
    expected = (policy.denoise(policy.encode(batch), noisy, rows) - (noise - batch["actions"])).square()
    torch.testing.assert_close(error.mean(), torch.cat([expected[0], expected[1, 3:]]).mean())
    assert not error[1, :3].any()

    same = policy.denoise(policy.encode(batch), noisy, time[:, None].expand(2, 6))
    torch.testing.assert_close(same, policy.denoise(policy.encode(batch), noisy, time))
    plain = families.fresh(family).policy.element_loss(batch, noise, time)
    torch.testing.assert_close(policy.element_loss(batch, noise, time, torch.zeros(2, dtype=torch.int64)), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_session_continues_the_chunk_that_runs(family, tmp_path):
    save(tmp_path / "policy", trained(family))
    loaded = load(tmp_path / "policy")
    assert loaded.policy.trained_rows == ROWS
    session = PolicySession(loaded, SessionOptions(guided=True))
    processor, step = loaded.processor, round(loaded.processor.step_dt * 1e9)
    first = session.infer([families.sample(processor)])[0].targets.parts[0].data
    session.delivered(1.5 * processor.step_dt)
    second = session.infer([families.sample(processor, seed=0, stamp_ns=2 * step)])[0].targets.parts[0].data
    np.testing.assert_allclose(second[:2], first[2:4], atol=1e-5)
    assert np.abs(second[2:4] - first[4:]).max() > 1e-4
    with pytest.raises(InputError, match="guidance 'exact': .* trained to continue"):
        PolicySession(loaded, SessionOptions(guided=True, exact_guidance=True))
    with pytest.raises(InputError, match="rtc_max_guidance 3: this .* without such a bound"):
        PolicySession(loaded, SessionOptions(guided=True, max_guidance=3.0))


def test_what_cannot_continue_is_refused():
    with pytest.raises(InputError, match="executed_rows 4: ACT cannot be trained to continue"):
        continuing(families.fresh("act").policy, ROWS)
    with pytest.raises(InputError, match="trained_rows 6, expected fewer than the 6 rows"):
        continuing(families.fresh("pi0").policy, 6)
    with pytest.raises(InputError, match="distill 1: Pi0 was trained to continue"):
        distilling(trained("pi0").policy, 1)




def test_an_export_says_that_it_does_not_tell_of_it():
    config = trained("pi0").policy.config
    assert write_guidance(config.guidance) is None  # nothing of guidance was chosen
    assert "trained_rows 4), which is not written" in untold(config.guidance)[0]
    assert not untold(families.fresh("pi0").policy.config.guidance)
