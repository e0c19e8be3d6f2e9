import numpy as np
import pytest
import torch
from runtime.tiny_policy import Regressor, loaded, robot, sample

from vla_ros.core.errors import InputError
from vla_ros.policies.policy import Prior
from vla_ros.runtime.serving import resolve_device, resolve_dtype
from vla_ros.runtime.session import PolicySession, SessionOptions, example_sample


def test_one_prefix_a_chunk_whatever_the_steps():
    session = PolicySession(loaded(), SessionOptions(num_steps=7))
    session.infer(sample())
    assert session.policy.calls == {"prefix": 1, "denoise": 7}


def test_same_seed_same_actions():
    first, second = (PolicySession(loaded(), SessionOptions(seed=3)) for _ in range(2))
    a = [first.infer(sample()).actions for _ in range(2)]
    b = [second.infer(sample()).actions for _ in range(2)]
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a[0], a[1])
    first.reset()
    np.testing.assert_array_equal(first.infer(sample()).actions, a[0])


def test_actions_are_joint_targets_and_times_are_told():
    session = PolicySession(loaded())
    noise = torch.zeros(1, 8, 4)
    result = session.infer(sample(), noise=noise)
    assert result.actions.shape == (8, 2) and result.actions.dtype == np.float64
    expected = session.processor.outputs(result.normalised[None], [sample()])[0].parts[0].data
    np.testing.assert_array_equal(result.actions, expected)
    assert 0 < result.prefix_time < result.total_time
    assert 0 < result.denoise_time < result.total_time


def test_warm_up_visits_every_length_of_prompt_and_leaves_no_trace():
    session = PolicySession(loaded())
    assert session.warm_up(example_sample(robot(), session.processor)) == 2
    cold = PolicySession(loaded())
    np.testing.assert_array_equal(session.infer(sample()).actions, cold.infer(sample()).actions)


def test_a_prior_guides_and_weight_zero_is_nothing():
    session = PolicySession(loaded(), SessionOptions(guided=True))
    noise = torch.zeros(1, 8, 4)
    free = session.infer(sample(), noise=noise).normalised
    target = torch.ones(1, 8, 4)
    nothing = session.infer(sample(), Prior(target, torch.zeros(1, 8)), noise=noise).normalised
    torch.testing.assert_close(nothing, free, rtol=0, atol=0)
    weights = torch.tensor([[1.0] * 4 + [0.0] * 4])
    guided = session.infer(sample(), Prior(target, weights), noise=noise).normalised
    assert (guided[:4] - target[0, :4]).abs().max() < (free[:4] - target[0, :4]).abs().max()
    torch.testing.assert_close(guided[4:], free[4:], rtol=0, atol=0)


def test_a_policy_that_does_not_denoise():
    session = PolicySession(loaded(Regressor))
    result = session.infer(sample())
    assert result.prefix_time == 0.0 and result.denoise_time > 0
    with pytest.raises(InputError, match="does not denoise"):
        PolicySession(loaded(Regressor), SessionOptions(num_steps=3))


def test_numbers_that_are_not_finite_are_refused():
    session = PolicySession(loaded())
    with pytest.raises(InputError, match="joint j0 is nan"):
        session.infer(sample(state=(0.1, float("nan"))))


def test_devices_and_types_by_name():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16
    for bad in ("gpu", "cuda:99", "tpu"):
        with pytest.raises(InputError, match="device"):
            resolve_device(bad)
    with pytest.raises(InputError, match="dtype 'int8'"):
        resolve_dtype("int8", torch.device("cpu"))


@pytest.mark.gpu
def test_recorded_graphs_give_what_the_plain_way_gives():
    plain = loaded()
    plain.policy.cuda()
    recorded = loaded()
    recorded.policy.cuda()
    noise = torch.randn(1, 8, 4)
    a = PolicySession(plain, SessionOptions(graph=False))
    b = PolicySession(recorded, SessionOptions(max_graphs=1))
    for instruction in ("go", "go " * 15, "go"):
        for value in (10, 200):
            x, y = (s.infer(sample(value, instruction=instruction), noise=noise) for s in (a, b))
            torch.testing.assert_close(x.normalised, y.normalised, rtol=0, atol=0)
            assert y.prefix_time > 0 and y.denoise_time > 0
    assert len(b._network) == 1
