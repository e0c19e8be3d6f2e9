"""Euler steps and guidance of flow matching, on fields whose solutions are known."""

import pytest
import torch

from vla_ros.policies.flow import guided, sample, times
from vla_ros.policies.policy import Prior


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
    weights = torch.tensor([1.0, 1.0, 0.0, 0.0])
    out = sample(towards(actions, 10), noise, 10, Prior(target, weights, exact=exact))
    torch.testing.assert_close(out[:, 2:], actions[:, 2:])
    if not exact:  # the exact form sees that these paths end in `actions` wherever they start: its Jacobian is zero
        assert (out[:, :2] - target[:, :2]).abs().max() < (actions - target)[:, :2].abs().min()


def test_weights_of_zero_change_nothing():
    noise, actions = torch.randn(1, 4, 3), torch.randn(1, 4, 3)
    prior = Prior(torch.ones(1, 4, 3), torch.zeros(1, 4))
    assert torch.equal(sample(towards(actions, 5), noise, 5, prior), sample(towards(actions, 5), noise, 5))


def test_both_forms_agree_with_the_formula():
    x, y = torch.randn(1, 2, 3, dtype=torch.float64), torch.randn(1, 2, 3, dtype=torch.float64)
    matrix = torch.randn(3, 3, dtype=torch.float64)
    weights, time = torch.tensor([0.5, 1.0], dtype=torch.float64), 0.7

    def velocity(x, _):
        return x @ matrix.T

    error = weights[:, None] * (y - (x - time * x @ matrix.T))
    jacobian = torch.eye(3, dtype=torch.float64) - time * matrix
    strength = (time**2 + (1 - time) ** 2) / (time * (1 - time))
    v = x @ matrix.T
    torch.testing.assert_close(guided(velocity, x, 3, time, Prior(y, weights)), v - strength * error)
    exact = guided(velocity, x, 3, time, Prior(y, weights, exact=True))
    torch.testing.assert_close(exact, v - strength * error @ jacobian)
    first = guided(velocity, x, 0, 1.0, Prior(y, weights, max_guidance=2.0))
    torch.testing.assert_close(first, v - 2.0 * weights[:, None] * (y - (x - v)))
