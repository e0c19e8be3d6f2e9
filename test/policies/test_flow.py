"""Euler steps and guidance of flow matching, on fields whose solutions are known."""

import numpy as np
import pytest
import torch

from vla_ros.policies.flow import guided, prior_weights, sample, times
from vla_ros.policies.policy import Steer


def steer(actions, frozen, overlap, **options):
    counts = (torch.full((len(actions),), n) for n in (frozen, overlap))
    return Steer(actions, *counts, **options)


def towards(actions, steps):
    """The velocity of the straight paths that end in `actions`: (x - actions) / t."""
    return lambda x, step: (x - actions) / (1 - step / steps)


def test_straight_paths_end_where_they_should():
    noise, actions = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    torch.testing.assert_close(sample(towards(actions, 10), noise, 10), actions)
    torch.testing.assert_close(times(4, torch.device("cpu")), torch.tensor([1, 0.75, 0.5, 0.25]))


@pytest.mark.parametrize("exact", [False, True])
def test_frozen_rows_approach_the_prior_and_free_rows_do_not(exact):
    noise, actions, target = torch.randn(2, 4, 3), torch.zeros(2, 4, 3), torch.ones(2, 4, 3)
    out = sample(towards(actions, 10), noise, 10, steer(target, 2, 2, exact=exact))
    torch.testing.assert_close(out[:, 2:], actions[:, 2:])
    if not exact:  # the exact form sees that these paths end in `actions` wherever they start: its Jacobian is zero
        assert (out[:, :2] - target[:, :2]).abs().max() < (actions - target)[:, :2].abs().min()


def test_no_overlap_changes_nothing():
    noise, actions = torch.randn(1, 4, 3), torch.randn(1, 4, 3)
    none = steer(torch.ones(1, 4, 3), 3, 0)
    assert torch.equal(sample(towards(actions, 5), noise, 5, none), sample(towards(actions, 5), noise, 5))


def test_both_forms_agree_with_the_formula():
    x, y = torch.randn(1, 2, 3, dtype=torch.float64), torch.randn(1, 2, 3, dtype=torch.float64)
    matrix = torch.randn(3, 3, dtype=torch.float64)
    weights, time = torch.tensor([0.5, 1.0], dtype=torch.float64)[None, :, None], 0.7

    def velocity(x, _):
        return x @ matrix.T

    error = weights * (y - (x - time * x @ matrix.T))
    jacobian = torch.eye(3, dtype=torch.float64) - time * matrix
    strength = (time**2 + (1 - time) ** 2) / (time * (1 - time))
    v = x @ matrix.T
    torch.testing.assert_close(guided(velocity, x, 3, time, steer(y, 0, 0), weights), v - strength * error)
    exact = guided(velocity, x, 3, time, steer(y, 0, 0, exact=True), weights)
    torch.testing.assert_close(exact, v - strength * error @ jacobian)
    first = guided(velocity, x, 0, 1.0, steer(y, 0, 0, max_guidance=2.0), weights)
    torch.testing.assert_close(first, v - 2.0 * weights * (y - (x - v)))


def test_weights_follow_the_papers_formula():
    weights = prior_weights(steer(torch.zeros(1, 8, 1), 2, 5), 8)[0, :, 0].double().numpy()
    expected = [1.0, 1.0]
    for i in (2, 3, 4):
        c = (5 - i) / (5 - 2 + 1)
        expected.append(c * (np.exp(c) - 1) / (np.e - 1))
    np.testing.assert_allclose(weights, [*expected, 0, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("delay", range(10))
@pytest.mark.parametrize("overlap", range(1, 9))
def test_weights_never_rise_and_stay_in_range(delay, overlap):
    weights = prior_weights(steer(torch.zeros(1, 8, 1), delay, overlap), 8)[0, :, 0].numpy()
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (np.diff(weights) <= 0).all()
    assert not weights[overlap:].any()
